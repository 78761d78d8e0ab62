"""Filters, projections and orders of the query language, as far as clients of a subscriber directory use them.

Every filter has to name subscribers by `imsi`, `msisdn` or `_id`: those are looked up by index. Whatever else it says
is matched on the documents found.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bson.regex import Regex

_KEYS = {"imsi": "imsi", "_id": "imsi", "msisdn": "msisdn"}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_DEEPEST = 8
_MOST_KEYS = 1000


class Unsupported(Exception):
    """A filter, an update or a command that no client of the directory needs."""


@dataclass
class Keys:
    """Subscribers by key. `exact`: the filter says nothing beyond the keys."""

    imsis: list[str] = field(default_factory=list)
    msisdns: list[str] = field(default_factory=list)
    exact: bool = True


def keys(query: dict[str, Any], depth: int = 0) -> Keys | None:
    """The keys that bound a filter, or None where it has none. Raises Unsupported."""
    if depth > _DEEPEST:
        raise Unsupported("a filter nested so deep")
    bound: Keys | None = None
    for name, value in query.items():
        found = _key(name, value, depth)
        if found is not None and bound is None:
            bound = found
    if bound is not None and len(query) > 1:
        bound.exact = False
    return bound


def _key(name: str, value: Any, depth: int) -> Keys | None:
    if name in _KEYS:
        wanted = _values(value)
        if wanted is None:
            return None
        if any(isinstance(one, (Regex, re.Pattern)) for one in wanted):
            raise Unsupported("a regular expression")
        texts = [one for one in wanted if isinstance(one, str)]
        if len(texts) > _MOST_KEYS:
            raise Unsupported(f"a filter of more than {_MOST_KEYS} keys")
        return Keys(imsis=texts) if _KEYS[name] == "imsi" else Keys(msisdns=texts)
    if name in ("$or", "$and"):
        if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
            raise Unsupported(f"{name} without a list of filters")
        parts = [keys(one, depth + 1) for one in value]
        if name == "$and":
            bound = next((part for part in parts if part is not None), None)
            if bound is not None and len(parts) > 1:
                bound.exact = False
            return bound
        union = Keys()
        for part in parts:
            if part is None:
                return None
            union.imsis += part.imsis
            union.msisdns += part.msisdns
            union.exact = union.exact and part.exact
        return union
    return None


def _values(value: Any) -> list[Any] | None:
    if isinstance(value, dict) and any(key.startswith("$") for key in value):
        if len(value) == 1 and isinstance(value.get("$in"), list):
            return list(value["$in"])
        return [value["$eq"]] if len(value) == 1 and "$eq" in value else None
    return [value]


def _at(document: Any, path: list[str]) -> list[Any]:
    """The values at a dotted path; an array on the way stands for each of its elements."""
    if not path:
        return [document, *document] if isinstance(document, list) else [document]
    if isinstance(document, list):
        values = [found for one in document if isinstance(one, dict) for found in _at(one, path)]
        if path[0].isdigit() and int(path[0]) < len(document):
            values += _at(document[int(path[0])], path[1:])
        return values
    if isinstance(document, dict) and path[0] in document:
        return _at(document[path[0]], path[1:])
    return []


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _holds(values: list[Any], name: str, operand: Any) -> bool:
    match name:
        case "$eq":
            return any(_equal(value, operand) for value in values) or (operand is None and not values)
        case "$ne":
            return not _holds(values, "$eq", operand)
        case "$in" | "$nin" if isinstance(operand, list):
            return any(_holds(values, "$eq", one) for one in operand) == (name == "$in")
        case "$exists":
            return bool(values) == bool(operand)
        case "$gt" | "$gte" | "$lt" | "$lte":
            kinds = (str,) if isinstance(operand, str) else (int, float)
            return isinstance(operand, (str, int, float)) and any(
                isinstance(value, kinds) and not isinstance(value, bool) and _COMPARISONS[name](value, operand)
                for value in values
            )
    raise Unsupported(f"the operator {name[:40]}")


def matches(document: dict[str, Any], query: dict[str, Any], depth: int = 0) -> bool:
    """Whether a document is meant by a filter. Raises Unsupported."""
    if depth > _DEEPEST:
        raise Unsupported("a filter nested so deep")
    for name, value in query.items():
        if name in ("$or", "$and", "$nor"):
            if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
                raise Unsupported(f"{name} without a list of filters")
            results = [matches(document, one, depth + 1) for one in value]
            right = {"$or": any(results), "$and": all(results), "$nor": not any(results)}[name]
        elif name.startswith("$"):
            raise Unsupported(f"the operator {name[:40]}")
        else:
            values = _at(document, name.split("."))
            if isinstance(value, dict) and any(key.startswith("$") for key in value):
                right = all(_holds(values, key, operand) for key, operand in value.items())
            else:
                right = _holds(values, "$eq", value)
        if not right:
            return False
    return True


def project(document: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What a projection leaves of a document. Raises Unsupported."""
    for name, flag in wanted.items():
        if not isinstance(flag, (bool, int, float)) or not name or name.startswith("$"):
            raise Unsupported("a projection other than of fields, 1 or 0")
    shown = [name.split(".") for name, flag in wanted.items() if flag and name != "_id"]
    hidden = [name.split(".") for name, flag in wanted.items() if not flag and name != "_id"]
    if shown and hidden:
        raise Unsupported("a projection that both shows and hides")
    if shown or (wanted.get("_id") and not hidden):
        result: dict[str, Any] = _shown(document, shown)
        return {"_id": document["_id"], **result} if wanted.get("_id", 1) else result
    rest: dict[str, Any] = _hidden(document, hidden + ([["_id"]] if "_id" in wanted and not wanted["_id"] else []))
    return rest


def _heads(paths: list[list[str]]) -> dict[str, list[list[str]]]:
    heads: dict[str, list[list[str]]] = {}
    for path in paths:
        heads.setdefault(path[0], []).append(path[1:])
    return heads


def _shown(value: Any, paths: list[list[str]]) -> Any:
    if isinstance(value, list):
        return [_shown(one, paths) for one in value if isinstance(one, (dict, list))]
    result = {}
    heads = _heads(paths)
    for name, inner in value.items():
        if name in heads:
            if [] in heads[name]:
                result[name] = inner
            elif isinstance(inner, (dict, list)):
                result[name] = _shown(inner, heads[name])
    return result


def _hidden(value: Any, paths: list[list[str]]) -> Any:
    if isinstance(value, list):
        return [_hidden(one, paths) for one in value]
    if not isinstance(value, dict):
        return value
    heads = _heads(paths)
    return {
        name: _hidden(inner, heads[name]) if name in heads else inner
        for name, inner in value.items()
        if [] not in heads.get(name, [])
    }
