"""Which bucket pays what of a use, and why: the ledger's decisions one after the other, in words."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from mvnobox.charging.rating.document import ELSEWHERE, EMERGENCY, HOME, OTHER, UNITS, Rating, Rule, Service
from mvnobox.charging.rating.price import Terms
from mvnobox.charging.rating.scene import Circumstances, Scenery


@dataclass(frozen=True)
class Balance:
    """A bucket as far as rating looks at it: `unit` as in the ledger, `left` in that unit."""

    source: str
    unit: str
    left: int
    priority: int = 10
    valid_until: dt.datetime | None = None


@dataclass(frozen=True)
class Payment:
    """What one bucket pays (`source` None: nobody does): units of the service, and money in minor units."""

    source: str | None
    units: int
    money: int
    why: str


@dataclass
class Explanation:
    """The whole of a use."""

    service: Service
    amount: int
    zone: str
    destination: str
    band: str
    rule: Rule
    reasons: list[str] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """Minor currency units."""
        return sum(payment.money for payment in self.payments)

    @property
    def unpaid(self) -> int:
        """Units that nothing pays for: the network would have ended the service before them."""
        return self.amount - sum(payment.units for payment in self.payments)


def explain(
    rating: Rating, tariff: str, service: Service, amount: int, seen: Circumstances, at: dt.datetime,
    balances: list[Balance],
) -> Explanation:  # fmt: skip
    """A use of `amount` units from its first one. `at` is aware. Raises KeyError for a tariff that there is not."""
    if tariff not in rating.tariffs:
        raise KeyError(tariff)
    scenery = Scenery(rating)
    scene = scenery.scene(seen, at)
    zone, destination = scene.zone or HOME, scene.destination or OTHER
    rule = rating.rule(tariff, service, zone, destination, scene.band)
    made = Explanation(service, amount, zone, destination, scene.band, rule)
    made.reasons = _reasons(rating, seen, at, scenery, made)
    usable = [
        one
        for one in sorted(balances, key=lambda one: (one.priority, one.valid_until or dt.datetime.max.replace(tzinfo=dt.UTC)))
        if one.left > 0 and (one.valid_until is None or one.valid_until > at)
    ]  # fmt: skip
    if rule.free:
        made.payments.append(Payment(None, amount, 0, "free of charge"))
        return made
    rest = amount
    if rule.included:
        for one in usable:
            if one.unit == UNITS[service] and rest:
                taken = min(rest, one.left)
                made.payments.append(Payment(one.source, taken, 0, f"priority {one.priority}"))
                rest -= taken
    if rest and rule.price is not None:
        _pay(made, Terms.of(rule, rating.rounding), rest, [one for one in usable if one.unit == "minor"])
    return made


def _pay(made: Explanation, terms: Terms, rest: int, money: list[Balance]) -> None:
    units = min(rest, terms.units(sum(one.left for one in money)))
    cost = terms.cost(units)
    billed = terms.billed(units)
    why = f"{billed} units billed (at least {terms.minimum}, steps of {terms.step}), rounded {terms.rounding}"
    if units and not cost:
        made.payments.append(Payment(None, units, 0, why))
    for one in money:
        if units and cost:
            part = min(cost, one.left)
            cost -= part
            # All units stand at the last payment of them: a bucket pays money, not units.
            made.payments.append(Payment(one.source, 0 if cost else units, part, why))


def _reasons(rating: Rating, seen: Circumstances, at: dt.datetime, scenery: Scenery, made: Explanation) -> list[str]:
    said = []
    if seen.visited is None:
        said.append("zone home: no visited network is said")
    elif made.zone == ELSEWHERE:
        said.append(f"zone {ELSEWHERE}: no zone has network {seen.visited}")
    else:
        said.append(f"zone {made.zone}: it has network {seen.visited}")
    if seen.called is not None:
        if made.destination == EMERGENCY:
            said.append(f"destination {seen.called}: free for everybody in {rating.country}, whatever the balance")
        elif made.destination == OTHER:
            said.append(f"destination {OTHER}: no group has {seen.called}")
        else:
            said.append(f"destination {made.destination}: it has {seen.called}")
    if rating.bands:
        local = at.astimezone(scenery._timezone)
        said.append(f"hours {made.band}: {local:%A %H:%M} in {rating.timezone}")
    said.append(f"rule {made.rule.name or 'of the tariff'}: {_says(made.rule)}")
    return said


def _says(rule: Rule) -> str:
    if rule.free:
        return "nobody pays"
    if rule.price is None:
        return "allowances pay" if rule.included else "not sold"
    return "allowances pay first, then the balance" if rule.included else "the balance pays"
