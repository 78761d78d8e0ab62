"""Drift and readiness where a server of a newer operator would be needed."""

from __future__ import annotations

from typing import Any

from mvnobox.core.operator import DriftKind, Open5GS, Open5GSUser
from mvnobox.core.operator.drift import differences
from mvnobox.core.operator.ready import by_status

OURS = {"manager": "mvno-box", "operation": "Apply", "fieldsV1": {"f:spec": {"f:upf": {"f:metrics": {}}}}}
THEIRS = {"manager": "colleague", "operation": "Update", "fieldsV1": {"f:spec": {"f:newer": {"f:theirs": {}}}}}


def core(spec: dict[str, Any], status: dict[str, Any] | None = None, **metadata: Any) -> Open5GS:
    return Open5GS.from_object({"metadata": metadata, "spec": spec} | ({} if status is None else {"status": status}))


def test_the_servers_own_defaults_are_no_drift() -> None:
    desired = core({"upf": {"metrics": True}})
    live = core(
        {"upf": {"metrics": True, "newer": 1}, "newer": {"default": "x", "theirs": "y"}}, managedFields=[OURS, THEIRS]
    )
    (found,) = differences(desired, live)
    assert (found.path, found.kind, found.live, found.manager) == (
        "spec.newer.theirs",
        DriftKind.ADDED,
        "y",
        "colleague",
    )
    assert str(found) == "spec.newer.theirs: 'y' is not wanted, set by colleague"


def test_a_part_that_is_gone_is_told_by_its_fields() -> None:
    desired = core({"upf": {"metrics": True, "gtpuDev": None}, "configuration": {"slices": [{"sst": "1"}]}})
    assert [(item.path, item.kind, item.desired) for item in differences(desired, core({}))] == [
        ("spec.configuration.slices", DriftKind.MISSING, [{"sst": "1"}]),
        ("spec.upf.metrics", DriftKind.MISSING, True),
    ]


def test_a_status_of_an_older_generation_does_not_count() -> None:
    stale = by_status(core({}, {"ready": True, "observedGeneration": 1}, generation=2))
    assert stale is not None and not stale.ready
    fresh = by_status(core({}, {"ready": True, "observedGeneration": 2}, generation=2))
    assert fresh is not None and fresh.ready
    assert by_status(core({})) is None and by_status(core({}, {"ready": None})) is None
    assert by_status(Open5GSUser.from_object({"status": {"ready": True}})) is not None
