"""An MME's objects: S1 is open to eNBs, what it asks knows it, and nobody waits for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from releases import ENBS, WITH_4G, WITH_MME, objects, peers_of

HOST = "198.51.100.0/24"
INGRESS = {
    "mme": {(ENBS, "s1"), ("sgwc", "gtpc")},
    "hss": {(HOST, "diameter"), ("hostnetwork", "diameter"), ("mme", "diameter")},
    "sgwc": {(HOST, "gtpc"), ("pgwc", "gtpc"), ("mme", "gtpc"), ("sgwu", "pfcp")},
    "sgwu": {(HOST, "gtpu"), (ENBS, "gtpu"), ("upf", "gtpu"), ("sgwc", "pfcp")},
}
EGRESS = {
    "mme": {("hss", 3868), ("sgwc", 2123)},
    "sgwc": {(HOST, 2123), ("pgwc", 2123), ("mme", 2123), ("sgwu", 8805)},
    "sgwu": {(HOST, 2152), (ENBS, 2152), ("upf", 2152), ("sgwc", 8805)},
}
Found = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def found(helm: Path) -> Found:
    return {(one["kind"], one["metadata"]["name"]): one for release in WITH_MME for one in objects(helm, release)}


@pytest.mark.parametrize("name", INGRESS)
def test_only_who_must_gets_in(found: Found, name: str) -> None:
    assert peers_of(found["NetworkPolicy", name]["spec"]["ingress"], "from") == INGRESS[name]


@pytest.mark.parametrize("name", EGRESS)
def test_only_where_it_must_gets_out(found: Found, name: str) -> None:
    assert peers_of(found["NetworkPolicy", name]["spec"]["egress"], "to") == EGRESS[name]


def test_it_runs_over_sctp_with_its_files_and_nobody_waits_for_it(found: Found) -> None:
    deployment = found["Deployment", "mme"]
    # It needs brands' packet gateways, which come after the platform.
    assert deployment["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}
    assert all("annotations" not in found["Deployment", name]["metadata"] for name in ("hss", "sgwc", "amf"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["open5gs-mmed", "-c", "/etc/mvno/mme.yaml"]
    # The laboratory's node has no SCTP.
    assert {"name": "LD_PRELOAD", "value": "/run/sctp/libsctp-over-tcp.so"} in container["env"]
    assert "DB_URI" not in str(container)
    files = found["ConfigMap", "mme-config"]["data"]
    assert yaml.safe_load(files["mme.yaml"])["mme"]["freeDiameter"] == "/etc/mvno/mme.conf" and "mme.conf" in files
    ports = {port["name"]: (port["port"], port["protocol"]) for port in found["Service", "mme"]["spec"]["ports"]}
    assert ports == {"s1": (36412, "TCP"), "gtpc": (2123, "UDP"), "metrics": (9090, "TCP")}
    assert ("PodDisruptionBudget", "mme") in found


def test_without_it_nobody_knows_of_one(helm: Path) -> None:
    for release in WITH_4G:
        if release.chart == "open5gs":
            made = objects(helm, release)
            assert ENBS not in str(made) and not [one for one in made if one["metadata"]["name"].startswith("mme")]
            assert "name: mme\n" not in yaml.safe_dump_all(made)
