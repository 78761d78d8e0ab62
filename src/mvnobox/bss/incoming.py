"""What callers send: TM Forum's resources as far as the BSS reads them."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

# Marks that turn the direction of the text around them.
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_EMAIL = re.compile(r"[^@\s<>\"']+@[^@\s<>\"']+\.[^@\s<>\"']+")


def _plain(value: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cs") or c in _TURNS for c in value):
        raise ValueError("has control characters")
    return value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is not a number")
    return value


Line = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_plain)]
"""A line of text without control characters."""
Name = Annotated[Line, Field(min_length=1, max_length=100)]
One = Annotated[Literal[1], BeforeValidator(_no_boolean)]


class Incoming(BaseModel):
    """Attributes that are not known are let go by, as TMF630 asks of a server."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Identification(Incoming):
    identification_type: Line = Field(min_length=1, max_length=60)
    identification_id: Line = Field(min_length=1, max_length=60)
    issuing_authority: Line | None = Field(default=None, max_length=100)
    valid_for: dict[str, dt.datetime] | None = None


class ContactMedium(Incoming):
    medium_type: Line = Field(max_length=40)
    characteristic: dict[str, Any] = {}

    @model_validator(mode="after")
    def _addressable(self) -> ContactMedium:
        address = self.characteristic.get("emailAddress")
        if self.medium_type != "email" or address in (None, ""):
            return self
        if not isinstance(address, str) or len(address) > 254 or not _EMAIL.fullmatch(_plain(address)):
            raise ValueError("emailAddress is not an e-mail address")
        return self


class RelatedParty(Incoming):
    """A customer inline, or a reference to one (`id`)."""

    id: uuid.UUID | None = None
    role: Line = Field(default="customer", max_length=40)
    given_name: Name | None = None
    family_name: Name | None = None
    preferred_locale: Line | None = Field(default=None, max_length=10)
    contact_medium: Annotated[list[ContactMedium], Field(max_length=5)] = []
    individual_identification: Annotated[list[Identification], Field(max_length=3)] = []

    @property
    def email(self) -> str | None:
        for medium in self.contact_medium:
            if medium.medium_type == "email":
                return medium.characteristic.get("emailAddress") or None
        return None


class Reference(Incoming):
    id: Line = Field(min_length=1, max_length=60)


class Characteristic(Incoming):
    name: Line = Field(max_length=60)
    value: Any = None


class ProductChange(Incoming):
    """The product that an order item changes or ends, and how: a status, or the characteristic `simSwap`."""

    id: uuid.UUID
    status: Literal["active", "suspended"] | None = None
    product_characteristic: Annotated[list[Characteristic], Field(max_length=10)] = []

    @property
    def sim_swap(self) -> bool:
        return any(c.name == "simSwap" and c.value is True for c in self.product_characteristic)


class OrderItem(Incoming):
    """One item: `add` a product of an offering, `modify` or `delete` one that is there."""

    id: Line = Field(default="1", max_length=20)
    action: Literal["add", "modify", "delete"] = "add"
    quantity: One = 1
    product_offering: Reference | None = None
    product: ProductChange | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_its_action(cls, value: Any) -> Any:
        # The product of an `add` describes what is to be made; nothing in it is ours to read.
        if isinstance(value, dict) and value.get("action", "add") == "add":
            return {k: v for k, v in value.items() if k != "product"}
        return value

    @model_validator(mode="after")
    def _whole(self) -> OrderItem:
        if self.action == "add":
            if self.product_offering is None:
                raise ValueError("an item that adds needs productOffering")
        elif self.product is None:
            raise ValueError(f"an item with action {self.action} needs product.id")
        elif self.action == "modify" and (self.product.status is None) != self.product.sim_swap:
            raise ValueError(
                "an item that modifies needs either product.status (active or suspended) or the characteristic "
                "simSwap with the value true"
            )
        return self


class OrderCreate(Incoming):
    """ProductOrder_Create (TMF622), one item an order."""

    external_id: Line | None = Field(default=None, min_length=1, max_length=100)
    product_order_item: Annotated[list[OrderItem], Field(min_length=1, max_length=1)]
    related_party: Annotated[list[RelatedParty], Field(max_length=1)] = []

    @model_validator(mode="after")
    def _has_customer(self) -> OrderCreate:
        if self.product_order_item[0].action == "add" and not self.related_party:
            raise ValueError("an order that adds a product needs relatedParty")
        return self


class StatusPatch(BaseModel):
    """What can be patched of a product (TMF637); anything else is refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    status: Literal["active", "suspended", "terminated"] | None = None
    auto_renew: bool | None = Field(default=None, alias="autoRenew", strict=True)
    type: str | None = Field(default=None, alias="@type", max_length=60)

    @model_validator(mode="after")
    def _something(self) -> StatusPatch:
        if self.status is None and self.auto_renew is None:
            raise ValueError("patch status or autoRenew")
        return self


class Quantity(Incoming):
    """An amount of money with its currency."""

    amount: Annotated[float, BeforeValidator(_no_boolean), Field(gt=0, le=1e9, allow_inf_nan=False)]
    units: Line = Field(min_length=1, max_length=10)


class TopupCreate(Incoming):
    """TopupBalance_Create (TMF654); `id` makes it repeatable, `amount` is checked against the offer's price."""

    id: uuid.UUID | None = None
    product: Reference
    product_offering: Reference
    amount: Quantity | None = None


class BatchPut(BaseModel):
    """A batch of lines without customers."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)
    plan: Line = Field(min_length=1, max_length=20)
    count: Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=1_000_000, strict=True)]
    identity_verified: Annotated[bool, Field(strict=True)] = False
