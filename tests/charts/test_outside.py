"""4G towards a host network outside of the cluster: Services, who is let in, and what the pods get for it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.render import DiameterPeer, platform_releases

sys.path.insert(0, str(Path(__file__).parent))
from releases import EPC_PLATFORM, IMAGES, OUT, OUTSIDE, OUTSIDE_EPC, ROOT, WITH_4G, outside, placed

PLATFORM, HOME, UP = "platform-out", "silverline-out", "silverline-out-up"
REACHED = {
    (PLATFORM, "hss-diameter"): ("203.0.113.19", "diameter", 3868, "TCP"),
    (UP, "pgwc-gtpc"): ("203.0.113.20", "gtpc", 2123, "UDP"),
    (UP, "upf-gtpu"): ("203.0.113.21", "gtpu", 2152, "UDP"),
}
GTPC = {"name": "gtpc", "port": 2123, "protocol": "UDP"}
Found = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def found(helm: Path) -> Found:
    return placed(helm, OUT)


def test_only_hss_packet_gateway_and_user_plane_are_reached(found: Found) -> None:
    """With the peers' own addresses: policies and GTP go by them."""
    open_ones = {
        key[1:]: one["spec"]
        for key, one in found.items()
        if key[0] == "Service"
        and (one["spec"].get("externalIPs") or one["spec"].get("type", "ClusterIP") != "ClusterIP")
    }
    assert set(open_ones) == set(REACHED)
    for key, (address, name, port, protocol) in REACHED.items():
        spec = open_ones[key]
        assert spec["externalIPs"] == [address] and "loadBalancerIP" not in spec
        assert spec["externalTrafficPolicy"] == "Local" and spec["type"] == "ClusterIP"
        assert spec["ports"] == [{"name": name, "port": port, "targetPort": name, "protocol": protocol}]
        assert found["Service", *key]["metadata"]["annotations"] == {"a.example/b": "c"}
        function = key[1].partition("-")[0]
        labels = found["Deployment", key[0], function]["spec"]["template"]["metadata"]["labels"]
        assert spec["selector"].items() <= labels.items()


def test_a_load_balancer_gets_the_address_to_take(helm: Path) -> None:
    other = dataclasses.replace(
        OUTSIDE_EPC, outside=dataclasses.replace(OUTSIDE, service="LoadBalancer", annotations=())
    )
    services = placed(helm, outside(other))
    for key, (address, *_) in REACHED.items():
        one = services["Service", *key]
        assert (one["spec"]["type"], one["spec"]["loadBalancerIP"]) == ("LoadBalancer", address)
        assert one["spec"]["externalTrafficPolicy"] == "Local" and "externalIPs" not in one["spec"]
        assert "annotations" not in one["metadata"]


def test_the_packet_gateway_is_where_its_pod_may_have_the_address(found: Found) -> None:
    assert ("Deployment", HOME, "pgwc") not in found and ("Deployment", HOME, "smf") in found
    pod = found["Deployment", UP, "pgwc"]["spec"]["template"]["spec"]
    (init,) = pod["initContainers"]
    assert init["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    # The pod is one of the restricted standard otherwise; this one container is root.
    assert (init["securityContext"]["runAsUser"], init["securityContext"]["runAsNonRoot"]) == (0, False)
    assert [mount["name"] for mount in init["volumeMounts"]] == ["config"]
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True and "tun" not in {one["name"] for one in pod["volumes"]}


def peers(policy: dict[str, Any], way: str, name: str) -> set[str]:
    """The namespaces in which a policy names pods of a name."""
    rules = policy["spec"]["ingress" if way == "from" else "egress"]
    return {
        peer["namespaceSelector"]["matchLabels"].get("kubernetes.io/metadata.name", "every brand's")
        for rule in rules
        for peer in rule[way]
        if peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name") == name
    }


@pytest.mark.parametrize("way", ["from", "to"])
def test_whoever_speaks_with_the_packet_gateway_knows_where_it_is(found: Found, helm: Path, way: str) -> None:
    for name in ("upf", "hostnetwork"):
        assert peers(found["NetworkPolicy", UP, name], way, "pgwc") == {UP}
    inside = placed(helm, WITH_4G)
    for name in ("upf", "hostnetwork"):
        assert peers(inside["NetworkPolicy", "silverline-lte-up", name], way, "pgwc") == {"silverline-lte"}
    # Theirs are all brands'.
    assert peers(found["NetworkPolicy", PLATFORM, "pcrf"], "from", "pgwc") == {"every brand's"}
    assert peers(found["NetworkPolicy", PLATFORM, "ocs"], "from", "pgwc") == {"every brand's"}
    assert ("NetworkPolicy", HOME, "pgwc") not in found


@pytest.mark.parametrize("key", REACHED)
def test_the_host_network_is_let_in_and_nobody_else_from_outside(found: Found, key: tuple[str, str]) -> None:
    policy = found["NetworkPolicy", key[0], key[1].partition("-")[0]]["spec"]
    _, name, _, protocol = REACHED[key]
    blocks = [rule for rule in policy["ingress"] if any("ipBlock" in peer for peer in rule["from"])]
    assert blocks == [
        {"from": [{"ipBlock": {"cidr": "198.51.100.0/24"}}], "ports": [{"port": name, "protocol": protocol}]}
    ]


def test_the_hss_may_go_where_its_peers_listen(helm: Path) -> None:
    away = dataclasses.replace(
        OUTSIDE_EPC, peers=(DiameterPeer("mme.host.example", "host.example", "198.51.100.7", 3869),)
    )
    policy = placed(helm, outside(away))["NetworkPolicy", PLATFORM, "hss"]["spec"]
    (rule,) = (one for one in policy["egress"] if any("ipBlock" in peer for peer in one["to"]))
    assert rule["ports"] == [{"port": 3869, "protocol": "TCP"}]


def test_peers_of_tls_and_sctp_dial_their_own_ports(helm: Path) -> None:
    secured = DiameterPeer("mme.host.example", "host.example", "198.51.100.7", tls=True)
    streams = DiameterPeer("dra.host.example", "host.example", transport="SCTP")
    epc = dataclasses.replace(OUTSIDE_EPC, peers=(secured, streams), tls_secret="hss-tls", test_peers=False)
    plan = dataclasses.replace(EPC_PLATFORM, env="out", epc=epc, images=IMAGES)
    found = placed(helm, [release for release in platform_releases(plan) if release.chart == "open5gs"])
    dialled = [("diameters", 5868, "TCP"), ("diameter-sctp", 3868, "SCTP")]
    service = found["Service", PLATFORM, "hss-diameter"]["spec"]
    assert [(one["targetPort"], one["port"], one["protocol"]) for one in service["ports"]] == dialled
    policy = found["NetworkPolicy", PLATFORM, "hss"]["spec"]
    let_in, let_out = (
        [port for rule in policy[way] for port in rule["ports"] if any("ipBlock" in one for one in rule[side])]
        for way, side in (("ingress", "from"), ("egress", "to"))
    )
    assert {(one["port"], one["protocol"]) for one in let_in} == {("diameters", "TCP"), ("diameter-sctp", "SCTP")}
    assert let_out == [{"port": 5868, "protocol": "TCP"}]
    pod = found["Deployment", PLATFORM, "hss"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    named = {one["name"]: (one["containerPort"], one["protocol"]) for one in container["ports"]}
    assert {(name, *named[name]) for name, _, _ in dialled} == set(dialled) and named["diameter"] == (3868, "TCP")
    assert {"name": "tls", "mountPath": "/etc/mvno-tls", "readOnly": True} in container["volumeMounts"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "tls")
    assert volume["secret"]["secretName"] == "hss-tls"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "HostPort", "name": "gtpc", "ports": [GTPC], "address": "203.0.113.20"},
        {"type": "ExternalIPs", "name": "gtpc", "ports": [GTPC]},
        {"type": "ExternalIPs", "name": "gtpc", "ports": [GTPC], "address": "pgw.example.net"},
        {"type": "LoadBalancer", "name": "gtpc", "ports": [GTPC], "annotations": {"a": 1}},
        {"type": "LoadBalancer", "name": "gtpc", "ports": []},
        {"type": "LoadBalancer", "name": "gtpc", "ports": [{**GTPC, "protocol": "GTP"}]},
    ],
)
def test_values_that_are_refused(helm: Path, block: dict[str, Any]) -> None:
    release = next(one for one in OUT if one.namespace == UP and one.name == "user-plane")
    values = yaml.safe_load(yaml.safe_dump(dict(release.values)))
    values["functions"][0]["outside"] = block
    done = subprocess.run(
        [str(helm), "template", "x", str(ROOT / "charts/open5gs"), "--values", "-"],
        input=yaml.safe_dump(values), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "outside" in done.stderr
