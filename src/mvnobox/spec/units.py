"""Quantities as people write them ("2 GB", "50 Mbps", "120 min"), kept as integers of the smallest unit."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

_NUMBER = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$")

OCTETS = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
BITS_PER_SECOND = {"bps": 1, "kbps": 10**3, "Kbps": 10**3, "Mbps": 10**6, "Gbps": 10**9}
SECONDS = {"s": 1, "min": 60, "h": 3600}
# The largest amount that the ledger's signed 64-bit integers and sums of many of them hold with room to spare.
LARGEST = 2**53


def _parse(value: Any, table: dict[str, int], what: str, example: str) -> Any:
    if value == "unlimited":
        return value
    allowed = f"write a number and one of {', '.join(table)}, for instance {example!r}"
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"is not {what}: {allowed}")
    if isinstance(value, int):
        raise ValueError(f"{value} has no unit: {allowed}")
    match = _NUMBER.match(value)
    if match is None or match[2] not in table:
        raise ValueError(f"{value!r} is not {what}: {allowed}")
    exact = Decimal(match[1]) * table[match[2]]
    if exact != int(exact):
        raise ValueError(f"{value!r} is not a whole number of the smallest unit")
    if not 0 < exact <= LARGEST:
        raise ValueError(f"{value!r} is out of range: more than 0 and at most {LARGEST} of the smallest unit")
    return int(exact)


def _quantity(table: dict[str, int], what: str, example: str) -> tuple[BeforeValidator, WithJsonSchema]:
    units = "|".join(table)
    return (
        BeforeValidator(lambda value: _parse(value, table, what, example)),
        WithJsonSchema({"type": "string", "pattern": rf"^\d+(\.\d+)? ?({units})$", "examples": [example]}),
    )


_octets = _quantity(OCTETS, "an amount of data", "2 GB")
_rate = _quantity(BITS_PER_SECOND, "a bit rate", "50 Mbps")
_seconds = _quantity(SECONDS, "a duration of calls", "120 min")

Octets = Annotated[int, *_octets]
"""An amount of data in octets; decimal units as in tariffs (1 GB = 10^9 octets), binary ones as GiB."""

BitRate = Annotated[int, *_rate]
"""A bit rate in bit/s."""

CallSeconds = Annotated[int, *_seconds]
"""A duration of calls in seconds."""

_UNLIMITED = {"const": "unlimited"}
OctetsOrUnlimited = Annotated[
    int | Literal["unlimited"],
    _octets[0],
    WithJsonSchema({"anyOf": [_UNLIMITED, {"type": "string", "pattern": r"^\d+(\.\d+)? ?[kKMGT]?i?B$"}]}),
]
SecondsOrUnlimited = Annotated[
    int | Literal["unlimited"],
    _seconds[0],
    WithJsonSchema({"anyOf": [_UNLIMITED, {"type": "string", "pattern": r"^\d+(\.\d+)? ?(s|min|h)$"}]}),
]


def parse_octets(value: str | int) -> int:
    """An amount of data in octets. Raises ValueError."""
    return int(_parse(value, OCTETS, "an amount of data", "1 MB"))


def parse_seconds(value: str | int) -> int:
    """A duration in seconds. Raises ValueError."""
    return int(_parse(value, SECONDS, "a duration of calls", "60 s"))
