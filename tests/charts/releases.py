"""What the chart tests render: both cores, with and without 4G."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mvnobox.deploy.images import references
from mvnobox.deploy.rendering import manifests
from mvnobox.render import (
    BrandEdge,
    BrandPlan,
    CoreSlice,
    DiameterPeer,
    Epc,
    Images,
    Mme,
    Outside,
    Partner,
    PlatformPlan,
    Release,
    Roaming,
    SbiTls,
    Subscribers,
    brand_releases,
    platform_releases,
)
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Images(**references())
# Environments of their own: an API server compares with what is there, as in `dev` where a brand may be installed.
PLATFORM = PlatformPlan("sim", IMAGES)
BRAND = BrandPlan("sim", load_brand(ROOT / "brands/silverline.yaml"), IMAGES)
OPEN5GS = dataclasses.replace(IMAGES, sctp="localhost/mvno/sctp:1")
REAL_PLATFORM = dataclasses.replace(
    PLATFORM, env="real", images=OPEN5GS, core="open5gs", slices=(CoreSlice.of(BRAND.brand),)
)
REAL_BRAND = dataclasses.replace(BRAND, env="real", images=OPEN5GS, core="open5gs")
EPC = Epc(
    realm="epc.mnc093.mcc208.3gppnetwork.org",
    brands=(BRAND.brand.name,),
    peers=(DiameterPeer("mme.host.example", "host.example", "198.51.100.7"),),
    host_networks=("198.51.100.0/24",),
    serving_gateway=True,
    test_peers=True,
)
EPC_PLATFORM = dataclasses.replace(REAL_PLATFORM, env="lte", epc=EPC)
ROAMING = Roaming(
    "208", "93", "sepp-tls", (Partner("262", "01", ("203.0.113.0/28",), address="203.0.113.7"),), service="LoadBalancer"
)
EDGE_PLATFORM = dataclasses.replace(REAL_PLATFORM, env="edge", roaming=ROAMING, monitoring_namespace="monitoring")
SUBSCRIBERS = Subscribers.of_setting(
    "mongodb://u:p@m-0.m.db.svc.cluster.local,198.51.100.9:27018/open5gs?tls=true&tlsCAFile=/etc/mvno-mongodb/ca.crt",
    tls_secret="mongodb-ca",
)
OWN_PLATFORM = dataclasses.replace(EPC_PLATFORM, env="own", subscribers=SUBSCRIBERS)
EPC_BRAND = dataclasses.replace(REAL_BRAND, env="lte", epc=EPC)
OUTSIDE = Outside(
    "ExternalIPs",
    "203.0.113.19",
    (BrandEdge(BRAND.brand.name, "203.0.113.20", "203.0.113.21"),),
    (("a.example/b", "c"),),
)
OUTSIDE_EPC = dataclasses.replace(EPC, outside=OUTSIDE)
# UEs with IPv6 addresses besides, on both cores and over 4G.
_NETWORKS = [one.model_copy(update={"pool6": "fd45:6a70:1c00::/48"}) for one in BRAND.brand.data_networks]
SIX = BRAND.brand.model_copy(update={"data_networks": _NETWORKS})
SIX_BRAND = dataclasses.replace(BRAND, env="six", brand=SIX)
SIX_REAL_BRAND = dataclasses.replace(EPC_BRAND, env="sixreal", brand=SIX)
SIX_OUT_BRAND = dataclasses.replace(SIX_REAL_BRAND, env="sixout", epc=OUTSIDE_EPC)
SIMULATED = [*platform_releases(PLATFORM), *brand_releases(dataclasses.replace(BRAND, directory_login=True))]
REAL = [
    release
    for release in [*platform_releases(REAL_PLATFORM), *brand_releases(REAL_BRAND)]
    if release.chart in ("open5gs", "ueransim")
]
WITH_4G = [
    release
    for release in [*platform_releases(EPC_PLATFORM), *brand_releases(EPC_BRAND)]
    if release.chart in ("open5gs", "ocs", "hostnetwork")
]
EDGE = [
    release
    for release in [
        *platform_releases(EDGE_PLATFORM),
        *brand_releases(dataclasses.replace(REAL_BRAND, env="edge", monitoring_namespace="monitoring")),
    ]
    if release.chart == "open5gs"
]


def outside(epc: Epc) -> list[Release]:
    """4G towards a host network outside of the cluster."""
    plans = [
        *platform_releases(dataclasses.replace(EPC_PLATFORM, env="out", epc=epc)),
        *brand_releases(dataclasses.replace(EPC_BRAND, env="out", epc=epc)),
    ]
    return [release for release in plans if release.chart in ("open5gs", "ocs", "hostnetwork")]


OUT = outside(OUTSIDE_EPC)
TLS_PLATFORM = dataclasses.replace(EDGE_PLATFORM, env="tls", sbi_tls=SbiTls())
TLS_BRAND = dataclasses.replace(REAL_BRAND, env="tls", sbi_tls=SbiTls())
SECURED = [
    release
    for release in [*platform_releases(TLS_PLATFORM), *brand_releases(TLS_BRAND)]
    if release.chart in ("open5gs", "directory")
]
OWN = [release for release in platform_releases(OWN_PLATFORM) if release.chart in ("open5gs", "directory")]
# eNBs of one's own.
ENBS = "192.0.2.0/24"
MME_EPC = dataclasses.replace(EPC, mme=Mme((("silverline", BRAND.brand.name),), (ENBS,)))
MME_PLATFORM = dataclasses.replace(EPC_PLATFORM, env="mme", epc=MME_EPC)
WITH_MME = [release for release in platform_releases(MME_PLATFORM) if release.chart == "open5gs"]
# The directory asks its readers for a password, and speaks TLS with them.
LOGIN_PLATFORM = dataclasses.replace(EPC_PLATFORM, env="login", sbi_tls=SbiTls(), directory_login=True)
LOGIN = [release for release in platform_releases(LOGIN_PLATFORM) if release.chart in ("open5gs", "directory")]
WITH_IPV6 = [
    release
    for plan in (SIX_BRAND, SIX_REAL_BRAND, SIX_OUT_BRAND)
    for release in brand_releases(plan)
    if release.chart in ("open5gs", "coresim")
]
RELEASES = [*SIMULATED, *REAL, *WITH_4G, *EDGE, *OUT, *SECURED, *OWN, *WITH_MME, *LOGIN, *WITH_IPV6]


def objects(helm: Path, release: Release) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(manifests(helm, release)) if one]


def placed(helm: Path, releases: Iterable[Release]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The objects of releases by kind, namespace and name."""
    return {
        (one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]): one
        for release in releases
        for one in objects(helm, release)
    }


def peers_of(rules: list[dict[str, Any]], way: str) -> set[tuple[str, Any]]:
    """(A pod's name or an address block, port) of a policy's rules, DNS apart; `way`: from or to."""
    pairs = set()
    for rule in rules:
        for peer in rule[way]:
            pod = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
            who = peer["ipBlock"]["cidr"] if "ipBlock" in peer else pod
            # A pod's name alone would let in every namespace's.
            assert "ipBlock" in peer or "namespaceSelector" in peer
            pairs |= {(who, port["port"]) for port in rule["ports"] if port["port"] != 53}
    return pairs
