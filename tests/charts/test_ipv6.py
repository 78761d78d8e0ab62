"""IPv6 for UEs: forwarding in the user plane's pod, GTP-U between it and session management, ways out."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from releases import REAL, SIMULATED, WITH_4G, WITH_IPV6, objects, placed

OUT6 = {"ipBlock": {"cidr": "2000::/3", "except": ["2002::/16"]}}
CORES = ["six", "sixreal", "sixout"]


@pytest.fixture(scope="session")
def found(helm: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The objects by kind, namespace and name, where the kubelet allows the user plane's sysctls."""
    return placed(helm, [dataclasses.replace(one, values={**one.values, "forwarding": "sysctl"}) for one in WITH_IPV6])


def _pairs(rules: list[dict[str, Any]], way: str, port: object) -> set[str]:
    """The pods that a policy's rules name for a port, each with its namespace."""
    names = set()
    for rule in rules:
        if port in [one["port"] for one in rule.get("ports", [])]:
            for peer in rule[way]:
                space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
                if space is not None:
                    names.add(f"{space}/{peer['podSelector']['matchLabels']['app.kubernetes.io/name']}")
    return names


@pytest.mark.parametrize("env", CORES)
def test_the_user_plane_forwards_both_families(found: dict[tuple[str, str, str], dict[str, Any]], env: str) -> None:
    pod = found["Deployment", f"silverline-{env}-up", "upf"]["spec"]["template"]["spec"]
    sysctls = {one["name"]: one["value"] for one in pod["securityContext"]["sysctls"]}
    assert sysctls == {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}


@pytest.mark.parametrize(
    ("env", "managers"),
    [
        ("six", {"silverline-six/smf"}),
        ("sixreal", {"silverline-sixreal/smf", "silverline-sixreal/pgwc"}),
        # Dialled from outside, the packet gateway is beside the UPF.
        ("sixout", {"silverline-sixout/smf", "silverline-sixout-up/pgwc"}),
    ],
)
def test_solicitations_go_to_session_management_and_advertisements_back(
    found: dict[tuple[str, str, str], dict[str, Any]], env: str, managers: set[str]
) -> None:
    plane = f"silverline-{env}-up"
    upf = found["NetworkPolicy", plane, "upf"]["spec"]
    assert managers <= _pairs(upf["ingress"], "from", "gtpu") and managers <= _pairs(upf["egress"], "to", 2152)
    for home, name in (one.split("/") for one in managers):
        policy = found["NetworkPolicy", home, name]["spec"]
        assert _pairs(policy["ingress"], "from", "gtpu") == {f"{plane}/upf"}
        assert _pairs(policy["egress"], "to", 2152) == {f"{plane}/upf"}
        ports = {port["name"]: port["port"] for port in found["Service", home, name]["spec"]["ports"]}
        assert ports["gtpu"] == 2152
        container = found["Deployment", home, name]["spec"]["template"]["spec"]["containers"][0]
        assert {"name": "gtpu", "containerPort": 2152, "protocol": "UDP"} in container["ports"]


@pytest.mark.parametrize("env", CORES)
def test_customers_go_to_the_internet_alone(found: dict[tuple[str, str, str], dict[str, Any]], env: str) -> None:
    egress = found["NetworkPolicy", f"silverline-{env}-up", "upf"]["spec"]["egress"]
    blocks = [peer for rule in egress for peer in rule["to"] if "ipBlock" in peer and "ports" not in rule]
    assert OUT6 in blocks and len(blocks) == 2


def test_without_ipv6_there_is_none_of_it(helm: Path) -> None:
    for release in [*SIMULATED, *REAL, *WITH_4G]:
        if release.chart in ("coresim", "open5gs"):
            for one in objects(helm, release):
                assert "2000::" not in str(one["spec"] if one["kind"] == "NetworkPolicy" else "")
                assert "net.ipv6" not in str(one.get("spec", {}).get("template", {}))
                if one["kind"] == "Service" and one["metadata"]["name"] in ("smf", "pgwc"):
                    assert "gtpu" not in {port["name"] for port in one["spec"]["ports"]}
