"""4G's objects: who may reach whom, which program runs with which files, how it is probed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.render import brand_releases, platform_releases

sys.path.insert(0, str(Path(__file__).parent))
from releases import EPC, EPC_BRAND, EPC_PLATFORM, REAL_BRAND, REAL_PLATFORM, ROOT, WITH_4G, objects, peers_of

HOST = "198.51.100.0/24"
# Ingress of each function: (from, port), where from is a pod's name or an address block.
INGRESS = {
    "hss": {(HOST, "diameter"), ("hostnetwork", "diameter")},
    "pcrf": {("pgwc", "diameter")},
    "sgwc": {(HOST, "gtpc"), ("pgwc", "gtpc"), ("sgwu", "pfcp")},
    "sgwu": {(HOST, "gtpu"), ("upf", "gtpu"), ("sgwc", "pfcp")},
    "pgwc": {(HOST, "gtpc"), ("sgwc", "gtpc"), ("upf", "pfcp"), ("hostnetwork", "gtpc")},
    "upf": {
        ("ctf", "pfcp"), ("ctf", "shaper"), ("ran", "gtpu"), ("pgwc", "pfcp"), ("sgwu", "gtpu"), (HOST, "gtpu"), ("hostnetwork", "gtpu"),
    },
    "hostnetwork": {("pgwc", "gtpc"), ("upf", "gtpu")},
}  # fmt: skip
EGRESS = {
    "hss": {(HOST, 3868), ("directory", 27017)},
    "pcrf": {("directory", 27017)},
    "sgwc": {(HOST, 2123), ("pgwc", 2123), ("sgwu", 8805)},
    "sgwu": {(HOST, 2152), ("upf", 2152), ("sgwc", 8805)},
    "pgwc": {(HOST, 2123), ("sgwc", 2123), ("hostnetwork", 2123), ("upf", 8805), ("pcrf", 3868), ("ocs", 3868)},
    "hostnetwork": {("hss", 3868), ("pgwc", 2123), ("upf", 2152)},
}


@pytest.fixture(scope="session")
def found(helm: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of a platform and a brand with 4G, by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for release in WITH_4G for one in objects(helm, release)}


@pytest.mark.parametrize("name", INGRESS)
def test_only_who_must_gets_in(found: dict[tuple[str, str], dict[str, Any]], name: str) -> None:
    assert peers_of(found["NetworkPolicy", name]["spec"]["ingress"], "from") == INGRESS[name]


@pytest.mark.parametrize("name", EGRESS)
def test_only_where_it_must_gets_out(found: dict[tuple[str, str], dict[str, Any]], name: str) -> None:
    assert peers_of(found["NetworkPolicy", name]["spec"]["egress"], "to") == EGRESS[name]


def test_a_test_peer_is_its_own_brands(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The HSS serves every brand's; a packet gateway and a user plane those of their own namespace's."""
    homes = {"pgwc": "silverline-lte-up", "upf": "silverline-lte-up"}
    for name, home in homes.items():
        for rule in found["NetworkPolicy", name]["spec"]["ingress"]:
            for peer in rule["from"]:
                if peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name") == "hostnetwork":
                    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": home}
    pod = found["Deployment", "hostnetwork"]["spec"]["template"]
    assert pod["metadata"]["annotations"]["mvno.box/test-peer"] == "true"
    (container,) = pod["spec"]["containers"]
    assert container["args"][:3] == ["-m", "mvnobox.core.hostnetwork", "serve"]
    config = found["ConfigMap", "hostnetwork-config"]["data"]["hostnetwork.yaml"]
    assert container["args"][-1] == "/etc/mvno/hostnetwork.yaml" and "a test peer, not a network" in config


def test_without_test_peers_nobody_lets_them_in(helm: Path) -> None:
    plain = dataclasses.replace(EPC, test_peers=False)
    plans = [
        *platform_releases(dataclasses.replace(EPC_PLATFORM, epc=plain)),
        *brand_releases(dataclasses.replace(EPC_BRAND, epc=plain)),
    ]
    assert "hostnetwork" not in {release.chart for release in plans}
    for release in plans:
        if release.chart == "open5gs":
            assert "hostnetwork" not in str(objects(helm, release))


def test_gy_is_for_packet_gateways(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    rules = found["NetworkPolicy", "ocs"]["spec"]["ingress"]
    gy = [rule for rule in rules if rule["ports"] == [{"port": "diameter"}]]
    assert peers_of(gy, "from") == {("pgwc", "diameter")}
    ports = {port["name"]: port["port"] for port in found["Service", "ocs"]["spec"]["ports"]}
    assert ports == {"http": 8080, "diameter": 3868}


@pytest.mark.parametrize("name", ["hss", "pcrf", "sgwc", "sgwu", "pgwc"])
def test_programs_probes_and_files(found: dict[tuple[str, str], dict[str, Any]], name: str) -> None:
    (container,) = found["Deployment", name]["spec"]["template"]["spec"]["containers"]
    program = "smf" if name == "pgwc" else name
    assert container["command"] == [f"open5gs-{program}d", "-c", f"/etc/mvno/{name}.yaml"]
    assert ("exec" in container["livenessProbe"]) == name.startswith("sgw")
    files = found["ConfigMap", f"{name}-config"]["data"]
    config = yaml.safe_load(files[f"{name}.yaml"])[program]
    if name in ("hss", "pcrf", "pgwc"):
        assert config["freeDiameter"] == f"/etc/mvno/{name}.conf" and f"{name}.conf" in files
    for file, text in files.items():
        # What a file names beside it is there.
        for other in ("hss.acl", "pcrf.acl"):
            assert f"/etc/mvno/{other}" not in text or other in files, file


def test_a_diameter_file_rolls_its_pods(helm: Path) -> None:
    release = next(one for one in WITH_4G if one.namespace == "platform-lte" and one.name == "core")

    def checksum(values: dict[str, Any]) -> str:
        done = subprocess.run(
            [str(helm), "template", "core", str(ROOT / "charts/open5gs"), "--values", "-"],
            input=yaml.safe_dump(values), capture_output=True, text=True, check=True,
        )  # fmt: skip
        objects = [one for one in yaml.safe_load_all(done.stdout) if one]
        hss = next(one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"] == "hss")
        return str(hss["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    values = yaml.safe_load(yaml.safe_dump(dict(release.values)))
    before = checksum(values)
    hss = next(one for one in values["functions"] if one["name"] == "hss")
    hss["files"]["hss.acl"] += "ALLOW_IPSEC other.host.example\n"
    assert checksum(values) != before


@pytest.mark.parametrize("network", ["0.0.0.0/0", "198.51.100.0", "everybody"])
def test_host_networks_that_are_refused(helm: Path, network: str) -> None:
    command = [str(helm), "template", "x", str(ROOT / "charts/open5gs"), "--set", f"epc.hostNetworks={{{network}}}"]
    done = subprocess.run([*command, "--set", "epc.enabled=true"], capture_output=True, text=True)
    assert done.returncode != 0 and "hostNetworks" in done.stderr


def test_without_4g_there_is_none_of_it(helm: Path) -> None:
    for release in [*platform_releases(REAL_PLATFORM), *brand_releases(REAL_BRAND)]:
        for one in objects(helm, release):
            assert one["metadata"]["name"] not in EGRESS
            assert one["kind"] != "NetworkPolicy" or not {"pgwc", "sgwu"} & {name for name, _ in _named(one["spec"])}


def _named(spec: dict[str, Any]) -> set[tuple[str, Any]]:
    """What a policy's rules name, where they have ports and pods by name."""
    pairs: set[tuple[str, Any]] = set()
    for rules, way in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(rules) or []:
            for peer in rule.get(way, []):
                name = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
                pairs.add((name, way))
    return pairs
