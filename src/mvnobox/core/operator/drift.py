"""What differs between a desired resource and the live one, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .models import Open5GS, Resource

_SECRET = frozenset({"spec.key", "spec.opc"})
_HIDDEN = "(hidden)"
_ABSENT = object()


class DriftKind(StrEnum):
    """How a field differs."""

    CHANGED = "changed"
    MISSING = "missing"  # desired, not there
    ADDED = "added"  # there, not desired, and set by somebody


@dataclass(frozen=True)
class Difference:
    """One field. Keys' values are hidden. `manager` owns the live field, None where nobody does."""

    path: str
    kind: DriftKind
    desired: Any
    live: Any
    manager: str | None

    def __str__(self) -> str:
        by = f", set by {self.manager}" if self.manager else ""
        match self.kind:
            case DriftKind.MISSING:
                return f"{self.path}: missing, {self.desired!r} is wanted"
            case DriftKind.ADDED:
                return f"{self.path}: {self.live!r} is not wanted{by}"
            case _:
                return f"{self.path}: {self.live!r} instead of {self.desired!r}{by}"


def differences(desired: Resource, live: Resource) -> list[Difference]:
    """The differences in spec, and in the labels and annotations that are desired; status is the server's.

    A field that is not desired counts only if somebody set it (the server's own defaults belong to nobody) and if it
    is not merely what the operator takes anyway.
    """
    want, have = desired.to_object(), live.to_object()
    fields = live.metadata.managedFields or []
    found: list[Difference] = []
    for part in ("labels", "annotations"):
        wanted = (want.get("metadata") or {}).get(part) or {}
        there = (have.get("metadata") or {}).get(part) or {}
        for key in sorted(wanted):
            found += _compare(("metadata", part, key), wanted[key], there.get(key, _ABSENT), fields)
    found += _compare(("spec",), want.get("spec") or {}, have.get("spec") or {}, fields)
    if isinstance(live, Open5GS):
        usual = {"spec": Open5GS().spec.effective().model_dump(exclude_none=True)}
        found = [item for item in found if item.kind is not DriftKind.ADDED or not _as_usual(item, usual)]
    return found


def _compare(path: tuple[str, ...], want: Any, have: Any, fields: list[dict[str, Any]]) -> Iterator[Difference]:
    if isinstance(want, dict) and (isinstance(have, dict) or have is _ABSENT):
        there = have if isinstance(have, dict) else {}
        for key in sorted(want.keys() | there.keys()):
            yield from _compare((*path, key), want.get(key, _ABSENT), there.get(key, _ABSENT), fields)
        return
    # An explicit null and an absent field are the same to the server.
    want, have = (_ABSENT if value is None else value for value in (want, have))
    if want is _ABSENT and isinstance(have, dict):
        for key in sorted(have):
            yield from _compare((*path, key), _ABSENT, have[key], fields)
        return
    if want is have or want == have:
        return
    manager = _owner(path, fields)
    if want is _ABSENT and manager is None and fields:
        return
    kind = DriftKind.ADDED if want is _ABSENT else DriftKind.MISSING if have is _ABSENT else DriftKind.CHANGED
    name = ".".join(path)
    shown = [None if v is _ABSENT else _HIDDEN if name in _SECRET else v for v in (want, have)]
    yield Difference(name, kind, shown[0], shown[1], manager)


def _owner(path: tuple[str, ...], fields: list[dict[str, Any]]) -> str | None:
    """Who owns a field, from the object's managedFields (a list is owned as a whole)."""
    for entry in fields:
        node = entry.get("fieldsV1") or {}
        for key in path:
            node = node.get(f"f:{key}") if isinstance(node, dict) else None
            if node is None:
                break
        else:
            return str(entry.get("manager"))
    return None


def _as_usual(item: Difference, usual: dict[str, Any]) -> bool:
    node: Any = usual
    for key in item.path.split("."):
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return bool(node == item.live)
