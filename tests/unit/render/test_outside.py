"""4G towards a host network outside of the cluster: what each function is told, and input that is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.core.hostnetwork.settings import HostNetworkSettings
from mvnobox.errors import BadInput
from mvnobox.render import (
    BrandEdge,
    BrandPlan,
    CoreSlice,
    DiameterPeer,
    Epc,
    Images,
    Outside,
    PlatformPlan,
    Release,
    brand_releases,
    platform_releases,
)
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
IMAGES = Images("kit/services:1", "kit/coresim:1", "kit/postgresql:1")
BRAND, OTHER = (load_brand(ROOT / f"brands/{name}.yaml") for name in ("silverline", "encore"))
REALM = "epc.mnc093.mcc208.3gppnetwork.org"
HSS, PGW, UPF = "203.0.113.19", "203.0.113.20", "203.0.113.21"
OUTSIDE = Outside("ExternalIPs", HSS, (BrandEdge(BRAND.name, PGW, UPF),))
NETWORKS = ("198.51.100.0/24",)
EPC = Epc(REALM, (BRAND.name, OTHER.name), host_networks=NETWORKS, test_peers=True, outside=OUTSIDE)


def brand_plan(epc: Epc = EPC, brand: Any = BRAND) -> BrandPlan:
    return BrandPlan("dev", brand, IMAGES, core="open5gs", epc=epc)


def found(releases: list[Release]) -> dict[str, tuple[str, dict[str, Any]]]:
    """By a function's name: its namespace, and its values."""
    return {
        one["name"]: (release.namespace, one) for release in releases for one in release.values.get("functions", [])
    }


def servers(function: dict[str, Any], program: str, kind: str) -> list[dict[str, str]]:
    return list(yaml.safe_load(function["config"])[program][kind]["server"])


def test_each_function_names_the_address_that_is_dialled() -> None:
    """Open5GS says its socket's address in F-TEIDs (GTP-C) and error indications (GTP-U)."""
    mine = found(brand_releases(brand_plan()))
    for name, program, kind, port, address in (
        ("pgwc", "smf", "gtpc", 2123, PGW),
        ("upf", "upf", "gtpu", 2152, UPF),
    ):
        namespace, function = mine[name]
        # An init container of the pod may have NET_ADMIN in this namespace only.
        assert namespace == f"{BRAND.name}-dev-up"
        assert servers(function, program, kind) == [{"address": address}]
        assert f"ip address replace {address}/32 dev lo\n" in function["prepare"]
        assert f'iifname "eth0" udp dport {port} dnat to {address}\n' in function["prepare"]
        assert f'oifname "eth0" ip saddr {address} masquerade\n' in function["prepare"]
        assert function["outside"] == {
            "type": "ExternalIPs", "address": address, "name": kind, "ports": [{"name": kind, "port": port, "protocol": "UDP"}],
        }  # fmt: skip
    # N4 and the packet gateway's own GTP-U stay the cluster's.
    assert servers(mine["pgwc"][1], "smf", "pfcp") == servers(mine["pgwc"][1], "smf", "gtpu") == [{"dev": "eth0"}]
    assert servers(mine["upf"][1], "upf", "pfcp")[0]["dev"] == "eth0"
    assert mine["smf"][0] == f"{BRAND.name}-dev" and "outside" not in mine["smf"][1]


def test_the_hss_has_an_address_and_nothing_else_of_the_platform() -> None:
    platform = PlatformPlan("dev", IMAGES, core="open5gs", slices=(CoreSlice.of(BRAND),), epc=EPC)
    outside = {
        name: one["outside"] for name, (_, one) in found(platform_releases(platform)).items() if "outside" in one
    }
    port = {"name": "diameter", "port": 3868, "protocol": "TCP"}
    assert outside == {"hss": {"type": "ExternalIPs", "address": HSS, "name": "diameter", "ports": [port]}}
    without = dataclasses.replace(EPC, outside=dataclasses.replace(OUTSIDE, hss=None))
    assert "outside" not in found(platform_releases(dataclasses.replace(platform, epc=without)))["hss"][1]


@pytest.mark.parametrize(
    ("epc", "brand"), [(EPC, OTHER), (dataclasses.replace(EPC, outside=None), BRAND)], ids=["another's", "nobody's"]
)
def test_a_brand_that_is_not_named_stays_inside(epc: Epc, brand: Any) -> None:
    mine = found(brand_releases(brand_plan(epc, brand)))
    namespace, pgwc = mine["pgwc"]
    assert namespace == f"{brand.name}-dev" and not {"outside", "prepare"} & pgwc.keys()
    assert servers(pgwc, "smf", "gtpc") == [{"dev": "eth0"}]
    assert servers(mine["upf"][1], "upf", "gtpu")[0]["advertise"] == f"upf.{brand.name}-dev-up.svc.cluster.local"
    assert "dev lo" not in mine["upf"][1]["prepare"]


@pytest.mark.parametrize(("brand", "home"), [(BRAND, "silverline-dev-up"), (OTHER, "encore-dev")])
def test_whoever_looks_for_the_packet_gateway_finds_it(brand: Any, home: str) -> None:
    releases = brand_releases(brand_plan(brand=brand))
    peer = next(one for one in releases if one.chart == "hostnetwork")
    assert HostNetworkSettings(**yaml.safe_load(peer.values["config"])).pgw == f"pgwc.{home}.svc.cluster.local"
    for release in releases:
        known = {"ctf", "bss"}
        moved = "packetGatewayNamespace" in release.values.get("peers", {})
        assert moved == (brand is BRAND and release.chart not in known | {"tenant"})


def test_customers_do_not_reach_whom_their_user_plane_speaks_gtp_with() -> None:
    """A G-PDU in a customer's own packets would come from the UPF's address; nftables takes no overlapping networks."""
    networks = ("198.51.100.0/24", "198.51.100.128/25", "203.0.113.0/24")
    script = found(brand_releases(brand_plan(dataclasses.replace(EPC, host_networks=networks))))["upf"][1]["prepare"]
    closed = "ip saddr @pools ip daddr { 198.51.100.0/24, 203.0.113.0/24 } drop\n"
    assert closed in script and script.index(closed) < script.index('ip saddr @pools oifname "eth0" accept')
    apart = found(brand_releases(brand_plan()))["upf"][1]["prepare"]
    assert "ip daddr { 198.51.100.0/24, 203.0.113.19/32, 203.0.113.20/31 } drop\n" in apart
    nobody = dataclasses.replace(EPC, host_networks=(), outside=None)
    assert "GTP" not in found(brand_releases(brand_plan(nobody)))["upf"][1]["prepare"]


def test_the_setting_says_it_all() -> None:
    for outside in (OUTSIDE, Outside(hss=HSS, annotations=(("metallb.io/address-pool", "s8"),))):
        epc = dataclasses.replace(EPC, outside=outside)
        assert Epc.of_setting(epc.setting) == epc
    given = {"brands": {BRAND.name: {"pgw": PGW, "upf": UPF}}}
    assert Outside.of_setting(given) == Outside("LoadBalancer", None, OUTSIDE.brands)
    assert Outside.of_setting(None) is None and "outside" not in Epc(REALM).setting


def test_annotations_reach_the_services() -> None:
    noted = dataclasses.replace(OUTSIDE, annotations=(("kube-vip.io/egress", "true"),))
    mine = found(brand_releases(brand_plan(dataclasses.replace(EPC, outside=noted))))
    assert mine["pgwc"][1]["outside"]["annotations"] == {"kube-vip.io/egress": "true"}


def edge(**other: str) -> Outside:
    return Outside(brands=(BrandEdge(BRAND.name, **{"pgw": PGW, "upf": UPF, **other}),))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: edge(pgw="pgw.example.net"), "the packet gateway of 'silverline' outside is 'pgw.example.net'"),
        (lambda: edge(upf="2001:db8::21"), "the UPF of 'silverline' outside is '2001:db8::21'"),
        (lambda: edge(upf="203.0.113.0/24"), "the UPF of 'silverline' outside is '203.0.113.0/24'"),
        (lambda: edge(upf="127.0.0.1"), "nobody can dial"),
        (lambda: edge(upf="224.0.0.1"), "nobody can dial"),
        (lambda: edge(upf="0.0.0.0"), "nobody can dial"),
        (lambda: edge(upf="255.255.255.255"), "reserved"),
        (lambda: edge(upf=PGW), f"the address {PGW} is there twice"),
        (lambda: dataclasses.replace(OUTSIDE, hss=UPF), f"the address {UPF} is there twice"),
        (
            lambda: dataclasses.replace(OUTSIDE, brands=(*OUTSIDE.brands, BrandEdge(OTHER.name, "203.0.113.30", PGW))),
            f"the address {PGW} is there twice",
        ),
        (lambda: dataclasses.replace(OUTSIDE, service="NodePort"), "GTP's ports are 2123 and 2152"),
        (lambda: dataclasses.replace(OUTSIDE, service="HostPort"), "no host ports"),
        (lambda: dataclasses.replace(OUTSIDE, service="ClusterIP"), "nobody outside"),
        (lambda: dataclasses.replace(OUTSIDE, service="x"), "the service of 4G outside is 'x'"),
        (lambda: dataclasses.replace(OUTSIDE, annotations=(("a key", "x"),)), "an annotation outside"),
        (lambda: Outside(), "no address"),
        (lambda: dataclasses.replace(EPC, host_networks=()), "no hostNetworks"),
        (lambda: dataclasses.replace(EPC, brands=(OTHER.name,)), "'silverline' is outside and has no packet gateway"),
        (
            lambda: dataclasses.replace(EPC, peers=(DiameterPeer("mme.host.example", "host.example", HSS),)),
            f"{HSS} is a Diameter peer's address and ours",
        ),
    ],
)
def test_refused(wrong: Any, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)) as refused:
        wrong()
    assert refused.value.remedy


@pytest.mark.parametrize(
    "wrong",
    [
        "203.0.113.20",
        {"brands": [BRAND.name]},
        {"brands": {BRAND.name: PGW}},
        {"brands": {BRAND.name: {"pgw": PGW}}},
        {"brands": {BRAND.name: {"pgw": PGW, "upf": UPF, "sgw": HSS}}},
        {"hss": HSS, "service": "ExternalIPs", "address": PGW},
        {"hss": HSS, "annotations": "x"},
        {"hss": None},
        {"hss": 5},
        {"hss": HSS, "annotations": {"a": 1}},
    ],
)
def test_settings_that_are_refused(wrong: Any) -> None:
    with pytest.raises(BadInput, match="outside"):
        Epc.of_setting({"realm": REALM, "brands": [BRAND.name], "hostNetworks": list(NETWORKS), "outside": wrong})
