"""A MongoDB of one's own: who gets its URI, from where, and who may go there."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from releases import OWN, WITH_4G, objects

HOME, READERS = "platform-own", {"udr", "pcf", "hss", "pcrf"}
WHERE = {
    "to": [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "db"}}},
        {"ipBlock": {"cidr": "198.51.100.9/32"}},
    ],
    "ports": [{"port": 27017, "protocol": "TCP"}, {"port": 27018, "protocol": "TCP"}],
}


@pytest.fixture(scope="session")
def found(helm: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for release in OWN for one in objects(helm, release)}


def test_who_reads_subscribers_gets_the_uri_from_the_secret(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    reference = {"name": "DB_URI", "valueFrom": {"secretKeyRef": {"name": "subscribers", "key": "DB_URI"}}}
    readers = set()
    for (kind, name), one in found.items():
        if kind != "Deployment" or name == "directory":
            continue
        pod = one["spec"]["template"]["spec"]
        container = pod["containers"][0]
        if reference in container.get("env", []):
            readers.add(name)
            mount = {"name": "mongodb-tls", "mountPath": "/etc/mvno-mongodb", "readOnly": True}
            assert mount in container["volumeMounts"]
            assert {"name": "mongodb-tls", "secret": {"secretName": "mongodb-ca", "defaultMode": 0o440}} in pod[
                "volumes"
            ]
        else:
            assert "mongodb-tls" not in str(pod) and "DB_URI" not in str(pod)
    assert readers == READERS
    assert ("Secret", "subscribers") not in found and "u:p@" not in str(found)


def test_the_directory_writes_there(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    pod = found["Deployment", "directory"]["spec"]["template"]["spec"]
    assert {"name": "mongodb-tls", "secret": {"secretName": "mongodb-ca", "defaultMode": 0o440}} in pod["volumes"]
    assert WHERE in found["NetworkPolicy", "directory"]["spec"]["egress"]


def test_readers_are_let_out_to_it_and_not_to_the_directory(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    for (kind, name), one in found.items():
        if kind == "NetworkPolicy" and name != "directory":
            assert (WHERE in one["spec"].get("egress", [])) is (name in READERS)
            assert "'directory'" not in str(one["spec"].get("egress"))


def test_another_uri_rolls_those_who_read_it(helm: Path) -> None:
    (core,) = [release for release in OWN if release.chart == "open5gs"]

    def sums(checksum: str) -> dict[str, str | None]:
        release = dataclasses.replace(core, values={**core.values, "secretChecksum": checksum})
        deployments = [one for one in objects(helm, release) if one["kind"] == "Deployment"]
        return {
            one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"].get("checksum/secret")
            for one in deployments
        }

    one, other = sums("one"), sums("other")
    assert {name for name in one if one[name] != other[name]} == READERS


def test_without_it_readers_go_to_the_directory(helm: Path) -> None:
    there = {"app.kubernetes.io/name": "directory"}
    for release in WITH_4G:
        for one in objects(helm, release):
            if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] in READERS:
                rules = [r for r in one["spec"]["egress"] if r.get("ports") == [{"port": 27017}]]
                assert [r["to"][0]["podSelector"]["matchLabels"] for r in rules] == [there]
