"""A program's life under the real engine and a real apiserver."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = """
named = k8s.core.v1.ConfigMap("named", metadata={**inside, "name": "named", **LABELS},
                              data={"colour": COLOUR}, opts=opts)
auto = k8s.core.v1.ConfigMap("auto", metadata=inside, data={"x": "1"}, opts=opts)
secret = k8s.core.v1.Secret("secret", metadata={**inside, "name": "secret"},
                            string_data={"password": pulumi.Output.secret("open sesame")}, opts=opts)
service = k8s.core.v1.Service("service", metadata={**inside, "name": "service"},
                              spec={"ports": [{"port": 80, "name": "http"}], **SERVICE}, opts=opts)
pulumi.export("auto", auto.metadata["name"])
pulumi.export("address", service.spec.cluster_ip)
"""


def program(colour: str = "blue", service: str = "{}", labels: str = '{"labels": {"a": "1"}}') -> str:
    return f"COLOUR = {colour!r}\nSERVICE = {service}\nLABELS = {labels}\n{PROGRAM}"


def test_create_change_replace_drift_and_delete(project: Any) -> None:
    project.write(program())
    first = project.run("preview", "--diff")
    assert first.code == 0, first.text
    assert "open sesame" not in first.text
    project.up()

    # Nothing changes without a change.
    assert project.preview()["changeSummary"] == {"same": 7}
    state = project.state()
    name = state["auto"]["outputs"]["metadata"]["name"]
    assert name.startswith("auto-") and len(name) == len("auto-") + 8
    assert state["auto"]["outputs"]["metadata"]["annotations"] == {"pulumi.com/autonamed": "true"}

    # A change in place: the apiserver keeps the object, and what we no longer set goes.
    project.write(program("green", labels="{}"))
    plan = project.preview()
    assert plan["changeSummary"] == {"same": 6, "update": 1}
    uid = state["named"]["outputs"]["metadata"]["uid"]
    project.up()
    live = json.loads(project.kubectl("get", "configmap", "named", "-o", "json"))
    assert live["metadata"]["uid"] == uid
    assert live["data"] == {"colour": "green"}
    assert "labels" not in live["metadata"]
    managers = {
        (entry["manager"], entry["operation"])
        for entry in json.loads(project.kubectl("get", "configmap", "named", "-o", "json", "--show-managed-fields"))[
            "metadata"
        ]["managedFields"]
    }
    assert managers == {(state["named"]["outputs"]["__fieldManager"], "Apply")}
    assert project.state()["auto"]["outputs"]["metadata"]["name"] == name

    # An immutable field: the object is deleted and made anew, under the same name.
    project.write(program("green", '{"clusterIP": "None"}', "{}"))
    assert project.preview()["changeSummary"] == {"same": 6, "replace": 1}
    before = project.state()["service"]["outputs"]["metadata"]["uid"]
    project.up()
    assert project.state()["service"]["outputs"]["metadata"]["uid"] != before
    assert project.preview()["changeSummary"] == {"same": 7}

    # Drift: seen by a refresh, put right by an up.
    project.kubectl("patch", "configmap", "named", "--type=merge", "-p", '{"data":{"colour":"red"}}')
    project.kubectl("delete", "configmap", name)
    said = project.run("refresh", "--yes", "--skip-preview")
    assert said.code == 0, said.text
    assert project.state()["named"]["outputs"]["data"] == {"colour": "red"}
    assert "auto" not in project.state()
    plan = project.preview()["changeSummary"]
    assert plan == {"same": 5, "update": 1, "create": 1}
    said = project.run("up", "--yes", "--skip-preview")
    if said.code != 0:
        # kubectl owns the field now, and our manager does not take it without being told to.
        assert "patchForce" in said.text and "kubectl" in said.text, said.text
    assert json.loads(project.kubectl("get", "configmap", "named", "-o", "json"))["data"] in (
        {"colour": "green"},
        {"colour": "red"},
    )

    # What the program no longer has goes.
    project.write("")
    project.up()
    assert project.kubectl("get", "secret,service", "-o", "name") == ""


def test_the_state_has_the_official_shape(project: Any) -> None:
    project.write(program())
    project.up()
    state = project.state()
    item = state["named"]
    assert item["id"] == f"{project.name}/named"
    assert item["type"] == "kubernetes:core/v1:ConfigMap"
    outputs = item["outputs"]
    assert set(outputs) == {
        "__fieldManager",
        "__initialApiVersion",
        "__inputs",
        "apiVersion",
        "data",
        "kind",
        "metadata",
    }
    assert outputs["__initialApiVersion"] == "v1"
    manager = outputs["__fieldManager"]
    assert manager.startswith("pulumi-kubernetes-") and len(manager) == len("pulumi-kubernetes-") + 8
    assert (
        outputs["__inputs"]
        == item["inputs"]
        == {
            "apiVersion": "v1",
            "data": {"colour": "blue"},
            "kind": "ConfigMap",
            "metadata": {"name": "named", "namespace": project.name, "labels": {"a": "1"}},
        }
    )
    # Made by a plain POST, so that a first apply can take the fields over.
    assert [(entry["manager"], entry["operation"]) for entry in outputs["metadata"]["managedFields"]] == [
        ("pulumi-kubernetes", "Update")
    ]
    assert state[project.name]["id"] == project.name
    assert "propertyDependencies" in item

    # A Secret: data, not stringData, and secret everywhere.
    encoded = base64.b64encode(b"open sesame").decode()
    for part in (state["secret"]["inputs"], state["secret"]["outputs"], state["secret"]["outputs"]["__inputs"]):
        assert json.loads(part["data"]["plaintext"]) == {"password": encoded}
        assert "stringData" not in part
    raw = (project.folder / "state" / ".pulumi" / "stacks" / "standins" / "test.json").read_text()
    assert encoded not in raw and "open sesame" not in raw

    # Everything is there after an import as well.
    manager = state["service"]["outputs"]["__fieldManager"]
    assert state["service"]["outputs"]["spec"]["clusterIP"]
    assert manager != outputs["__fieldManager"]


def test_an_existing_object_is_not_taken_without_being_told(project: Any) -> None:
    project.write("")
    project.up()
    project.kubectl("create", "configmap", "named", "--from-literal=colour=red")
    project.write(program())
    said = project.run("up", "--yes", "--skip-preview")
    assert said.code != 0
    assert "already exists" in said.text
    project.environment["PULUMI_K8S_UPSERT_EXISTING_OBJECTS"] = "true"
    project.environment["PULUMI_K8S_ENABLE_PATCH_FORCE"] = "true"
    project.up()
    assert project.preview()["changeSummary"] == {"same": 7}
    assert json.loads(project.kubectl("get", "configmap", "named", "-o", "json"))["data"] == {"colour": "blue"}


def test_a_patch_resource_gives_its_fields_up(project: Any) -> None:
    project.write("")
    project.up()
    project.kubectl("create", "configmap", "shared", "--from-literal=theirs=1")
    project.write(
        'k8s.core.v1.ConfigMapPatch("patch", metadata={**inside, "name": "shared"}, data={"ours": "2"}, opts=opts)'
    )
    project.up()
    assert json.loads(project.kubectl("get", "configmap", "shared", "-o", "json"))["data"] == {
        "theirs": "1",
        "ours": "2",
    }
    assert project.preview()["changeSummary"] == {"same": 4}
    project.write("")
    project.up()
    assert json.loads(project.kubectl("get", "configmap", "shared", "-o", "json"))["data"] == {"theirs": "1"}


def test_a_failing_program_is_told_with_its_own_line(project: Any) -> None:
    project.write("raise RuntimeError('no such brand')")
    said = project.run("preview")
    assert said.code != 0
    assert "no such brand" in said.text
    assert "runpy" not in said.text
    project.write("raise pulumi.RunError('the brand file is missing')")
    said = project.run("preview")
    assert "the brand file is missing" in said.text and "Traceback" not in said.text
    project.write("")


def test_preview_from_the_shell_does_not_wait(project: Any) -> None:
    # Plug-ins that did not leave at once would cost five seconds each.
    import time

    project.write(program())
    project.up()
    started = time.monotonic()
    said = project.run("preview")
    assert said.code == 0 and "7 unchanged" in said.text, said.text
    assert time.monotonic() - started < 4.5
