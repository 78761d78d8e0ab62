"""ISO 4217: numbers and minor units of the currencies that accounts are kept in."""

from __future__ import annotations

# Letters to (number, decimal places).
CURRENCIES = {
    "AUD": (36, 2), "BGN": (975, 2), "BRL": (986, 2), "CAD": (124, 2), "CHF": (756, 2), "CNY": (156, 2),
    "CZK": (203, 2), "DKK": (208, 2), "EUR": (978, 2), "GBP": (826, 2), "HUF": (348, 2), "INR": (356, 2),
    "ISK": (352, 0), "JPY": (392, 0), "KRW": (410, 0), "KWD": (414, 3), "MXN": (484, 2), "NOK": (578, 2),
    "NZD": (554, 2), "PLN": (985, 2), "RON": (946, 2), "SEK": (752, 2), "SGD": (702, 2), "TND": (788, 3),
    "TRY": (949, 2), "UAH": (980, 2), "USD": (840, 2), "ZAR": (710, 2),
}  # fmt: skip


def minor_units(digits: int, exponent: int, number: int | None, currency: str) -> int | None:
    """An amount in a currency's minor unit (cents); None if it is another currency or not a whole number of them."""
    code, places = CURRENCIES.get(currency, (None, 2))
    if number is not None and number != code:
        return None
    scale = exponent + places
    factor: int = 10 ** abs(scale)
    if scale >= 0:
        return digits * factor
    return None if digits % factor else digits // factor
