"""The small types that a BrandSpec is made of."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", min_length=2, max_length=20)]
E164 = Annotated[str, Field(pattern=r"^\+[1-9]\d{6,14}$", examples=["+33639980000"])]
Locale = Annotated[str, Field(pattern=r"^[a-z]{2}-[A-Z]{2}$", examples=["fr-FR"])]
LocalText = Annotated[dict[Locale, str], Field(min_length=1)]
"""A text by locale; every locale of the brand has to be there."""
HexColour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$", examples=["#1b4965"])]
Period = Annotated[str, Field(pattern=r"^P([1-9]\d?D|[1-9]\d?W|[1-9]\d?M)$", examples=["P1M", "P30D"])]
"""An ISO 8601 duration of whole days, weeks or months."""
ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["08:00"])]


def quoted(value: Any) -> Any:
    """A price as it was written: a bare number has lost digits already. Raises ValueError."""
    if isinstance(value, float):
        raise ValueError("write a price in quotes, for instance '9.99': a bare number is rounded on the way")
    return value


Money = Annotated[
    Decimal,
    BeforeValidator(quoted),
    Field(ge=0, le=100_000, decimal_places=2),
    PlainSerializer(lambda value: str(value), return_type=str, when_used="json"),
]
"""An amount of the brand's currency, tax as the country pack says."""


class Model(BaseModel):
    """Frozen and closed: an unknown key is an error that lists the known ones."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, str_strip_whitespace=True
    )
