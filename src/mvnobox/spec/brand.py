"""BrandSpec v1: everything that one brand decides, in one file. Keys are camelCase, as in Kubernetes."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AnyUrl,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mvnobox.spec.colour import contrast
from mvnobox.spec.country import TEST_MCCS, Country, country, country_codes
from mvnobox.spec.networks import DataNetwork
from mvnobox.spec.parts import E164, HexColour, Locale, LocalText, Model, Money, Period, Slug
from mvnobox.spec.rates import Rate, RoamingZone, TimeBand, overlap
from mvnobox.spec.units import BitRate, Octets, OctetsOrUnlimited, SecondsOrUnlimited

# Names that are namespaces or stacks of the platform itself.
RESERVED_NAMES = ("platform", "kube-system", "default", "public", "mvno", "ocs", "directory")


class LegalEntity(Model):
    """Who answers for the brand before the law."""

    name: str = Field(min_length=2, max_length=120)
    registration: str = Field(min_length=2, max_length=60)
    address: str = Field(min_length=5, max_length=300)


class Plmn(Model):
    """The network identity that the SIMs carry (TS 23.003 clause 2.2)."""

    mcc: str = Field(pattern=r"^\d{3}$")
    mnc: str = Field(pattern=r"^\d{2,3}$")


class MsinRange(Model):
    """The subscriber numbers within the PLMN that belong to this brand: the last 9 or 10 digits of the IMSI."""

    first: str = Field(pattern=r"^\d{9,10}$")
    last: str = Field(pattern=r"^\d{9,10}$")

    @model_validator(mode="after")
    def _ordered(self) -> MsinRange:
        if len(self.first) != len(self.last) or self.first > self.last:
            raise ValueError("first and last must have the same length and first may not be above last")
        return self


class NumberRange(Model):
    """The telephone numbers that the brand gives out, E.164, both ends included."""

    first: E164
    last: E164

    @model_validator(mode="after")
    def _ordered(self) -> NumberRange:
        if len(self.first) != len(self.last) or self.first > self.last:
            raise ValueError("first and last must have the same length and first may not be above last")
        return self

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1


class Theme(Model):
    """How the brand looks: the portal, the QR page, the mails."""

    primary: HexColour
    accent: HexColour
    background: HexColour = "#ffffff"
    text: HexColour = "#1a1a1a"
    logo: str = Field(min_length=1, max_length=20_000, description="SVG markup, or a word that is set as the logo")
    tagline: LocalText
    large_type: bool = False

    @field_validator("logo")
    @classmethod
    def _harmless(cls, value: str) -> str:
        if "<" in value and (
            not value.startswith("<svg") or re.search(r"<script|\bon\w+\s*=|href\s*=|<foreignObject|url\(", value, re.I)
        ):
            raise ValueError("must be plain text or one <svg> element without scripts, links or event handlers")
        return value

    @model_validator(mode="after")
    def _legible(self) -> Theme:
        for name, ratio in {
            "text on background": contrast(self.text, self.background),
            "primary on background": contrast(self.primary, self.background),
        }.items():
            if ratio < 4.5:
                raise ValueError(f"{name} has a contrast of {ratio:.1f}:1; WCAG 2.2 AA asks for at least 4.5:1")
        return self


class Slice(Model):
    """S-NSSAI (TS 23.003 clause 28.4): the brand's own slice of the core."""

    sst: int = Field(ge=1, le=255)
    sd: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{6}$")

    @field_validator("sd", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError("write the slice differentiator in quotes, six hexadecimal digits, for instance '000001'")
        return value.lower() if isinstance(value, str) else value


class DestinationGroup(Model):
    """Telephone numbers that a plan treats alike, for instance the homes of an association."""

    id: Slug
    name: LocalText
    numbers: list[E164] = Field(default_factory=list, max_length=10_000)
    prefixes: list[Annotated[str, Field(pattern=r"^\+[1-9]\d{0,13}$")]] = Field(
        default_factory=list,
        max_length=1000,
        description="what numbers begin with, for instance +49; the longest counts",
    )

    @model_validator(mode="after")
    def _has_some(self) -> DestinationGroup:
        if not self.numbers and not self.prefixes:
            raise ValueError("has neither numbers nor prefixes: give at least one")
        return self


class Allowances(Model):
    """What a period of the plan contains."""

    data: OctetsOrUnlimited | None = None
    voice: SecondsOrUnlimited | None = None
    sms: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["unlimited"] | None = None
    balance: Money | None = Field(default=None, gt=0, description="money, for what a plan's rates sell by the unit")


class FairUse(Model):
    """From `after` on the line is slowed to `throttle` and not cut, until the period ends."""

    after: Octets
    throttle: BitRate


class Rollover(Model):
    """Unused data lives on for so many further periods, at most `limit`."""

    periods: int = Field(default=1, ge=1, le=12)
    limit: Octets | None = None


class TopUp(Model):
    """More of something, bought once."""

    id: Slug
    name: LocalText
    price: Money
    adds: Allowances
    validity: Period = "P30D"


class Plan(Model):
    """What a customer subscribes to."""

    id: Slug
    name: LocalText
    description: LocalText
    price: Money
    period: Period = "P1M"
    payment: Literal["prepaid", "postpaid"] = "prepaid"
    dnn: str
    allowances: Allowances
    fair_use: FairUse | None = None
    rollover: Rollover | None = None
    free_destinations: list[Slug] = Field(default_factory=list)
    rates: list[Rate] = Field(default_factory=list, max_length=100, description="the first that fits a use decides")
    credit: Money | None = Field(
        default=None, gt=0, description="money that a line may owe for what rates sell, once its balance is used up"
    )
    top_ups: list[Slug] = Field(default_factory=list)
    sellable: bool = Field(default=True, description="false: only the operator can order it, customers never see it")

    @model_validator(mode="after")
    def _sells_something(self) -> Plan:
        if self.allowances == Allowances() and not self.free_destinations and not self.rates:
            raise ValueError("has no allowance at all: give data, voice, sms, balance, rates or freeDestinations")
        if self.credit is not None and not self.rates:
            raise ValueError("has credit, and nothing that it could pay: give rates, or no credit")
        return self


class Esim(Model):
    """The profile server that the phone downloads from (GSMA SGP.22)."""

    smdp_address: str = Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=253)


class Voice(Model):
    """The brand's voice domain (IMS home domain or SIP domain)."""

    domain: str = Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", max_length=253)


class Contact(Model):
    """Where customers turn to."""

    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=254)
    phone: str = Field(pattern=r"^\+?[0-9 ]{2,20}$")
    website: AnyUrl
    support: LocalText


class Reminder(Model):
    """A message that customers can book, for instance to take their medication."""

    id: Slug
    channel: Literal["sms", "call"] = "sms"
    text: LocalText
    default_times: list[Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]] = Field(
        min_length=1, max_length=12
    )


def _verification_allowance() -> int:
    return 25_000_000


class BrandSpec(Model):
    """A brand, whole."""

    api_version: Literal["mvno.box/v1"]
    kind: Literal["Brand"]
    name: Slug
    display_name: str = Field(min_length=1, max_length=60)
    legal_entity: LegalEntity
    country: str = Field(pattern=r"^[A-Z]{2}$")
    locales: list[Locale] = Field(min_length=1)
    timezone: str | None = None
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    plmn: Plmn
    msin_range: MsinRange
    number_range: NumberRange
    theme: Theme
    slice: Slice
    data_networks: list[DataNetwork] = Field(min_length=1, max_length=8)
    destination_groups: list[DestinationGroup] = Field(default_factory=list, max_length=50)
    roaming_zones: list[RoamingZone] = Field(default_factory=list, max_length=50)
    time_bands: list[TimeBand] = Field(default_factory=list, max_length=20)
    low_balance: Money | None = Field(
        default=None, gt=0, description="customers are told when their balance falls below"
    )
    plans: list[Plan] = Field(min_length=1, max_length=50)
    top_ups: list[TopUp] = Field(default_factory=list)
    reminders: list[Reminder] = Field(default_factory=list)
    esim: Esim
    voice: Voice
    contact: Contact

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in RESERVED_NAMES:
            raise ValueError(f"{value!r} is a name that the kit itself uses: take another")
        return value

    @field_validator("country")
    @classmethod
    def _has_pack(cls, value: str) -> str:
        if value not in country_codes():
            raise ValueError(f"there is no country pack for {value!r}; there is one for {', '.join(country_codes())}")
        return value

    @field_validator("plmn")
    @classmethod
    def _of_the_country(cls, value: Plmn, info: ValidationInfo) -> Plmn:
        code = info.data.get("country")
        if code is None or value.mcc in TEST_MCCS:
            return value
        pack = country(code)
        if value.mcc not in pack.mobile_country_codes:
            raise ValueError(
                f"MCC {value.mcc} is not {pack.name}'s: take {', '.join(pack.mobile_country_codes)}, "
                f"or {' or '.join(TEST_MCCS)} for a test network"
            )
        if len(value.mnc) not in pack.mnc_digits:
            digits = " or ".join(str(n) for n in pack.mnc_digits)
            raise ValueError(f"MNC {value.mnc} has {len(value.mnc)} digits: in {pack.name} it has {digits}")
        return value

    @field_validator("msin_range")
    @classmethod
    def _fills_the_imsi(cls, value: MsinRange, info: ValidationInfo) -> MsinRange:
        plmn = info.data.get("plmn")
        if plmn is not None and len(plmn.mcc + plmn.mnc + value.first) != 15:
            raise ValueError(f"must have {15 - len(plmn.mcc + plmn.mnc)} digits, so that the IMSI has 15")
        return value

    @field_validator("number_range")
    @classmethod
    def _of_the_numbering_plan(cls, value: NumberRange, info: ValidationInfo) -> NumberRange:
        code = info.data.get("country")
        if code is not None:
            pack = country(code)
            for end in (value.first, value.last):
                if not pack.is_own_number(end):
                    raise ValueError(f"{end} is not a mobile number of {pack.name} (+{pack.calling_code})")
        return value

    @field_validator("data_networks")
    @classmethod
    def _apart(cls, value: list[DataNetwork]) -> list[DataNetwork]:
        for index, one in enumerate(value):
            for other in value[:index]:
                if one.name == other.name:
                    raise ValueError(f"{one.name!r} is there twice")
                if one.network.overlaps(other.network):
                    raise ValueError(
                        f"the pools of {other.name!r} ({other.pool}) and {one.name!r} ({one.pool}) overlap"
                    )
                if one.network6 and other.network6 and one.network6.overlaps(other.network6):
                    raise ValueError(
                        f"the pools of {other.name!r} ({other.pool6}) and {one.name!r} ({one.pool6}) overlap"
                    )
        return value

    @field_validator("plans", "top_ups", "destination_groups", "reminders", "roaming_zones", "time_bands")
    @classmethod
    def _unique(cls, value: list[Any]) -> list[Any]:
        seen: set[str] = set()
        for item in value:
            if item.id in seen:
                raise ValueError(f"{item.id!r} is there twice")
            seen.add(item.id)
        return value

    @field_validator("time_bands")
    @classmethod
    def _one_at_a_time(cls, value: list[TimeBand]) -> list[TimeBand]:
        if (both := overlap(value)) is not None:
            raise ValueError(f"{both[0]!r} and {both[1]!r} overlap: a moment belongs to one of them")
        return value

    # The file's own data, as written ("2 GB"), for those who must hand the file on.
    _source: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def source(self) -> dict[str, Any]:
        """The data of the file that this brand was read from."""
        return self._source

    @property
    def lines(self) -> int:
        """How many lines the brand can sell: it runs out of numbers or of subscriber identities."""
        return min(len(self.number_range), int(self.msin_range.last) - int(self.msin_range.first) + 1)

    # Facts that follow from the country where the brand says nothing.
    @property
    def pack(self) -> Country:
        return country(self.country)

    @property
    def effective_currency(self) -> str:
        """ISO 4217 code of all prices."""
        return self.currency or self.pack.currency

    @property
    def effective_timezone(self) -> str:
        """IANA zone in which periods begin and end."""
        return self.timezone or self.pack.default_timezone

    @property
    def role_suffix(self) -> str:
        """The brand's name as PostgreSQL identifiers carry it."""
        return self.name.replace("-", "_")

    @property
    def verification_plan(self) -> Plan:
        """The plan that `mvno verify` orders: 25 MB on the first DNN, free of charge, never shown to customers."""
        texts = {locale: "Verification" for locale in self.locales}
        return Plan(
            id="verification",
            name=texts,
            description=texts,
            price=Decimal(0),
            period="P1D",
            payment="prepaid",
            dnn=self.data_networks[0].name,
            allowances=Allowances.model_construct(data=_verification_allowance()),
            top_ups=[top_up.id for top_up in self.top_ups],
            sellable=False,
        )

    def plan(self, plan_id: str) -> Plan:
        """A plan by its id, the verification plan included. Raises KeyError."""
        for plan in (*self.plans, self.verification_plan):
            if plan.id == plan_id:
                return plan
        raise KeyError(plan_id)

    def top_up(self, top_up_id: str) -> TopUp:
        """A top-up by its id. Raises KeyError."""
        for top_up in self.top_ups:
            if top_up.id == top_up_id:
                return top_up
        raise KeyError(top_up_id)

    def data_network(self, name: str) -> DataNetwork:
        """A DNN by its name. Raises KeyError."""
        for network in self.data_networks:
            if network.name == name:
                return network
        raise KeyError(name)
