"""What a brand sells by the unit, as the OCS keeps it: zones, hours, destinations, and each tariff's rules in order."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, model_validator

from mvnobox.charging.schemas import LARGEST_AMOUNT, PLAIN, Closed, Unit

Service = Literal["data", "voice", "sms"]
SERVICES: dict[Unit, Service] = {"octets": "data", "seconds": "voice", "messages": "sms"}
UNITS: dict[Service, Unit] = {service: unit for unit, service in SERVICES.items()}
# A part of a scene: no sign that separates parts.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
# Millionths of a minor currency unit: exact for every price that a BrandSpec can hold.
MICRO = 1_000_000
Micro = Annotated[int, Field(ge=0, le=10**15, strict=True)]
Amount = Annotated[int, Field(ge=1, le=LARGEST_AMOUNT, strict=True)]
# What a scene says where no zone, destination or hours of the brand fit.
HOME, ELSEWHERE, OTHER, EMERGENCY = "home", "elsewhere", "other", "emergency"


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("is not an IANA time zone")
    return value


class Zone(Closed):
    """Visited networks: MCC (3 digits) or MCC and MNC (5 or 6), TS 23.003 clause 2.2. The longest that fits counts."""

    id: Name
    networks: Annotated[list[Annotated[str, Field(pattern=r"^\d{3}(\d{2,3})?$")]], Field(min_length=1, max_length=2000)]


class Band(Closed):
    """Hours of some days, local time; `until` not after `start` means the next morning. 1 is Monday (ISO 8601)."""

    id: Name
    days: Annotated[list[Annotated[int, Field(ge=1, le=7)]], Field(min_length=1, max_length=7)]
    start: Annotated[int, Field(ge=0, lt=1440, description="minutes after local midnight")]
    until: Annotated[int, Field(ge=1, le=1440, description="minutes after local midnight")]


class Destination(Closed):
    """Called numbers, whole or by what they begin with, E.164 with `+`. The longest that fits counts."""

    id: Name
    numbers: Annotated[
        list[Annotated[str, Field(pattern=r"^\+\d{2,15}$")]], Field(default_factory=list, max_length=20_000)
    ]
    prefixes: Annotated[
        list[Annotated[str, Field(pattern=r"^\+\d{1,15}$")]], Field(default_factory=list, max_length=2000)
    ]


class Rule(Closed):
    """The first rule of a tariff that fits a use decides. None in `zones`, `destinations` or `bands`: any.

    `free`: nobody pays. `included`: allowances pay first. `price`: then the balance does, `price` millionths of a minor
    unit for each `per` units, at least `minimum` units, further ones in whole `steps`, and `setup` once a session.
    Neither included nor with a price: not sold.
    """

    service: Service
    zones: list[Name] | None = None
    destinations: list[Name] | None = None
    bands: list[Name] | None = None
    free: bool = False
    included: bool = True
    price: Micro | None = None
    per: Amount = 1
    step: Amount = 1
    minimum: Annotated[int, Field(ge=0, le=LARGEST_AMOUNT, strict=True)] = 0
    setup: Micro = 0
    name: Annotated[str, Field(max_length=200, pattern=PLAIN, description="where the brand wrote it")] = ""

    @property
    def plain(self) -> bool:
        """Whether it pays out of allowances as if there were no rule, as long as they last."""
        return self.included and not self.free

    @property
    def not_sold(self) -> bool:
        """Whether it is refused however much there is."""
        return not (self.included or self.free) and self.price is None

    def fits(self, service: Service, zone: str, destination: str, band: str) -> bool:
        return (
            self.service == service
            and (self.zones is None or zone in self.zones)
            and (self.destinations is None or destination in self.destinations)
            and (self.bands is None or band in self.bands)
        )


class Rating(Closed):
    """A brand's, whole: it replaces the one before."""

    country: Annotated[str, Field(pattern="^[A-Z]{2}$", description="in which numbers without + are dialled")]
    timezone: Annotated[str, AfterValidator(_zone)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    minor_digits: Annotated[int, Field(ge=0, le=4)] = 2
    rounding: Literal["half-up", "half-even"] = "half-up"
    home: Annotated[list[Annotated[str, Field(pattern=r"^\d{3}(\d{2,3})?$")]], Field(min_length=1, max_length=50)]
    emergency: Annotated[
        list[Annotated[str, Field(pattern=r"^\+?\d{2,15}$")]], Field(default_factory=list, max_length=200)
    ]
    zones: Annotated[list[Zone], Field(default_factory=list, max_length=50)]
    bands: Annotated[list[Band], Field(default_factory=list, max_length=20)]
    destinations: Annotated[list[Destination], Field(default_factory=list, max_length=50)]
    low_balance: Annotated[int, Field(gt=0, le=LARGEST_AMOUNT, strict=True)] | None = None
    tariffs: Annotated[
        dict[Name, Annotated[list[Rule], Field(max_length=200)]],
        # Pydantic says which names there are, and not that there are no others.
        Field(default_factory=dict, max_length=60, json_schema_extra={"additionalProperties": False}),
    ]

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Rating:
        known = {
            "zones": {HOME, ELSEWHERE, *(zone.id for zone in self.zones)},
            "destinations": {OTHER, *(one.id for one in self.destinations)},
            "bands": {OTHER, *(band.id for band in self.bands)},
        }
        for tariff, rules in self.tariffs.items():
            for rule in rules:
                for kind, names in known.items():
                    for name in getattr(rule, kind) or ():
                        if name not in names:
                            raise ValueError(f"tariff {tariff} names {name!r}, which is none of the {kind}")
        return self

    def rule(self, tariff: str | None, service: Service, zone: str, destination: str, band: str) -> Rule:
        """The rule that decides; where none fits, allowances pay and nothing is sold beyond them."""
        if destination == EMERGENCY:
            return Rule(service=service, free=True, name="emergency and helpline numbers")
        for rule in self.tariffs.get(tariff or "", ()):
            if rule.fits(service, zone, destination, band):
                return rule
        return Rule(service=service, name="none that fits")
