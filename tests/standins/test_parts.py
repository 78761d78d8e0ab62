"""The small parts: names, manifests, managed fields, kubeconfigs, settings, charts' arguments."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubernetes_provider import apply, chart, component, manifests, naming
from kubernetes_provider.errors import ProviderError
from kubernetes_provider.kubeconfig import connect
from kubernetes_provider.settings import replaced_settings, settings_of
from kubernetes_provider.values import UNKNOWN

URN = "urn:pulumi:dev::p::kubernetes:core/v1:ConfigMap::settings"


class Autonaming:
    PROPOSE, ENFORCE, DISABLE = 0, 1, 2

    def __init__(self, mode: int, proposed_name: str = "") -> None:
        self.mode, self.proposed_name = mode, proposed_name


def named(
    inputs: dict[str, Any], olds: dict[str, Any] | None = None, seed: bytes = b"s", autonaming: Any = None
) -> Any:
    naming.name_object(inputs, olds or {}, URN, seed, autonaming)
    return inputs.get("metadata")


def test_names() -> None:
    first = named({})
    assert first["name"].startswith("settings-") and len(first["name"]) == 17
    assert first["annotations"] == {"pulumi.com/autonamed": "true"}
    assert named({})["name"] == first["name"], "a preview and its update must agree"
    assert named({}, seed=b"t")["name"] != first["name"]
    assert named({}, {"metadata": {**first, "name": "settings-old"}})["name"] == "settings-old"
    assert named({"metadata": {"name": "own"}}) == {"name": "own"}
    assert named({"metadata": {"name": UNKNOWN}}) == {"name": UNKNOWN}
    assert named({"metadata": {"generateName": "own-"}}) == {"generateName": "own-"}
    assert named({}, autonaming=Autonaming(1, "proposed"))["name"] == "proposed"
    with pytest.raises(ValueError, match=r"set metadata\.name"):
        named({}, autonaming=Autonaming(2))


def test_yaml_as_kubernetes_reads_it() -> None:
    text = """
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {date: 2026-11-23, time: 12:30, small: 1:30, octal: 0644, oct: 0o644, big: 1e3, hex: 0x1F, float: 1.5, on: true,
       version: 1.20.3, zero: 0, minus: -7, word: 0b12}
---
# nothing
---
apiVersion: v1
kind: ServiceAccountList
items:
  - {apiVersion: v1, kind: ServiceAccount, metadata: {name: b}}
"""
    found = manifests.parse(text, "test")
    assert [obj["metadata"]["name"] for obj in found] == ["a", "b"]
    assert found[0]["data"] == {
        "date": "2026-11-23",
        "time": "12:30",
        "small": "1:30",
        "octal": 420,
        "oct": 420,
        "big": 1000.0,
        "hex": 31,
        "float": 1.5,
        True: True,
        "version": "1.20.3",
        "zero": 0,
        "minus": -7,
        "word": "0b12",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "no YAML"),
        ("kind: Pod", "without apiVersion"),
        ("apiVersion: v1\nkind: Pod", r"Pod without metadata\.name"),
    ],
)
def test_bad_manifests(text: str, words: str) -> None:
    with pytest.raises(ProviderError, match=words):
        manifests.parse(text, "chart x")


def _object(version: str, kind: str, name: str, namespace: str = "", needs: str = "", **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if needs:
        metadata["annotations"] = {"config.kubernetes.io/depends-on": needs}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def test_what_must_be_there_first() -> None:
    found = [
        _object("a.example/v1", "Thing", "t", "ns", "apps/namespaces/ns/Deployment/d, /Namespace/ns"),
        _object("apps/v1", "Deployment", "d", "ns"),
        _object("v1", "Namespace", "ns"),
        _object(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "things.a.example",
            spec={"group": "a.example", "names": {"kind": "Thing"}},
        ),
        _object("v1", "ConfigMap", "elsewhere", "other"),
    ]
    assert manifests.dependencies(found) == {0: [1, 2, 3], 1: [2], 2: [], 3: [], 4: []}
    circle = [
        _object("v1", "ConfigMap", "a", "ns", "/namespaces/ns/ConfigMap/b"),
        _object("v1", "ConfigMap", "b", "ns", "/namespaces/ns/ConfigMap/a"),
    ]
    with pytest.raises(ProviderError, match="in a circle: ns/a, ns/b"):
        manifests.dependencies(circle)


def test_type_tokens() -> None:
    assert component.type_token({"apiVersion": "v1", "kind": "Pod"}) == "kubernetes:core/v1:Pod"
    assert component.type_token({"apiVersion": "apps/v1", "kind": "Deployment"}) == "kubernetes:apps/v1:Deployment"


def _entry(manager: str, operation: str, fields: dict[str, Any], subresource: str = "") -> dict[str, Any]:
    entry = {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields}
    return {**entry, "subresource": subresource} if subresource else entry


def test_former_managers_give_their_fields_to_ours() -> None:
    controller = _entry("kube-controller-manager", "Update", {"f:status": {}}, "status")
    managed = [
        _entry("ours", "Apply", {"f:data": {"f:a": {}}}),
        _entry("pulumi-kubernetes", "Update", {"f:data": {".": {}, "f:b": {}}}),
        _entry("kubectl", "Update", {"f:metadata": {}}, "status"),
        controller,
    ]
    result = apply.taken_over(managed, "ours")
    assert result == [_entry("ours", "Apply", {"f:data": {".": {}, "f:a": {}, "f:b": {}}}), managed[2], controller]
    assert apply.taken_over([result[0], controller], "ours") is None


def _kubeconfig(folder: Path, **user: Any) -> Path:
    path = folder / "kubeconfig"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1/"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "ctx", "context": {"cluster": "c", "user": "u", "namespace": "own"}}],
        "current-context": "ctx",
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_kubeconfigs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _kubeconfig(tmp_path, token="t")
    found = connect(str(path), None, None)
    assert (found.server, found.namespace, found.headers) == (
        "http://127.0.0.1:1",
        "own",
        {"Authorization": "Bearer t"},
    )
    assert connect(path.read_text(), "ctx", None).headers == found.headers
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'nothing'}:{path}")
    assert connect(None, None, None).server == found.server
    with pytest.raises(ProviderError, match="no context 'other'; it has: ctx"):
        connect(str(path), "other", None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(ProviderError, match=f"there is no kubeconfig: {tmp_path / 'nothing'}"):
        connect(None, None, None)
    (tmp_path / "token").write_text("from file\n")
    path = _kubeconfig(tmp_path, tokenFile="token")
    assert connect(str(path), None, None).headers == {"Authorization": "Bearer from file"}
    path = _kubeconfig(tmp_path, username="a", password="b")
    assert connect(str(path), None, None).headers["Authorization"] == "Basic " + base64.b64encode(b"a:b").decode()


def test_credential_plugins(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\nimport json, os\nassert json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "print(json.dumps({'status': {'token': os.environ['WHO']}}))\n"
    )
    plugin.chmod(0o755)
    spec = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./plugin",
        "env": [{"name": "WHO", "value": "me"}],
    }
    path = _kubeconfig(tmp_path, exec=spec)
    assert connect(str(path), None, None).headers == {"Authorization": "Bearer me"}
    with pytest.raises(ProviderError, match=r"credential plug-in .*nowhere gave no credential"):
        connect(str(_kubeconfig(tmp_path, exec={**spec, "command": "./nowhere"})), None, None)


def test_settings() -> None:
    found = settings_of(
        {"kubernetes:config:context": "a", "kubernetes:config:enableSecretMutable": "true", "other": "x"}
    )
    assert (found.context, found.secret_mutable, found.config_map_mutable, found.reachable) == ("a", True, False, True)
    assert not settings_of({"kubernetes:config:kubeconfig": "04da6b54-80e4-46f7-96ec-b56ff0331ba9"}).reachable
    same = {"clusterIdentifier": "x", "context": "a"}
    assert replaced_settings(same, {**same, "version": "4"}) == ([], [])
    assert replaced_settings(same, {**same, "context": "b"}) == (["context"], [])
    assert replaced_settings(same, {**same, "clusterIdentifier": "y"}) == (["clusterIdentifier"], ["clusterIdentifier"])
    assert replaced_settings({"context": "a"}, {"context": "b"}) == (["context"], ["context"])


def test_what_the_standin_cannot_do_of_a_chart() -> None:
    found = chart.chart_args({"chart": "./x", "resourcePrefix": ""}, "name", "default")
    assert (found.name, found.namespace, found.prefix) == ("name", "default", "")
    with pytest.raises(ProviderError, match="postRenderer, verify"):
        chart.chart_args({"chart": "./x", "postRenderer": {"command": "sed"}, "verify": True}, "name", "default")


@pytest.mark.parametrize("launcher", ["pulumi-resource-kubernetes", "pulumi-language-python"])
def test_a_plugin_starts_quickly_and_leaves_with_its_engine(launcher: str) -> None:
    program = Path(__file__).parents[2] / "toolchain" / "standins" / "bin" / launcher
    best = 9.0
    for _ in range(3):
        started = time.monotonic()
        process = subprocess.Popen([str(program), "127.0.0.1:1"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        best = min(best, time.monotonic() - started)
        process.terminate()
        assert process.wait(timeout=2) == 0
        process.stdout.close()
    assert best < 0.5
