"""What a plan sells by the unit: prices, where and when they hold, and for which numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from mvnobox.spec.parts import ClockTime, LocalText, Model, Slug, quoted
from mvnobox.spec.units import parse_octets, parse_seconds

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Zones and destinations that are there without being named by the brand.
HOME, ELSEWHERE, OTHER = "home", "elsewhere", "other"

UnitPrice = Annotated[
    Decimal,
    BeforeValidator(quoted),
    Field(ge=0, le=1000, decimal_places=6),
    PlainSerializer(str, return_type=str, when_used="json"),
]
"""A price of the brand's currency for so many units; parts of a cent are fine, a session's sum is rounded once."""
Quantity = Annotated[str | int, Field(examples=["1 MB", "60 s", 1])]
"""Of the rate's service: data in octets ("1 MB"), calls in time ("60 s", "1 min"), messages as a number."""
_PER: dict[str, tuple[str | int, str | int]] = {"data": ("1 MB", "1 kB"), "voice": ("1 min", "1 s"), "sms": (1, 1)}


class RoamingZone(Model):
    """Networks abroad that plans treat alike, each by its MCC ("262") or MCC and MNC ("26201")."""

    id: Slug
    name: LocalText
    networks: list[Annotated[str, Field(pattern=r"^\d{3}(\d{2,3})?$")]] = Field(min_length=1, max_length=1000)


class TimeBand(Model):
    """Hours that plans treat alike, in the brand's time zone; an end that is not after the start is the next day's."""

    id: Slug
    days: list[Weekday] = Field(default_factory=lambda: list(WEEKDAYS), min_length=1, max_length=7)
    start: ClockTime
    end: ClockTime

    @property
    def minutes(self) -> tuple[int, int]:
        """(start, end) in minutes after midnight; an end at midnight is 1440."""
        start, end = (int(value[:2]) * 60 + int(value[3:]) for value in (self.start, self.end))
        return start, end or 1440

    def of_the_week(self) -> set[int]:
        """The minutes of the week, from Monday's midnight, that belong to it."""
        start, end = self.minutes
        length = end - start if end > start else end - start + 1440
        return {(WEEKDAYS.index(day) * 1440 + start + minute) % 10_080 for day in self.days for minute in range(length)}


class Rate(Model):
    """The first rate of a plan that fits a use decides who pays; where none fits, allowances do and nothing else is sold.

    `included`: allowances pay first. `price`: beyond them, or in their place, the balance pays so much `per` so many
    units; at least `minimum` units are billed, further ones in whole `step`s, and `setup` once a call or session.
    `free`: nobody pays. Neither included nor free nor with a price: not sold.
    """

    service: Literal["data", "voice", "sms"]
    to: list[Slug] | None = Field(
        default=None, min_length=1, description="destinationGroups, or other; none: any number"
    )
    zones: list[Slug] | None = Field(
        default=None, min_length=1, description="roamingZones, or home, elsewhere; none: everywhere"
    )
    at: list[Slug] | None = Field(default=None, min_length=1, description="timeBands, or other; none: at any time")
    included: bool = True
    free: bool = False
    price: UnitPrice | None = None
    per: Quantity | None = None
    step: Quantity | None = None
    minimum: Quantity | None = None
    setup: UnitPrice = Decimal(0)

    @model_validator(mode="after")
    def _makes_sense(self) -> Rate:
        if self.free and self.price is not None:
            raise ValueError("is free and has a price: leave one of them out")
        if self.price is None:
            for name in ("per", "step", "minimum", "setup"):
                if name in self.model_fields_set:
                    raise ValueError(f"has {name} but no price: give a price, or leave {name} out")
        for value in (self.per, self.step, self.minimum):
            if value is not None:
                self._units(value)
        if self.service == "data" and self.to is not None:
            raise ValueError("data has no destination: leave `to` out")
        return self

    def _units(self, value: str | int) -> int:
        if self.service == "data":
            return parse_octets(value)
        if self.service == "voice":
            return parse_seconds(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
            raise ValueError(f"{value!r} is not a number of messages: write a whole number, for instance 1")
        return value

    def units(self) -> tuple[int, int, int]:
        """(per, step, minimum) in octets, seconds or messages."""
        per, step = _PER[self.service]
        return (
            self._units(per if self.per is None else self.per),
            self._units(step if self.step is None else self.step),
            0 if self.minimum is None else self._units(self.minimum),
        )


def overlap(bands: list[TimeBand]) -> tuple[str, str] | None:
    """The ids of two bands that share a minute of the week."""
    seen: dict[int, str] = {}
    for band in bands:
        for minute in band.of_the_week():
            if minute in seen:
                return seen[minute], band.id
            seen[minute] = band.id
    return None


def as_document(rate: Rate, micro: int, name: str) -> dict[str, Any]:
    """A rate as the OCS takes it; `micro`: millionths of a minor unit in one unit of the currency."""
    made: dict[str, Any] = {
        "service": rate.service,
        "zones": rate.zones,
        "destinations": rate.to,
        "bands": rate.at,
        "free": rate.free,
        "included": rate.included,
        "name": name,
    }
    if rate.price is not None:
        per, step, minimum = rate.units()
        made |= {"price": int(rate.price * micro), "per": per, "step": step, "minimum": minimum}
        made["setup"] = int(rate.setup * micro)
    return made
