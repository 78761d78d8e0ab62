"""What a program's change means for an object: a detailed difference, and whether the object must be replaced.

The live object of the state is cut to the shape of the inputs that made it and compared with the new inputs. So
fields that the cluster owns never show, and drift that a refresh has found does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from . import objects
from .immutable import Pattern, replaces
from .normal import normalise
from .values import UNKNOWN

Path = tuple[str | int, ...]


class Change(Enum):
    """What happened to one property."""

    ADD = "add"
    DELETE = "delete"
    UPDATE = "update"


@dataclass
class Difference:
    """The changed properties and those of them that need a new object."""

    changes: dict[Path, Change] = field(default_factory=dict)
    replacing: set[Path] = field(default_factory=set)


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


_MISSING = _Missing()


def prune(live: Any, shape: Any) -> Any:
    """`live` with only what `shape` has: keys of objects, and as many list elements."""
    if isinstance(live, dict) and isinstance(shape, dict):
        return {key: prune(live[key], item) for key, item in shape.items() if key in live}
    if isinstance(live, list) and isinstance(shape, list):
        return [prune(item, shape[index]) for index, item in enumerate(live[: len(shape)])]
    return live


def seen_inputs(live: Any, inputs: Any) -> Any:
    """`inputs` with the values that the live object has now; empty ones that the apiserver leaves out stay."""
    if isinstance(live, dict) and isinstance(inputs, dict):
        return {
            key: seen_inputs(live[key], item) if key in live else item
            for key, item in inputs.items()
            if key in live or _is_empty_deep(item)
        }
    if isinstance(live, list) and isinstance(inputs, list):
        return [seen_inputs(item, inputs[index]) for index, item in enumerate(live[: len(inputs)])]
    return live


def difference(
    old_inputs: objects.Object,
    live: objects.Object,
    new_inputs: objects.Object,
    *,
    namespaced: bool,
    immutable: tuple[Pattern, ...] = (),
    ignored: Iterable[str] = (),
) -> Difference:
    """Compare new inputs with a state's live object. The arguments are plain objects (secrets opened)."""
    old_inputs, new_inputs = normalise(old_inputs), normalise(new_inputs)
    live = normalise(live)
    old = prune(live, old_inputs)
    old.setdefault("apiVersion", new_inputs.get("apiVersion"))
    old.setdefault("kind", new_inputs.get("kind"))
    old, new_inputs = _same_namespace(old, live, new_inputs, namespaced)
    if objects.name_of(new_inputs):
        old.setdefault("metadata", {})["name"] = objects.name_of(live)
    found = Difference()
    _compare((), old, new_inputs, old_inputs, found)
    skip = [parse_path(text) for text in ignored]
    for path in list(found.changes):
        if any(_contains(prefix, path) for prefix in skip):
            del found.changes[path]
        elif replaces(path, immutable):
            found.replacing.add(path)
    return found


def _same_namespace(
    old: objects.Object, live: objects.Object, new: objects.Object, namespaced: bool
) -> tuple[objects.Object, objects.Object]:
    old = {**old, "metadata": dict(old.get("metadata") or {})}
    metadata = new.get("metadata")
    new = {**new, "metadata": dict(metadata) if isinstance(metadata, dict) else {}}
    if namespaced:
        old["metadata"]["namespace"] = objects.namespace_of(live) or "default"
        if new["metadata"].get("namespace") is not UNKNOWN:
            new["metadata"]["namespace"] = objects.namespace_of(new) or "default"
    else:
        old["metadata"].pop("namespace", None)
        new["metadata"].pop("namespace", None)
    return old, new


def _equal(left: Any, right: Any) -> bool:
    # True == 1 in Python, and not in Kubernetes.
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {} or (value == 0 and not isinstance(value, str))


def _compare(path: Path, old: Any, new: Any, before: Any, found: Difference) -> None:
    if new is UNKNOWN:
        found.changes[path] = Change.ADD if old is _MISSING else Change.UPDATE
    elif isinstance(new, dict) and isinstance(old, dict):
        for key in dict.fromkeys([*new, *old]):
            _compare(
                (*path, key),
                old.get(key, _MISSING),
                new.get(key, _MISSING),
                before.get(key, _MISSING) if isinstance(before, dict) else _MISSING,
                found,
            )
    elif isinstance(new, list) and isinstance(old, list):
        for index in range(max(len(new), len(old))):
            _compare(
                (*path, index),
                old[index] if index < len(old) else _MISSING,
                new[index] if index < len(new) else _MISSING,
                before[index] if isinstance(before, list) and index < len(before) else _MISSING,
                found,
            )
    elif new is _MISSING:
        if not (old is None or _is_omitted(old, before)):
            found.changes[path] = Change.DELETE
    elif old is _MISSING:
        # The apiserver leaves out what is empty; the same empty value again is no news.
        if not (new is None or (_is_empty_deep(new) and _same(new, before)) or _is_empty_metadata(path, new)):
            found.changes[path] = Change.ADD
    elif not _equal(old, new):
        found.changes[path] = Change.UPDATE


def _is_omitted(old: Any, before: Any) -> bool:
    return before is _MISSING and _is_empty(old)


def _same(new: Any, before: Any) -> bool:
    return before is not _MISSING and _equal(new, before)


def _is_empty_deep(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_empty_deep(item) for item in value.values())
    return _is_empty(value)


def _is_empty_metadata(path: Path, new: Any) -> bool:
    return path in (("metadata", "annotations"), ("metadata", "labels")) and _is_empty(new)


def _contains(prefix: Path, path: Path) -> bool:
    return len(prefix) <= len(path) and all(wanted in ("*", step) for wanted, step in zip(prefix, path, strict=False))


def path_text(path: Path) -> str:
    """A property path as the engine writes it: `spec.ports[0].port`, `metadata.annotations["a.b/c"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif any(character in step for character in '."[]'):
            text += '["' + step.replace('"', '\\"') + '"]'
        else:
            text += f".{step}" if text else step
    return text


def parse_path(text: str) -> Path:
    """A property path from the engine's notation."""
    steps: list[str | int] = []
    index = 0
    while index < len(text):
        if text.startswith('["', index):
            end = index + 2
            while not (text[end] == '"' and text[end - 1] != "\\"):
                end += 1
            steps.append(text[index + 2 : end].replace('\\"', '"'))
            index = end + 2
        elif text[index] == "[":
            end = text.index("]", index)
            inside = text[index + 1 : end]
            steps.append(int(inside) if inside.isdigit() else inside)
            index = end + 1
        elif text[index] == ".":
            index += 1
        else:
            end = index
            while end < len(text) and text[end] not in ".[":
                end += 1
            steps.append(text[index:end])
            index = end
    return tuple(steps)
