"""The models keep what they are given, word for word, and know what the operator makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.core.operator import Invalid, Open5GS, Open5GSSpec, Open5GSUser
from mvnobox.core.operator.models import NETWORK_FUNCTIONS, Resource

TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
UNKNOWN = st.dictionaries(
    TEXT.map(lambda text: f"x{text}") | st.sampled_from(["copy", "model_dump", "json"]), JSON, max_size=2
)


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these fields, null or not, and others that no version knows yet."""
    known = st.fixed_dictionaries({}, optional={name: value | st.none() for name, value in fields.items()})
    return st.builds(lambda unknown, given: unknown | given, UNKNOWN, known)


FUNCTION = some(
    dict.fromkeys(("enabled", "serviceAccount", "metrics", "serviceMonitor", "unprivileged"), st.booleans())
    | {
        "service": st.lists(some({"name": TEXT, "serviceType": TEXT}), max_size=2),
        "gtpuDev": TEXT,
        "deploymentAnnotations": st.dictionaries(TEXT, TEXT, max_size=2),
    }
)
CONFIGURATION = some(
    dict.fromkeys(("mcc", "mnc", "region", "set", "tac"), TEXT)
    | {"slices": st.lists(some({"sst": TEXT, "sd": TEXT}), max_size=2)}
)
CORE_SPEC = some(
    dict.fromkeys(NETWORK_FUNCTIONS, FUNCTION)
    | dict.fromkeys(("webuiImage", "open5gsImage", "mongoDBVersion"), TEXT)
    | {"configuration": CONFIGURATION}
)
USER_SPEC = some(
    dict.fromkeys(("imsi", "key", "opc", "sd", "sst", "apn"), TEXT)
    | {"open5gs": some({"name": TEXT, "namespace": TEXT})}
)
METADATA = some(
    dict.fromkeys(("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"), TEXT)
    | {
        "generation": st.integers(0, 9),
        "finalizers": st.lists(TEXT, max_size=2),
        "labels": st.dictionaries(TEXT, TEXT, max_size=2),
        "annotations": st.dictionaries(TEXT, TEXT, max_size=2),
        "managedFields": st.lists(st.dictionaries(TEXT, JSON, max_size=2), max_size=2),
    }
)


def document(
    kind: type[Resource], spec: st.SearchStrategy[Any], status: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    fixed = {"apiVersion": st.just("net.gradiant.org/v1"), "kind": st.just(kind.KIND)}
    return st.fixed_dictionaries(fixed, optional={"metadata": METADATA, "spec": spec, "status": status, "more": JSON})


@given(document(Open5GS, CORE_SPEC, some({"ready": st.booleans()})))
def test_a_core_survives_the_round_trip(given_: dict[str, Any]) -> None:
    assert Open5GS.from_object(given_).to_object() == given_


@given(document(Open5GSUser, USER_SPEC, some({})))
def test_a_user_survives_the_round_trip(given_: dict[str, Any]) -> None:
    assert Open5GSUser.from_object(given_).to_object() == given_


def test_a_changed_field_leaves_the_rest_alone() -> None:
    core = Open5GS.from_object({"kind": "Open5GS", "spec": {"upf": {"newField": 1}, "newer": {"a": [1]}}})
    assert core.spec.upf is not None
    core.spec.upf.gtpuDev = "n3"
    assert core.to_object()["spec"] == {"upf": {"newField": 1, "gtpuDev": "n3"}, "newer": {"a": [1]}}


def test_what_the_operator_takes_for_absent_fields() -> None:
    spec = Open5GSSpec.model_validate(
        {"smf": {"metrics": False}, "configuration": {"mcc": "262", "mnc": ""}}
    ).effective()
    enabled = {name for name in NETWORK_FUNCTIONS if getattr(spec, name).enabled}
    assert enabled == set(NETWORK_FUNCTIONS) - {"webui"}
    assert spec.smf is not None and spec.smf.metrics is False and spec.smf.serviceMonitor is True
    assert spec.upf is not None and (spec.upf.gtpuDev, spec.upf.unprivileged) == ("eth0", False)
    assert spec.configuration is not None
    assert spec.configuration.model_dump() == {
        "mcc": "262",
        "mnc": "70",
        "region": "2",
        "set": "1",
        "tac": "0001",
        "slices": [{"sst": "1", "sd": "0xffffff"}],
    }


def test_no_slices_are_not_the_default_slice() -> None:
    spec = Open5GSSpec.model_validate({"configuration": {"slices": []}}).effective()
    assert spec.configuration is not None and spec.configuration.slices == []


@pytest.mark.parametrize("wrong", [{"spec": {"configuration": {"mcc": 262}}}, {"spec": None}, [], {"kind": "Pod"}])
def test_a_wrong_type_is_told_with_its_field(wrong: Any) -> None:
    with pytest.raises(Invalid) as caught:
        Open5GS.from_object(wrong)
    assert caught.value.remedy
    if wrong and "configuration" in str(wrong):
        assert [item.field for item in caught.value.fields] == ["spec.configuration.mcc"]


def test_keys_are_not_printed() -> None:
    key = "000102030405060708090A0B0C0D0E0F"
    user = Open5GSUser.from_object(
        {"metadata": {"annotations": {"last": key}}, "spec": {"key": key, "opc": key, "imsi": "1"}}
    )
    assert key not in repr(user) and key not in str(user) and "imsi='1'" in repr(user)
    with pytest.raises(Invalid) as caught:
        Open5GSUser.from_object({"spec": {"key": [key]}})
    assert key not in str(caught.value)
