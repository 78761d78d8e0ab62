"""The client against a real API server."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as k8s

from mvnobox.core.operator import (
    AlreadyExists,
    Conflict,
    CoreInput,
    DriftKind,
    FieldConflict,
    Forbidden,
    Invalid,
    NotFound,
    NotInstalled,
    Open5GS,
    Open5GSUser,
    OperatorClient,
    Refused,
    Slice,
    SubscribedSlice,
    SubscriberInput,
    TimedOut,
    Unreachable,
    to_open5gs,
    to_open5gs_user,
)
from mvnobox.core.operator.models import USER_FINALIZER


def test_create_get_list(operator: OperatorClient, core: CoreInput, subscriber: SubscriberInput) -> None:
    desired = to_open5gs(core)
    made = operator.create(desired)
    assert made.metadata.uid and made.spec == desired.spec
    assert operator.get(Open5GS, core.namespace, "core").spec == desired.spec
    operator.create(to_open5gs_user(subscriber, core, keys_in_plain_text=True))
    assert [item.name for item in operator.list(Open5GS, core.namespace).items] == ["core"]
    users = operator.list(Open5GSUser, core.namespace)
    assert [item.spec.imsi for item in users.items] == [subscriber.imsi] and int(users.resource_version) > 0
    assert core.namespace in {item.namespace for item in operator.list(Open5GS).items}
    assert operator.list(Open5GS, core.namespace, label_selector="brand=x").items == []
    with pytest.raises(AlreadyExists):
        operator.create(desired)


def test_a_long_list_comes_in_pages(
    operator: OperatorClient, core: CoreInput, subscriber: SubscriberInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        user = replace(subscriber, imsi=f"26298000000000{number}")
        operator.create(to_open5gs_user(user, core, keys_in_plain_text=True))
    monkeypatch.setattr("mvnobox.core.operator.client._PAGE", 2)
    assert len(operator.list(Open5GSUser, core.namespace).items) == 5


def test_update_changes_and_removes_what_is_ours_only(operator: OperatorClient, core: CoreInput, raw: Any) -> None:
    first = to_open5gs(replace(core, unprivileged_upf=True, labels={"brand": "a"}))
    operator.create(first)
    raw.patch(first, {"spec": {"nrf": {"serviceAccount": True}}})
    second = operator.update(to_open5gs(replace(core, tac=8)))
    assert second.spec.configuration is not None and second.spec.configuration.tac == "8"
    assert second.spec.upf is not None and second.spec.upf.unprivileged is None
    assert not second.metadata.labels
    assert second.spec.nrf is not None and second.spec.nrf.serviceAccount is True
    assert [(e["manager"], e["operation"]) for e in second.metadata.managedFields or []] == [
        ("mvno-box", "Apply"),
        ("colleague", "Update"),
    ]


def test_another_owner_is_a_conflict_until_forced(operator: OperatorClient, core: CoreInput, raw: Any) -> None:
    desired = to_open5gs(core)
    operator.create(desired)
    raw.patch(desired, {"spec": {"configuration": {"tac": "9"}, "upf": {"metrics": False}}})
    with pytest.raises(Conflict) as caught:
        operator.update(desired)
    assert set(caught.value.conflicts) == {
        FieldConflict(".spec.configuration.tac", "colleague"),
        FieldConflict(".spec.upf.metrics", "colleague"),
    }
    assert "force=True" in caught.value.remedy and "colleague" in caught.value.cause
    forced = operator.update(desired, force=True)
    assert forced.spec == desired.spec


def test_a_creation_that_was_cut_off_is_taken_over(operator: OperatorClient, core: CoreInput, raw: Any) -> None:
    """Created, but the process ended before its fields were made over to apply: no conflict with oneself."""
    before = to_open5gs(replace(core, tac=1, unprivileged_upf=True)).to_object()
    raw.post(core.namespace, "open5gses", before, "mvno-box")
    updated = operator.update(to_open5gs(core))
    assert updated.spec == to_open5gs(core).spec
    assert [(e["manager"], e["operation"]) for e in updated.metadata.managedFields or []] == [("mvno-box", "Apply")]


def test_apply_creates_then_updates(operator: OperatorClient, core: CoreInput) -> None:
    first = operator.apply(to_open5gs(core))
    second = operator.apply(to_open5gs(replace(core, tac=99)))
    assert first.metadata.uid == second.metadata.uid
    assert second.metadata.generation == 2
    assert operator.apply(to_open5gs(replace(core, tac=99))).metadata.resourceVersion == second.metadata.resourceVersion


def test_update_makes_nothing(operator: OperatorClient, core: CoreInput) -> None:
    with pytest.raises(NotFound):
        operator.update(to_open5gs(core))
    with pytest.raises(NotFound):
        operator.get(Open5GS, core.namespace, "core")
    with pytest.raises(NotFound) as caught:
        operator.create(to_open5gs(replace(core, namespace="nowhere")))
    assert "namespace nowhere" in caught.value.cause


def test_a_user_does_not_move(operator: OperatorClient, core: CoreInput, subscriber: SubscriberInput) -> None:
    user = operator.create(to_open5gs_user(subscriber, core, keys_in_plain_text=True))
    assert user.spec.open5gs is not None
    for change in ({"imsi": "262980000000009"}, {"open5gs": user.spec.open5gs.model_copy(update={"name": "other"})}):
        moved = user.model_copy(update={"spec": user.spec.model_copy(update=change)})
        with pytest.raises(Refused) as caught:
            operator.update(moved)
        assert caught.value.refusals[0].code == "moved-user"
    sliced = replace(subscriber, slices=(SubscribedSlice(Slice(1, "000002")),))
    assert operator.update(to_open5gs_user(sliced, core, keys_in_plain_text=True)).spec.sd == "000002"


@pytest.mark.parametrize("way", ["create", "update"])
def test_fields_that_the_server_does_not_know(operator: OperatorClient, core: CoreInput, way: str) -> None:
    desired = to_open5gs(core).to_object()
    if way == "update":
        operator.create(Open5GS.from_object(desired))
    desired["spec"]["upf"]["newer"] = True
    with pytest.raises(Invalid) as caught:
        getattr(operator, way)(Open5GS.from_object(desired))
    assert [(item.field, item.message) for item in caught.value.fields] == [("spec.upf.newer", "unknown field")]
    assert "upgrade the operator" in caught.value.remedy


def test_the_servers_field_errors_are_told_without_keys(
    operator: OperatorClient, core: CoreInput, subscriber: SubscriberInput
) -> None:
    user = to_open5gs_user(subscriber, core, keys_in_plain_text=True)
    wrong = user.to_object() | {"metadata": {"name": f"Bad_{subscriber.key}", "namespace": core.namespace}}
    with pytest.raises(Invalid) as caught:
        operator.create(Open5GSUser.from_object(wrong))
    assert "metadata.name" in [item.field for item in caught.value.fields]
    # As a server of another schema would: a type that this one does not take.
    broken = user.spec.model_construct(**user.spec.model_dump() | {"key": [subscriber.key]})
    with pytest.warns(UserWarning), pytest.raises(Invalid) as caught:
        operator.create(Open5GSUser.model_construct(metadata=user.metadata, spec=broken))
    assert "spec.key" in [item.field for item in caught.value.fields]
    assert subscriber.key not in str(caught.value)


def test_drift_field_by_field(operator: OperatorClient, core: CoreInput, subscriber: SubscriberInput, raw: Any) -> None:
    desired = to_open5gs(replace(core, labels={"brand": "a"}))
    operator.create(desired)
    assert operator.drift(desired) == []
    raw.status(desired, {"ready": True})
    raw.patch(desired, {"metadata": {"labels": {"other": "x"}, "finalizers": ["example.org/x"]}})
    assert operator.drift(desired) == [], "status and metadata of others are no drift"
    raw.patch(desired, {"spec": {"ausf": {"enabled": True}}})
    assert operator.drift(desired) == [], "what the operator takes anyway is no drift"
    raw.patch(
        desired,
        {
            "metadata": {"labels": {"brand": None}},
            "spec": {"configuration": {"tac": "9", "slices": []}, "upf": {"metrics": None}, "nrf": {"enabled": False}},
        },
        "colleague",
    )
    found = {item.path: item for item in operator.drift(desired)}
    assert set(found) == {
        "metadata.labels.brand",
        "spec.configuration.tac",
        "spec.configuration.slices",
        "spec.upf.metrics",
        "spec.nrf.enabled",
    }
    tac = found["spec.configuration.tac"]
    assert (tac.kind, tac.desired, tac.live, tac.manager) == (DriftKind.CHANGED, "7", "9", "colleague")
    assert found["spec.upf.metrics"].kind is DriftKind.MISSING and found["spec.upf.metrics"].desired is True
    nrf = found["spec.nrf.enabled"]
    assert (nrf.kind, nrf.live, nrf.manager) == (DriftKind.ADDED, False, "colleague")
    operator.update(desired, force=True)
    assert [item.path for item in operator.drift(desired)] == ["spec.nrf.enabled"]

    user = to_open5gs_user(subscriber, core, keys_in_plain_text=True)
    operator.create(user)
    raw.patch(user, {"spec": {"key": "F" * 32}})
    (key,) = operator.drift(user)
    assert key.path == "spec.key" and key.live == "(hidden)" and subscriber.key not in str(key) + repr(key)


def test_delete_waits_until_it_is_gone(operator: OperatorClient, core: CoreInput, raw: Any) -> None:
    operator.create(to_open5gs(core))
    version = operator.list(Open5GS, core.namespace).resource_version
    with ThreadPoolExecutor(1) as pool:
        deletion = pool.submit(operator.delete, Open5GS, core.namespace, "core", timeout=20, interval=0.05)
        # The garbage collector's part: what is owned is gone, so the finalizer goes.
        for event in operator.watch(Open5GS, core.namespace, resource_version=version, timeout=20):
            if event.resource is not None and event.resource.metadata.deletionTimestamp:
                assert event.resource.metadata.finalizers == ["foregroundDeletion"]
                assert not deletion.done()
                raw.patch(event.resource, {"metadata": {"finalizers": None}})
                break
        else:
            pytest.fail("it was not deleted in the foreground")
        assert deletion.result(20) is True
    assert operator.delete(Open5GS, core.namespace, "core") is False


class Racing(OperatorClient):
    """Somebody is quicker between two of its requests."""

    def __init__(self, api: Any, after_get: Any = None, after_delete: Any = None) -> None:
        super().__init__(api)
        self._after_get, self._after_delete = after_get, after_delete

    def get(self, kind: Any, namespace: str, name: str) -> Any:
        found = super().get(kind, namespace, name)
        if self._after_get is not None:
            self._after_get()
        return found

    def _delete(self, live: Any, what: str) -> None:
        super()._delete(live, what)
        if self._after_delete is not None:
            self._after_delete()


def test_an_update_does_not_bring_back_what_was_deleted(
    server: Any, operator: OperatorClient, core: CoreInput, raw: Any
) -> None:
    desired = to_open5gs(core)
    operator.create(desired)
    with pytest.raises(Conflict):
        Racing(server.api(), after_get=lambda: raw.remove(desired)).update(to_open5gs(replace(core, tac=8)))
    assert operator.list(Open5GS, core.namespace).items == []


def test_another_of_the_same_name_is_not_waited_for(
    server: Any, operator: OperatorClient, core: CoreInput, raw: Any
) -> None:
    desired = to_open5gs(core)
    operator.create(desired)

    def again() -> None:
        raw.patch(desired, {"metadata": {"finalizers": None}})
        operator.create(desired)

    assert Racing(server.api(), after_delete=again).delete(Open5GS, core.namespace, "core", timeout=5) is True
    assert operator.get(Open5GS, core.namespace, "core").metadata.deletionTimestamp is None


def test_delete_that_is_held_says_by_what(
    operator: OperatorClient, core: CoreInput, subscriber: SubscriberInput, raw: Any
) -> None:
    user = to_open5gs_user(subscriber, core, keys_in_plain_text=True)
    operator.create(user)
    raw.patch(user, {"metadata": {"finalizers": [USER_FINALIZER]}}, "manager")
    with pytest.raises(TimedOut) as caught:
        operator.delete(Open5GSUser, user.namespace, user.name, timeout=0.2, interval=0.05)
    assert USER_FINALIZER in caught.value.cause and "MongoDB" in caught.value.remedy
    with pytest.raises(Conflict):
        operator.wait_until_ready(Open5GSUser, user.namespace, user.name, timeout=1)


def test_readiness_by_status(operator: OperatorClient, core: CoreInput, raw: Any) -> None:
    desired = to_open5gs(core)
    operator.create(desired)
    raw.status(desired, {"ready": False})
    with pytest.raises(TimedOut) as caught:
        operator.wait_until_ready(Open5GS, core.namespace, "core", timeout=0.1, interval=0.05)
    assert "status.ready is false" in caught.value.cause
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(operator.wait_until_ready, Open5GS, core.namespace, "core", timeout=20, interval=0.05)
        raw.status(desired, {"ready": True})
        assert waiting.result(20).reason == "status.ready is true"


def test_readiness_by_deployments_when_there_is_no_status(
    server: Any, operator: OperatorClient, core: CoreInput
) -> None:
    """Operator 1.0.7 never writes a status."""
    desired = to_open5gs(core).to_object()
    for name in ("ausf", "bsf", "mongoDB", "nrf", "nssf", "pcf", "scp", "smf", "udm", "udr"):
        desired["spec"].setdefault(name, {})["enabled"] = False
    made = operator.create(Open5GS.from_object(desired))
    assert operator.readiness(made).reason == "amf: no Deployment yet; upf: no Deployment yet"
    apps = k8s.AppsV1Api(server.api())
    for name in ("amf", "upf"):
        labels = {"app.kubernetes.io/instance": "core", "app.kubernetes.io/name": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": name, "image": "x"}]}}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        body = {"metadata": {"name": f"core-{name}", "labels": labels}, "spec": spec}
        apps.create_namespaced_deployment(core.namespace, body)
    assert "amf: its Deployment's newest form has not been looked at" in operator.readiness(made).reason

    def say(name: str, **status: int) -> None:
        apps.patch_namespaced_deployment_status(f"core-{name}", core.namespace, {"status": status})

    say("amf", observedGeneration=1, replicas=1, updatedReplicas=1, readyReplicas=1, availableReplicas=1)
    say("upf", observedGeneration=1, replicas=2, updatedReplicas=1, readyReplicas=1, availableReplicas=1)
    assert operator.readiness(made).reason == "upf: 1 of 1 pods available, and an old one not gone"
    say("upf", observedGeneration=1, replicas=1, updatedReplicas=1, readyReplicas=0, availableReplicas=0)
    assert operator.readiness(made).reason == "upf: 0 of 1 pods available"
    say("upf", observedGeneration=1, replicas=1, updatedReplicas=1, readyReplicas=1, availableReplicas=1)
    assert operator.wait_until_ready(Open5GS, core.namespace, "core", timeout=5).ready


def test_readiness_of_a_user(operator: OperatorClient, core: CoreInput, subscriber: SubscriberInput, raw: Any) -> None:
    user = to_open5gs_user(subscriber, core, keys_in_plain_text=True)
    operator.create(user)
    with pytest.raises(TimedOut):
        operator.wait_until_ready(Open5GSUser, user.namespace, user.name, timeout=0.1, interval=0.05)
    raw.patch(user, {"metadata": {"finalizers": [USER_FINALIZER]}}, "manager")
    assert operator.wait_until_ready(Open5GSUser, user.namespace, user.name, timeout=5).ready


def test_forbidden(server: Any, core: CoreInput) -> None:
    stranger = OperatorClient.from_kubeconfig(server.folder / "stranger.kubeconfig")
    with pytest.raises(Forbidden) as caught:
        stranger.create(to_open5gs(core))
    assert 'cannot create resource "open5gses"' in caught.value.cause and "RBAC" in caught.value.remedy
    nobody = k8s.Configuration()
    nobody.host, nobody.verify_ssl = f"https://127.0.0.1:{server.port}", True
    nobody.ssl_ca_cert = str(server.folder / "pki" / "ca.crt")
    nobody.api_key = {"BearerToken": "Bearer wrong"}
    with pytest.raises(Forbidden) as caught:
        OperatorClient(k8s.ApiClient(nobody)).list(Open5GS)
    assert "credentials" in caught.value.cause


def test_unreachable(server: Any, forwarder: Any, through: OperatorClient, tmp_path: Path) -> None:
    assert through.list(Open5GS).resource_version
    forwarder.cut(stay_closed=True)
    with pytest.raises(Unreachable) as caught:
        through.list(Open5GS)
    assert caught.value.remedy
    with pytest.raises(Unreachable):
        OperatorClient.from_kubeconfig(tmp_path / "none")
    with pytest.raises(Unreachable):
        OperatorClient.from_kubeconfig(server.folder / "admin.kubeconfig", "no-such-context")
    untrusting = k8s.Configuration()
    untrusting.host = f"https://127.0.0.1:{server.port}"
    with pytest.raises(Unreachable) as caught:
        OperatorClient(k8s.ApiClient(untrusting)).list(Open5GS)
    assert "not trusted" in caught.value.cause


def test_a_server_that_is_silent_is_given_up(server: Any, core: CoreInput) -> None:
    hasty = OperatorClient(server.api(), request_timeout=0.5)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable):
            hasty.get(Open5GS, core.namespace, "core")
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_not_installed(server: Any, core: CoreInput, raw: Any) -> None:
    fresh = OperatorClient(server.api())
    desired = to_open5gs(core)
    fresh.create(desired)
    raw.patch(desired, {"metadata": {"finalizers": ["example.org/held"]}})
    k8s.ApiextensionsV1Api(server.api()).delete_custom_resource_definition("open5gses.net.gradiant.org")
    try:
        with pytest.raises(NotInstalled) as caught:
            for number in range(1000):  # the server notices in its own time that the CRD is going
                fresh.create(to_open5gs(replace(core, name=f"more-{number}")))
        assert "being removed" in caught.value.cause
    finally:
        server.uninstall()
    try:
        calls = (
            lambda: fresh.check_installed("default"),
            lambda: fresh.create(desired),
            lambda: fresh.get(Open5GS, "default", "x"),
            lambda: fresh.list(Open5GSUser),
            lambda: next(fresh.watch(Open5GS, resource_version="1")),
        )
        for call in calls:
            with pytest.raises(NotInstalled) as caught:
                call()
            assert "helm install open5gs-operator" in caught.value.remedy
    finally:
        server.install()
