"""`mvno rate explain`: what a use costs on a plan, and why, without an installation."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from mvnobox.charging.rating.document import UNITS, Rating, Service
from mvnobox.charging.rating.explain import Balance, Explanation, explain
from mvnobox.charging.rating.scene import Circumstances
from mvnobox.cli.console import out
from mvnobox.errors import BadInput
from mvnobox.spec import BrandSpec, Plan, minor_units, rating_document
from mvnobox.spec.units import parse_octets, parse_seconds

_UNLIMITED = 2**53


@dataclass(frozen=True)
class Use:
    """What is asked about, as it was typed."""

    data: str | None = None
    voice: str | None = None
    sms: int | None = None
    to: str | None = None
    visited: str | None = None
    at: str | None = None
    left: str | None = None
    balance: str | None = None


def explain_use(brand: BrandSpec, plan_id: str, use: Use) -> dict[str, Any]:
    """The answer as a document. Raises BadInput."""
    try:
        plan = brand.plan(plan_id)
    except KeyError:
        known = ", ".join(one.id for one in brand.plans)
        raise BadInput(f"{brand.name} has no plan {plan_id!r}", f"one of {known}") from None
    service, amount = _amount(use)
    if use.visited is not None and not (use.visited.isdigit() and len(use.visited) in (5, 6)):
        raise BadInput(f"{use.visited!r} is not a network", "give MCC and MNC, for instance 26201")
    if use.to is not None and service == "data":
        raise BadInput("data has no destination", "leave --to out")
    at = _moment(use.at, brand)
    rating = Rating.model_validate(rating_document(brand))
    found = explain(
        rating, plan_id, service, amount, Circumstances(use.visited, use.to), at, _balances(brand, plan, service, use)
    )
    return _document(brand, plan, found, at)  # fmt: skip


def _amount(use: Use) -> tuple[Service, int]:
    given = {name: value for name in UNITS if (value := getattr(use, name)) is not None}
    if len(given) != 1:
        raise BadInput("one use at a time", "give one of --data '20 MB', --voice '90 s', --sms 1")
    ((service, value),) = given.items()
    return service, _quantity(service, value)


def _quantity(service: Service, value: str | int) -> int:
    try:
        if service == "sms":
            number = int(value)
            if not 1 <= number <= 1_000_000:
                raise ValueError(f"{value} is not a number of messages: 1 to 1,000,000")
            return number
        return parse_octets(value) if service == "data" else parse_seconds(value)
    except ValueError as error:
        raise BadInput(str(error), "amounts carry their unit: '20 MB', '90 s', '3 min'") from None


def _moment(text: str | None, brand: BrandSpec) -> dt.datetime:
    if text is None:
        return dt.datetime.now(dt.UTC)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a time", "write it as 2026-12-31T20:15, with or without an offset") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(brand.effective_timezone))


def _balances(brand: BrandSpec, plan: Plan, service: Service, use: Use) -> list[Balance]:
    """A fresh period of the plan, or what is said to be left of it."""
    name = {"data": "data", "voice": "voice", "sms": "sms"}[service]
    allowance = getattr(plan.allowances, name)
    made = []
    if use.left is not None:
        allowance = 0 if use.left.strip() in ("0", "none") else _quantity(service, use.left)
    elif service == "data" and plan.fair_use is not None:
        made.append(Balance(f"plan:{plan.id}:slowed", "octets", _UNLIMITED, 900))
        allowance = plan.fair_use.after
    if allowance:
        amount = _UNLIMITED if allowance == "unlimited" else allowance
        made.append(Balance(f"plan:{plan.id}", UNITS[service], amount))
    money = plan.allowances.balance or Decimal(0)
    if use.balance is not None:
        try:
            money = Decimal(use.balance)
        except InvalidOperation:
            raise BadInput(f"{use.balance!r} is not an amount of money", "for instance --balance 5.00") from None
        if not money.is_finite() or not 0 <= money <= 100_000:
            raise BadInput(f"{use.balance} is not a balance", "an amount from 0 to 100000")
    if money:
        made.append(Balance("balance", "minor", minor_units(brand, money), 20))
    return made


def _money(rating_digits: int, amount: int) -> str:
    return str(Decimal(amount).scaleb(-rating_digits).quantize(Decimal(1).scaleb(-rating_digits)))


def _document(brand: BrandSpec, plan: Plan, found: Explanation, at: dt.datetime) -> dict[str, Any]:
    digits = len(str(minor_units(brand, Decimal(1)))) - 1
    tax = brand.pack.tax
    cost = Decimal(_money(digits, found.cost))
    rate = Decimal(str(tax.standard_rate_percent)) / 100
    rounding = ROUND_HALF_UP if tax.rounding == "half-up" else ROUND_HALF_EVEN
    place = Decimal(1).scaleb(-digits)
    if tax.prices_include_tax:
        part = (cost - cost / (1 + rate)).quantize(place, rounding)
        gross = cost
    else:
        part = (cost * rate).quantize(place, rounding)
        gross = cost + part
    return {
        "brand": brand.name,
        "plan": plan.id,
        "service": found.service,
        "amount": found.amount,
        "at": at.isoformat(),
        "zone": found.zone,
        "destination": found.destination,
        "hours": found.band,
        "rule": found.rule.name or "none that fits",
        "why": found.reasons,
        "payments": [
            {"bucket": one.source, "units": one.units, "money": _money(digits, one.money), "why": one.why}
            for one in found.payments
        ],
        "unpaid": found.unpaid,
        "currency": brand.effective_currency,
        "cost": str(cost),
        "tax": {
            "name": tax.name,
            "percent": tax.standard_rate_percent,
            "included": tax.prices_include_tax,
            "amount": str(part),
            "withTax": str(gross),
        },
    }


_WORDS = {"data": "octets", "voice": "seconds", "sms": "messages"}


def print_explanation(found: dict[str, Any]) -> None:
    """In words."""
    unit = _WORDS[found["service"]]
    out.print(
        f"{found['amount']} {unit} of {found['service']} on {found['brand']}'s plan {found['plan']}", markup=False
    )
    for reason in found["why"]:
        out.print(f"  {reason}", markup=False, soft_wrap=True)
    for one in found["payments"]:
        paid = f" and {one['money']} {found['currency']}" if Decimal(one["money"]) else ""
        who = one["bucket"] or "nobody"
        out.print(f"  {who} pays {one['units']} {unit}{paid}: {one['why']}", markup=False, soft_wrap=True)
    if found["unpaid"]:
        out.print(f"  nothing pays the other {found['unpaid']} {unit}: the network ends the service", markup=False)
    tax = found["tax"]
    how = "of it" if tax["included"] else "on top, due when the balance is bought,"
    more = f", {tax['amount']} {how} {tax['name']} ({tax['percent']:g} %)" if Decimal(found["cost"]) else ""
    out.print(f"cost: {found['cost']} {found['currency']}{more}", markup=False)
