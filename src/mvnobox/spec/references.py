"""What one part of a BrandSpec says of another.

Works on the file's data, however broken it is, so that every error comes at once.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from typing import Any
from zoneinfo import available_timezones

from mvnobox.spec.networks import SMALLEST_POOL6, UE_PREFIX, prefixes
from mvnobox.spec.rates import ELSEWHERE, HOME, OTHER

Location = tuple[str | int, ...]
Finding = tuple[Location, object, str]
_LOCALE = re.compile(r"^[a-z]{2}-[A-Z]{2}$")


def _list(data: dict[str, Any], key: str) -> list[tuple[int, dict[str, Any]]]:
    value = data.get(key)
    return [(n, item) for n, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []


def _names(data: dict[str, Any], key: str, attribute: str) -> list[str]:
    return [str(item[attribute]) for _, item in _list(data, key) if attribute in item]


def _texts(value: Any, where: Location) -> Iterator[tuple[Location, dict[str, Any]]]:
    """Every text by locale, with its path in the file."""
    if isinstance(value, dict):
        if value and all(isinstance(key, str) and _LOCALE.match(key) for key in value):
            yield where, value
        else:
            for key, item in value.items():
                yield from _texts(item, (*where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*where, index))


def _plan_problems(data: dict[str, Any]) -> Iterator[Finding]:
    networks = _names(data, "dataNetworks", "name")
    known = {
        "freeDestinations": ("destinationGroups", _names(data, "destinationGroups", "id")),
        "topUps": ("topUps", _names(data, "topUps", "id")),
    }
    for number, plan in _list(data, "plans"):
        where: Location = ("plans", number)
        if plan.get("id") == "verification":
            yield (*where, "id"), plan["id"], "another id: the kit adds a plan of this name itself"
        if isinstance(plan.get("dnn"), str) and plan["dnn"] not in networks:
            yield (*where, "dnn"), plan["dnn"], f"one of dataNetworks: {', '.join(networks) or 'none'}"
        for key, (source, names) in known.items():
            yield from _unknown(plan, key, where, source, names)
        rates = {
            "to": ("destinationGroups", [*_names(data, "destinationGroups", "id"), OTHER]),
            "zones": ("roamingZones", [*_names(data, "roamingZones", "id"), HOME, ELSEWHERE]),
            "at": ("timeBands", [*_names(data, "timeBands", "id"), OTHER]),
        }
        for index, rate in _list(plan, "rates"):
            for key, (source, names) in rates.items():
                yield from _unknown(rate, key, (*where, "rates", index), source, names)


def _unknown(item: dict[str, Any], key: str, where: Location, source: str, names: list[str]) -> Iterator[Finding]:
    """Names in a list that lead nowhere."""
    for index, name in enumerate(item[key] if isinstance(item.get(key), list) else []):
        if isinstance(name, str) and name not in names:
            yield (*where, key, index), name, f"one of {source}: {', '.join(names) or 'none'}"


def _rating_problems(data: dict[str, Any]) -> Iterator[Finding]:
    """Names that the kit has itself, and networks and numbers that stand in two places."""
    for key, own in (
        ("destinationGroups", (OTHER, "emergency")),
        ("roamingZones", (HOME, ELSEWHERE)),
        ("timeBands", (OTHER,)),
    ):
        for number, item in _list(data, key):
            if item.get("id") in own:
                yield (key, number, "id"), item["id"], "another id: the kit has this one itself"
    for key, attributes in (("roamingZones", ("networks",)), ("destinationGroups", ("numbers", "prefixes"))):
        for attribute in attributes:
            seen: dict[str, str] = {}
            for number, item in _list(data, key):
                for index, value in enumerate(item[attribute] if isinstance(item.get(attribute), list) else []):
                    if isinstance(value, str):
                        if value in seen:
                            yield (key, number, attribute, index), value, f"once: {seen[value]!r} has it already"
                        seen[value] = str(item.get("id"))


def _count(data: dict[str, Any], key: str) -> int | None:
    """How many a range of digits holds; None where it is broken."""
    value = data.get(key)
    ends = [str(value.get(end, "")).removeprefix("+") for end in ("first", "last")] if isinstance(value, dict) else []
    if len(ends) != 2 or not all(end.isascii() and end.isdigit() for end in ends):
        return None
    return int(ends[1]) - int(ends[0]) + 1


def _pool_problems(data: dict[str, Any]) -> Iterator[Finding]:
    """Pools that cannot give an address to every line that the brand can sell."""
    counts = [count for key in ("numberRange", "msinRange") if (count := _count(data, key)) is not None]
    lines = min(counts, default=0)
    sold = set(_names(data, "plans", "dnn"))
    allowed = f"room for the {lines} lines that numberRange and msinRange allow (a /{{}}), or shorter ranges"
    for number, network in _list(data, "dataNetworks"):
        where: Location = ("dataNetworks", number)
        if network.get("name") not in sold:
            continue
        with contextlib.suppress(KeyError, ValueError, TypeError):
            pool = ipaddress.IPv4Network(network["pool"])
            # The network, the gateway and the broadcast address are no UE's.
            room = pool.num_addresses - 3
            if pool.prefixlen <= 29 and room < lines:
                enough = 32 - (lines + 2).bit_length()
                yield (*where, "pool"), f"{network['pool']}, which has room for {room} UEs", allowed.format(enough)
        with contextlib.suppress(KeyError, ValueError, TypeError):
            pool6 = ipaddress.IPv6Network(network["pool6"])
            if pool6.prefixlen <= SMALLEST_POOL6 and prefixes(pool6) < lines:
                enough = UE_PREFIX - (lines + 1).bit_length()
                found = f"{network['pool6']}, which has room for {prefixes(pool6)} UEs of a /{UE_PREFIX} each"
                yield (*where, "pool6"), found, allowed.format(enough)


def reference_problems(data: dict[str, Any]) -> Iterator[Finding]:
    """(path, what was found, what is allowed) for each reference that leads nowhere."""
    yield from _plan_problems(data)
    yield from _pool_problems(data)
    yield from _rating_problems(data)
    zone = data.get("timezone")
    if isinstance(zone, str) and zone not in available_timezones():
        yield ("timezone",), zone, "an IANA time zone, for instance Europe/Paris"
    locales = [locale for locale in data.get("locales") or [] if isinstance(locale, str)]
    for path, texts in _texts(data, ()):
        if sorted(texts) != sorted(locales):
            yield path, sorted(texts), f"a text for each of the brand's locales: {', '.join(locales) or 'none'}"
    plans = _list(data, "plans")
    if plans and all(plan.get("sellable") is False for _, plan in plans):
        yield ("plans",), "no sellable plan", "at least one plan that customers can order"
