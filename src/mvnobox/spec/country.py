"""Country packs: what the law and the numbering plan of a country ask of a mobile brand. Data in `countries/`."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

import phonenumbers
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class IdentityRule(_Data):
    """Whether a customer's identity must be verified before a prepaid or postpaid SIM is activated."""

    required_before_activation: bool
    accepted_documents: tuple[str, ...] = ()
    source: str


class Tax(_Data):
    """Consumer prices: the standard rate in percent, and whether prices are shown with the tax in them."""

    name: str
    standard_rate_percent: float = Field(ge=0, le=50)
    prices_include_tax: bool
    rounding: Literal["half-up", "half-even"] = "half-up"


class Porting(_Data):
    """How a customer brings a number along."""

    code_name: str
    how_to_get_code: str
    working_days: int = Field(ge=0)
    losing_operator_contact_needed: bool


class Country(_Data):
    """One country pack."""

    code: str = Field(pattern="^[A-Z]{2}$")
    name: str
    mobile_country_codes: tuple[str, ...]
    mnc_digits: tuple[int, ...]
    calling_code: int
    emergency_numbers: tuple[str, ...]
    always_free_numbers: tuple[str, ...] = ()
    identity: IdentityRule
    tax: Tax
    porting: Porting
    currency: str = Field(pattern="^[A-Z]{3}$")
    currency_minor_digits: int = 2
    locales: tuple[str, ...]
    default_timezone: str
    reserved_mobile_ranges: tuple[tuple[str, str], ...] = ()
    """Ranges kept for fiction and tests: allowed in a brand's number range although no operator owns them."""

    def is_own_number(self, e164: str) -> bool:
        """Whether a number in E.164 form (`+33…`) belongs to this country and can be a mobile subscriber's."""
        if any(first <= e164 <= last and len(e164) == len(first) for first, last in self.reserved_mobile_ranges):
            return True
        try:
            number = phonenumbers.parse(e164)
        except phonenumbers.NumberParseException:
            return False
        if number.country_code != self.calling_code or not phonenumbers.is_possible_number(number):
            return False
        region = phonenumbers.region_code_for_number(number)
        return region == self.code and phonenumbers.number_type(number) in {
            phonenumbers.PhoneNumberType.MOBILE,
            phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE,
        }


# Networks that belong to no country: ITU's test code and the code for private networks (ITU-T E.212).
TEST_MCCS = ("001", "999")


@cache
def country_codes() -> tuple[str, ...]:
    """The countries there is a pack for, as ISO 3166-1 alpha-2 codes."""
    folder = resources.files("mvnobox.spec") / "countries"
    return tuple(sorted(entry.name[:2].upper() for entry in folder.iterdir() if entry.name.endswith(".yaml")))


@cache
def country(code: str) -> Country:
    """The pack of a country. Raises KeyError for a country without one."""
    if code not in country_codes():
        raise KeyError(code)
    text = (resources.files("mvnobox.spec") / "countries" / f"{code.lower()}.yaml").read_text(encoding="utf-8")
    return Country.model_validate(yaml.safe_load(text))
