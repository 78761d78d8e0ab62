"""TMF620: the brand's offers, straight from its BrandSpec."""

from __future__ import annotations

import datetime as dt
from typing import Any

from mvnobox.bss.context import Context, TmfError
from mvnobox.spec import Allowances, BrandSpec, Plan, TopUp, minor_units

BASE = "/tmf-api/productCatalogManagement/v4/productOffering"
ATTRIBUTES = frozenset({"id", "name", "lifecycleStatus", "isSellable", "category.name"})
# What stands for "unlimited" in the ledger: more than a line can carry in a period (10 PB, 10,000 years of calls).
UNLIMITED = {"octets": 10**16, "seconds": 3 * 10**11, "messages": 10**9}


# After everything at full speed, top-ups too.
SLOWED_PRIORITY = 900


def plan_buckets(brand: BrandSpec, plan: Plan, until: dt.datetime) -> list[dict[str, Any]]:
    """The ledger's buckets for a period of a plan; with fair use the data at full speed, and any amount slowed."""
    source = f"plan:{plan.id}"
    if plan.fair_use is None:
        return buckets(brand, plan.allowances, source, until, 10)
    made = buckets(brand, plan.allowances.model_copy(update={"data": plan.fair_use.after}), source, until, 10)
    [slowed] = buckets(brand, Allowances.model_construct(data="unlimited"), f"{source}:slowed", until, SLOWED_PRIORITY)
    return [*made, {**slowed, "throttle": f"dl={plan.fair_use.throttle};ul={plan.fair_use.throttle}"}]


def credit_line(brand: BrandSpec, plan: Plan) -> list[dict[str, Any]]:
    """The ledger's bucket for what a line may owe; it has no end, and the ledger uses it after all else."""
    if plan.credit is None:
        return []
    amount = minor_units(brand, plan.credit)
    return [{"unit": "minor", "amount": amount, "source": f"credit:{plan.id}", "credit": True}]


def buckets(
    brand: BrandSpec, allowances: Allowances, source: str, until: dt.datetime, priority: int
) -> list[dict[str, Any]]:
    """The ledger's buckets for allowances."""
    made = []
    for unit, amount in (
        ("octets", allowances.data),
        ("seconds", allowances.voice),
        ("messages", allowances.sms),
        ("minor", None if allowances.balance is None else minor_units(brand, allowances.balance)),
    ):
        if amount is None:
            continue
        made.append(
            {
                "unit": unit,
                "amount": min(UNLIMITED[unit], 2**53) if amount == "unlimited" else amount,
                "validUntil": until.isoformat(),
                "priority": priority,
                "source": source,
            }
        )
    return made


def _price(brand: BrandSpec, item: Plan | TopUp, kind: str, period: str | None) -> dict[str, Any]:
    price = {"unit": brand.effective_currency, "value": float(item.price)}
    made = {
        "priceType": kind,
        "price": {
            "taxIncludedAmount" if brand.pack.tax.prices_include_tax else "dutyFreeAmount": price,
            "taxRate": brand.pack.tax.standard_rate_percent,
        },
    }
    return made | ({"recurringChargePeriod": period} if period else {})


def _name(texts: dict[str, str], locale: str) -> str:
    return texts.get(locale) or next(iter(texts.values()))


def plan_document(brand: BrandSpec, plan: Plan, locale: str) -> dict[str, Any]:
    """A plan as a ProductOffering."""
    return {
        "id": plan.id,
        "href": f"{BASE}/{plan.id}",
        "@type": "ProductOffering",
        "name": _name(plan.name, locale),
        "description": _name(plan.description, locale),
        "lifecycleStatus": "Active" if plan.sellable else "In test",
        "isSellable": plan.sellable,
        "category": [{"name": "plan"}],
        "productOfferingPrice": [_price(brand, plan, "recurring", plan.period)],
        "prodSpecCharValueUse": [
            {"name": name, "productSpecCharacteristicValue": [{"value": value, "unitOfMeasure": unit}]}
            for name, value, unit in (
                ("data", plan.allowances.data, "octets"),
                ("voice", plan.allowances.voice, "seconds"),
                ("sms", plan.allowances.sms, "messages"),
            )
            if value is not None
        ],
        "bundledProductOffering": [],
        "productOfferingRelationship": [{"id": t, "relationshipType": "topUp"} for t in plan.top_ups],
    }


def top_up_document(brand: BrandSpec, item: TopUp, locale: str) -> dict[str, Any]:
    """A top-up as a ProductOffering."""
    return {
        "id": item.id,
        "href": f"{BASE}/{item.id}",
        "@type": "ProductOffering",
        "name": _name(item.name, locale),
        "lifecycleStatus": "Active",
        "isSellable": True,
        "category": [{"name": "topUp"}],
        "productOfferingPrice": [_price(brand, item, "oneTime", None)],
    }


def offerings(context: Context, locale: str) -> list[dict[str, Any]]:
    """Everything that customers can buy."""
    brand = context.brand
    return [plan_document(brand, plan, locale) for plan in brand.plans if plan.sellable] + [
        top_up_document(brand, item, locale) for item in brand.top_ups
    ]


def offering(context: Context, identity: str, locale: str) -> dict[str, Any]:
    """One offer. Raises TmfError."""
    for document in offerings(context, locale):
        if document["id"] == identity:
            return document
    raise TmfError(404, f"there is no offer {identity!r}")


def matching(found: list[dict[str, Any]], filters: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The offers whose attributes have one of the wanted values each."""

    def value(document: dict[str, Any], name: str) -> str:
        if name == "category.name":
            return str(document["category"][0]["name"])
        one = document[name]
        return str(one).lower() if isinstance(one, bool) else str(one)

    return [d for d in found if all(value(d, name) in wanted for name, wanted in filters.items())]
