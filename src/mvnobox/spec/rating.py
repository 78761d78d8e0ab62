"""A brand's rating as the OCS takes it: prices in millionths of a minor unit, times in minutes, numbers in E.164."""

from __future__ import annotations

from typing import Any

from mvnobox.spec.brand import BrandSpec, Plan
from mvnobox.spec.rates import WEEKDAYS, as_document


def minor_digits(brand: BrandSpec) -> int:
    """Decimal places of the brand's currency."""
    return brand.pack.currency_minor_digits if brand.effective_currency == brand.pack.currency else 2


def minor_units(brand: BrandSpec, amount: Any) -> int:
    """An amount of money in whole minor units."""
    return int(amount * 10 ** minor_digits(brand))


def rating_document(brand: BrandSpec) -> dict[str, Any]:
    """Body of the OCS's `PUT /ocs/v1/rating`: the whole brand, every plan a tariff of the plan's id."""
    pack = brand.pack
    return {
        "country": brand.country,
        "timezone": brand.effective_timezone,
        "currency": brand.effective_currency,
        "minorDigits": minor_digits(brand),
        "rounding": pack.tax.rounding,
        "home": sorted({brand.plmn.mcc, *pack.mobile_country_codes}),
        "emergency": [*pack.emergency_numbers, *pack.always_free_numbers],
        "zones": [{"id": zone.id, "networks": zone.networks} for zone in brand.roaming_zones],
        "bands": [
            {
                "id": band.id,
                "days": [WEEKDAYS.index(day) + 1 for day in band.days],
                "start": band.minutes[0],
                "until": band.minutes[1],
            }
            for band in brand.time_bands
        ],
        "destinations": [
            {"id": group.id, "numbers": group.numbers, "prefixes": group.prefixes} for group in brand.destination_groups
        ],
        "lowBalance": None if brand.low_balance is None else minor_units(brand, brand.low_balance),
        "tariffs": {plan.id: _rules(brand, plan) for plan in (*brand.plans, brand.verification_plan)},
    }


def _rules(brand: BrandSpec, plan: Plan) -> list[dict[str, Any]]:
    micro = 10 ** (minor_digits(brand) + 6)
    rules = [as_document(rate, micro, f"{plan.id}.rates[{number}]") for number, rate in enumerate(plan.rates)]
    if plan.free_destinations:
        name = f"{plan.id}.freeDestinations"
        free = [
            {"service": service, "destinations": plan.free_destinations, "free": True, "name": name}
            for service in ("voice", "sms")
        ]
        return [*free, *rules]
    return rules
