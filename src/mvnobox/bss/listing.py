"""Lists as TMF630 part 1 describes them: offset and limit, filters on attributes, a choice of fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mvnobox.bss.context import Context, TmfError

LARGEST_LIMIT = 1000
_OWN = ("offset", "limit", "fields")


@dataclass(frozen=True)
class Wish:
    """What a caller wants of a list."""

    offset: int
    limit: int
    fields: frozenset[str] | None
    filters: dict[str, list[str]]


def wish(query: Mapping[str, str], attributes: Mapping[str, Any] | frozenset[str], *others: str) -> Wish:
    """Read a query string. `attributes` can be filtered on: a value, or several with commas. Raises TmfError 400."""
    numbers = {}
    for name, least, most, default in (("offset", 0, 10**9, 0), ("limit", 1, LARGEST_LIMIT, 100)):
        text = query.get(name, str(default))
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or not least <= int(text) <= most:
            raise TmfError(400, f"{name} is not a number from {least} to {most}")
        numbers[name] = int(text)
    filters = {}
    for name, value in query.items():
        if name in attributes:
            filters[name] = value.split(",")
        elif name not in _OWN and name not in others:
            known = ", ".join(sorted(attributes))
            raise TmfError(400, f"{name[:60]!r} cannot be filtered on", f"filters: {known}; also {', '.join(_OWN)}")
    return Wish(numbers["offset"], numbers["limit"], chosen(query), filters)


def chosen(query: Mapping[str, str]) -> frozenset[str] | None:
    """The attributes that `fields` asks for; None: all."""
    fields = query.get("fields")
    return None if not fields else frozenset(name.strip() for name in fields.split(","))


def some_fields(document: dict[str, Any], fields: frozenset[str] | None) -> dict[str, Any]:
    """A document with the wanted attributes; what identifies it stays."""
    if fields is None:
        return document
    return {k: v for k, v in document.items() if k in fields or k in ("id", "href", "@type")}


async def rows(
    context: Context, wanted: Wish, select: str, columns: Mapping[str, str], order: str, make: Callable[[Any], Any]
) -> tuple[list[dict[str, Any]], int]:
    """A page of a query's documents and how many rows there are. `columns`: the SQL expression of each filter."""
    where = " AND ".join(f"({columns[name]})::text = ANY(${n}::text[])" for n, name in enumerate(wanted.filters, 1))
    source = f"{select} WHERE {where or 'true'}"
    values = list(wanted.filters.values())
    total = await context.pool.fetchval(f"SELECT count(*) FROM ({source}) t", *values)
    page = f"{source} ORDER BY {order} OFFSET ${len(values) + 1} LIMIT ${len(values) + 2}"
    found = await context.pool.fetch(page, *values, wanted.offset, wanted.limit)
    return [make(row) for row in found], int(total)
