"""Pulumi's property values as Python values, and back.

Objects, arrays, strings, booleans and numbers are themselves; a whole double becomes an int, because the wire has
doubles only and Kubernetes has integers. Secrets, unknowns and resource references have types of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
_ASSET = "c44067f5952c0a294b673a41bacd8c17"
_UNKNOWNS = frozenset(
    {
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)


@dataclass(frozen=True)
class Secret:
    """A value that the state keeps encrypted."""

    value: Any


class _Unknown:
    """A value that is not known before the update."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class Reference:
    """A resource as a value: what a component returns for its children."""

    urn: str
    id: str


def decode(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct of the wire as Python values."""
    return {key: decode_value(value) for key, value in struct.fields.items()}


def decode_value(value: struct_pb2.Value) -> Any:
    """One Value of the wire; see the module's docstring."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**63 else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [decode_value(item) for item in value.list_value.values]
    if kind == "struct_value":
        fields = value.struct_value.fields
        signature = fields[_SIGNATURE].string_value if _SIGNATURE in fields else ""
        if signature == _SECRET:
            return Secret(decode_value(fields["value"]))
        if signature == _OUTPUT:
            inner = decode_value(fields["value"]) if "value" in fields else UNKNOWN
            return Secret(inner) if "secret" in fields and fields["secret"].bool_value else inner
        if signature == _RESOURCE:
            return Reference(fields["urn"].string_value, fields["id"].string_value if "id" in fields else "")
        if signature == _ASSET:
            return {"asset": {key: fields[key].string_value for key in ("text", "path", "uri") if key in fields}}
        return decode(value.struct_value)
    return None


def encode(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Python values as a Struct of the wire."""
    struct = struct_pb2.Struct()
    for key, value in values.items():
        _encode_into(struct.fields[key], value)
    return struct


def _encode_into(target: struct_pb2.Value, value: Any) -> None:
    if value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif value is UNKNOWN:
        target.string_value = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = float(value)
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, Secret):
        target.struct_value.fields[_SIGNATURE].string_value = _SECRET
        _encode_into(target.struct_value.fields["value"], value.value)
    elif isinstance(value, Reference):
        fields = target.struct_value.fields
        fields[_SIGNATURE].string_value = _RESOURCE
        fields["urn"].string_value = value.urn
        fields["id"].string_value = value.id
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        for key, item in value.items():
            _encode_into(target.struct_value.fields[key], item)
    elif isinstance(value, Iterable):
        target.list_value.SetInParent()
        for item in value:
            _encode_into(target.list_value.values.add(), item)
    else:
        raise TypeError(f"a {type(value).__name__} has no place in a property value")


def plain(value: Any) -> Any:
    """The value with every secret opened; unknowns stay."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _any(value: Any, test: Callable[[Any], bool]) -> bool:
    if test(value):
        return True
    if isinstance(value, Secret):
        return _any(value.value, test)
    if isinstance(value, dict):
        return any(_any(item, test) for item in value.values())
    if isinstance(value, list):
        return any(_any(item, test) for item in value)
    return False


def has_unknowns(value: Any) -> bool:
    """Whether anything in the value is not known yet."""
    return _any(value, lambda item: item is UNKNOWN)


def has_secrets(value: Any) -> bool:
    """Whether anything in the value is secret."""
    return _any(value, lambda item: isinstance(item, Secret))


def mark_secrets(target: dict[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """`target` with secret what is secret in `source`, and a Secret's data always.

    Objects are walked; anything else that holds a secret in `source` becomes secret as a whole, because the order
    in a list may differ between the two.
    """
    marked = dict(target)
    if marked.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if key in marked:
                marked[key] = as_secret(marked[key])
        return marked
    for key, value in source.items():
        if key not in marked:
            continue
        if isinstance(marked[key], dict) and isinstance(value, dict):
            marked[key] = mark_secrets(marked[key], value)
        elif has_secrets(value):
            marked[key] = as_secret(marked[key])
    return marked


def as_secret(value: Any) -> Secret:
    """The value as a secret, once."""
    return value if isinstance(value, Secret) else Secret(value)


_UNDERSCORED = {
    name: name.replace("-", "_")
    for name in (
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    )
}
_DASHED = {value: key for key, value in _UNDERSCORED.items()}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, Secret):
        return Secret(_renamed(value.value, names))
    return value


def underscored(value: Any) -> Any:
    """`x-kubernetes-*` keys as a state has them: with underscores."""
    return _renamed(value, _UNDERSCORED)


def dashed(value: Any) -> Any:
    """`x_kubernetes_*` keys as Kubernetes has them: with dashes."""
    return _renamed(value, _DASHED)
