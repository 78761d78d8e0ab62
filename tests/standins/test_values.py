"""Property values on the wire and in the state."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2
from hypothesis import given, strategies

from kubernetes_provider import checkpoint
from kubernetes_provider.values import (
    UNKNOWN,
    Reference,
    Secret,
    dashed,
    decode,
    encode,
    has_secrets,
    has_unknowns,
    mark_secrets,
    plain,
    underscored,
)

SCALARS = (
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**53), 2**53)
    | strategies.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | strategies.text()
    | strategies.just(UNKNOWN)
)
VALUES = strategies.recursive(
    SCALARS,
    lambda inner: (
        strategies.lists(inner)
        | strategies.dictionaries(strategies.text(), inner)
        | inner.map(Secret)
        | strategies.builds(Reference, strategies.text(), strategies.text())
    ),
    max_leaves=10,
)


@given(strategies.dictionaries(strategies.text(), VALUES))
def test_round_trip(values: dict[str, Any]) -> None:
    wire = struct_pb2.Struct.FromString(encode(values).SerializeToString())
    assert decode(wire) == values


def test_whole_doubles_are_integers() -> None:
    struct = struct_pb2.Struct()
    struct.update({"port": 80.0, "ratio": 0.5})
    decoded = decode(struct)
    assert decoded == {"port": 80, "ratio": 0.5}
    assert isinstance(decoded["port"], int)


def test_output_values() -> None:
    struct = struct_pb2.Struct()
    signature = {"4dabf18193072939515e22adb298388d": "d0e6a833031e9bbcd3f4e8bde6ca49a4"}
    struct.update(
        {
            "known": {**signature, "value": "a"},
            "secret": {**signature, "value": "b", "secret": True},
            "unknown": signature,
        }
    )
    decoded = decode(struct)
    assert decoded == {"known": "a", "secret": Secret("b"), "unknown": UNKNOWN}
    assert plain(decoded)["secret"] == "b"
    assert has_unknowns(decoded) and has_secrets(decoded)


def test_secrets_are_marked_where_they_are() -> None:
    source = {"spec": {"password": Secret("x"), "open": "y", "list": ["a", Secret("b")]}}
    marked = mark_secrets({"spec": {"password": "x", "open": "y", "list": ["b", "a"]}}, source)
    assert marked == {"spec": {"password": Secret("x"), "open": "y", "list": Secret(["b", "a"])}}
    secret = mark_secrets({"kind": "Secret", "data": {"a": "b"}, "type": "Opaque"}, {})
    assert secret == {"kind": "Secret", "data": Secret({"a": "b"}), "type": "Opaque"}


def test_schema_keys_have_underscores_in_a_state() -> None:
    schema = {"x-kubernetes-preserve-unknown-fields": True, "properties": {"x-own": {"x-kubernetes-list-type": "set"}}}
    stored = underscored(schema)
    assert stored == {
        "x_kubernetes_preserve_unknown_fields": True,
        "properties": {"x-own": {"x_kubernetes_list_type": "set"}},
    }
    assert dashed(stored) == schema


def test_checkpoint() -> None:
    inputs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}
    live = {**inputs, "metadata": {"name": "a", "uid": "1"}}
    outputs = checkpoint.checkpoint(inputs, live, {"data": {"k": Secret("v")}}, "v1", "manager")
    assert outputs == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "uid": "1"},
        "data": {"k": Secret("v")},
        "__inputs": {**inputs, "data": {"k": Secret("v")}},
        "__initialApiVersion": "v1",
        "__fieldManager": "manager",
    }
    assert checkpoint.opened(outputs) == (inputs, live)
    assert checkpoint.manager_of(outputs, inputs) == "manager"
    annotated = {"metadata": {"annotations": {"pulumi.com/patchFieldManager": "mine"}}}
    assert checkpoint.manager_of(outputs, annotated) == "mine"
