"""Canonical forms, as the apiserver stores them."""

from __future__ import annotations

import base64
import copy

import pytest

from kubernetes_provider.normal import normalise, quantity


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("0.01", "10m"),
        (0.5, "500m"),
        (1, "1"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("2000", "2k"),
        ("1000000", "1M"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("16777216", "16777216"),
        ("1024", "1024"),
        ("0", "0"),
        ("0Mi", "0"),
        ("1e3", "1e3"),
        ("1500e-3", "1500e-3"),
        ("100u", "100u"),
        ("-0.1", "-100m"),
        ("0.1n", "1n"),
        ("many", "many"),
        ("", ""),
    ],
)
def test_quantities(given: str | float, canonical: str) -> None:
    assert quantity(given) == canonical


def test_quantities_where_they_are_and_nowhere_else() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"labels": {"limits": "1000m"}},
        "spec": {
            "volumes": [{"name": "m", "emptyDir": {"sizeLimit": "1024Ki"}}],
            "containers": [
                {"resources": {"limits": {"cpu": 0.5}, "requests": {"memory": "1024Ki"}}, "args": ["1000m"]}
            ],
        },
    }
    before = copy.deepcopy(pod)
    result = normalise(pod)
    container = result["spec"]["containers"][0]
    assert container == {"resources": {"limits": {"cpu": "500m"}, "requests": {"memory": "1Mi"}}, "args": ["1000m"]}
    assert result["spec"]["volumes"] == [{"name": "m", "emptyDir": {"sizeLimit": "1Mi"}}]
    assert result["metadata"] == {"labels": {"limits": "1000m"}}
    assert pod == before


def test_a_secret_has_data_only() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "data": {"a": "YQ==\n", "b": "Yg=="},
        "stringData": {"b": "B", "e": ""},
    }
    assert normalise(secret) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "data": {"a": "YQ==", "b": base64.b64encode(b"B").decode(), "e": ""},
    }


def test_what_the_server_leaves_out() -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "annotations": {}, "creationTimestamp": None, "uid": "1"},
        "spec": {"podSelector": {}, "ingress": [], "egress": [{}]},
    }
    assert normalise(policy) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "a"},
        "spec": {"podSelector": {}, "egress": [{}]},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"hostNetwork": False, "automountServiceAccountToken": False}}
    assert normalise(pod)["spec"] == {"automountServiceAccountToken": False}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"empty": ""}}
    assert normalise(config) == config
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"storageClassName": ""}}
    assert normalise(claim) == claim


def test_custom_resources_stay_as_they_are() -> None:
    thing = {"apiVersion": "a.example/v1", "kind": "Thing", "spec": {"limits": {"cpu": 0.5}, "none": None, "no": []}}
    assert normalise(thing) == thing
