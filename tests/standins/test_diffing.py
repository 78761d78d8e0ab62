"""Differences: what the cluster adds is none, what the program or somebody else changes is one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies

from kubernetes_provider.diffing import Change, difference, parse_path, path_text, seen_inputs
from kubernetes_provider.immutable import replacing_paths
from kubernetes_provider.values import UNKNOWN

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "a"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}, {"port": 81}]},
}
LIVE: dict[str, Any] = {
    **SERVICE,
    "metadata": {"name": "web", "namespace": "a", "uid": "1", "labels": {"from": "cluster"}, "managedFields": []},
    "spec": {
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}, {"port": 81, "targetPort": 81}],
        "clusterIP": "10.0.0.1",
        "type": "ClusterIP",
    },
    "status": {"loadBalancer": {}},
}


def changes(old: Any, live: Any, new: Any, **options: Any) -> dict[str, str]:
    found = difference(old, live, new, namespaced=options.pop("namespaced", True), **options)
    return {
        path_text(path): change.value + ("!" if path in found.replacing else "")
        for path, change in found.changes.items()
    }


def edited(path: str, value: Any, base: Any = SERVICE) -> Any:
    import copy

    result = copy.deepcopy(base)
    target, steps = result, parse_path(path)
    for step in steps[:-1]:
        target = target[step] if isinstance(step, int) else target.setdefault(step, {})
    if value is None:
        del target[steps[-1]]
    else:
        target[steps[-1]] = value
    return result


def test_what_the_cluster_filled_in_is_no_difference() -> None:
    assert changes(SERVICE, LIVE, SERVICE) == {}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.selector.app", "other", {"spec.selector.app": "update"}),
        ("spec.selector.tier", "front", {"spec.selector.tier": "add"}),
        ("spec.ports[0].targetPort", None, {"spec.ports[0].targetPort": "delete"}),
        ("spec.ports[1]", None, {"spec.ports[1]": "delete"}),
        ("spec.clusterIP", "None", {"spec.clusterIP": "add!"}),
        ("spec.clusterIP", UNKNOWN, {"spec.clusterIP": "add!"}),
        ("metadata.name", "other", {"metadata.name": "update!"}),
        ("metadata.namespace", "b", {"metadata.namespace": "update!"}),
        ('metadata.annotations["a.b/c"]', "d", {"metadata.annotations": "add"}),
        ("spec.ports[0].port", 80.0, {}),
        ("spec.ports[0].port", True, {"spec.ports[0].port": "update"}),
    ],
)
def test_a_change_of_the_program(path: str, value: Any, told: dict[str, str]) -> None:
    immutable = replacing_paths(SERVICE, patch=False, config_map_mutable=True, secret_mutable=True)
    assert changes(SERVICE, LIVE, edited(path, value), immutable=immutable) == told


def test_drift_shows_after_a_refresh() -> None:
    live = edited("spec.selector.app", "theirs", LIVE)
    assert changes(seen_inputs(live, SERVICE), live, SERVICE) == {"spec.selector.app": "update"}
    live = edited("spec.selector.app", None, LIVE)
    assert changes(seen_inputs(live, SERVICE), live, SERVICE) == {"spec.selector.app": "add"}


def test_empty_values() -> None:
    inputs = edited("spec.extra", {"zero": 0, "no": False, "map": {}})
    inputs["apiVersion"] = "a.example/v1"
    live = {**LIVE, "apiVersion": "a.example/v1"}
    # The server left them out: the same again is no news, another value is.
    assert changes(inputs, live, inputs) == {}
    assert changes(inputs, live, edited("spec.extra.zero", 1, inputs)) == {"spec.extra": "add"}


def test_ignored_changes() -> None:
    new = edited("spec.selector.app", "other")
    assert changes(SERVICE, LIVE, new, ignored=["spec.selector"]) == {}
    assert changes(SERVICE, LIVE, edited("spec.ports[0].port", 8), ignored=["spec.ports[*].port"]) == {}


def test_a_namespace_that_is_left_out_is_default() -> None:
    live = edited("metadata.namespace", "default", LIVE)
    new = edited("metadata.namespace", None)
    assert changes(new, live, new) == {}
    assert changes(new, live, edited("metadata.namespace", "default")) == {}


def test_data_replaces_unless_mutable() -> None:
    old = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}, "data": {"k": "1"}}
    new = edited("data.k", "2", old)
    for mutable, told in ((True, "update"), (False, "update!")):
        immutable = replacing_paths(new, patch=False, config_map_mutable=mutable, secret_mutable=False)
        assert changes(old, old, new, immutable=immutable) == {"data.k": told}
    frozen = {**new, "immutable": True}
    immutable = replacing_paths(frozen, patch=False, config_map_mutable=True, secret_mutable=True)
    assert changes(old, old, frozen, immutable=immutable)["data.k"] == "update!"


JSON = strategies.recursive(
    strategies.booleans()
    | strategies.integers(-9, 9)
    | strategies.text('ab."[]', max_size=3)
    | strategies.floats(-1, 1),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text("abc./[]", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    spec=strategies.dictionaries(strategies.sampled_from("pqrs"), JSON, max_size=4),
    api=strategies.sampled_from(["v1", "a.example/v1"]),
)
def test_the_same_inputs_never_differ(spec: Any, api: str) -> None:
    inputs = {"apiVersion": api, "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, "spec": spec}
    live = {**inputs, "status": {"x": 1}, "metadata": {**inputs["metadata"], "uid": "1"}}  # type: ignore[dict-item]
    assert changes(inputs, live, inputs) == {}
    assert changes(seen_inputs(live, inputs), live, inputs) == {}


@given(
    strategies.lists(
        strategies.integers(0, 9) | strategies.text('ab."[]/', min_size=1, max_size=4), min_size=1, max_size=5
    )
)
def test_paths_round_trip(steps: list[int | str]) -> None:
    path = ("root", *steps)
    assert parse_path(path_text(path)) == path


def test_kinds_of_changes_are_all_told() -> None:
    assert {change.value for change in Change} == {"add", "delete", "update"}
