"""Values of the charts `open5gs` and `ueransim`: which network functions there are, and their configurations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mvnobox.errors import BadInput
from mvnobox.render.engine import render_template
from mvnobox.render.epc import Epc, check_halves, diameter_files, pool_ranges
from mvnobox.render.mme import S1_PORT
from mvnobox.render.release import CLUSTER_DOMAIN, Images, image_values
from mvnobox.render.roaming import N32_PORT, Roaming
from mvnobox.render.s6a import DIAMETER, DIAMETER_TLS_PORT, doors, listens
from mvnobox.render.sbi_tls import MOUNTED_AT, SbiTls
from mvnobox.spec import BrandSpec

# UEs that each function makes room for at its start.
UES = 4096
# Open5GS, lib/proto/types.h: OGS_MAX_NUM_OF_PLMN.
MOST_PLMNS = 12
# Each gNB that connects takes the next of 128 places of 12.3 MiB (src/amf/context.c, amf_gnb_pool), which an AMF keeps: gNBs
# that come and go fill all of them.
AMF_MEMORY = "2Gi"
# What a UPF asks for is its weight where processors are scarce: who charges traffic must not hold it up. With 20m like the
# others, TCP on two cores went at two thirds of the rate down and three quarters up.
UPF_CPU = "120m"
# Resolvers of customers whose brand names none.
PUBLIC_DNS = ("9.9.9.9", "149.112.112.112")
PUBLIC_DNS6 = ("2620:fe::fe", "2620:fe::9")
SBI = {"name": "sbi", "port": 7777, "protocol": "TCP"}
METRICS = {"name": "metrics", "port": 9090, "protocol": "TCP"}
PFCP = {"name": "pfcp", "port": 8805, "protocol": "UDP"}
GTPU = {"name": "gtpu", "port": 2152, "protocol": "UDP"}
# The process that slows lines in the UPF's place.
SHAPER = {"name": "shaper", "port": 8095, "protocol": "TCP"}
GTPC = {"name": "gtpc", "port": 2123, "protocol": "UDP"}
N2_PORT = 38412
# The shared control plane, in the order in which it starts best; those with a database and those with metrics.
CONTROL_PLANE = ("nrf", "scp", "udr", "udm", "ausf", "nssf", "bsf", "pcf", "amf")
_METERED = ("pcf", "amf")
_WITH_DATABASE = ("udr", "pcf", "hss", "pcrf")
# 4G's, where it is wanted: who speaks Diameter, and the serving gateway's ports.
_WITH_DIAMETER = ("hss", "pcrf", "mme")
_SERVING_GATEWAY = {"sgwc": (GTPC, PFCP), "sgwu": (PFCP, GTPU)}


@dataclass(frozen=True)
class Plmn:
    """A network identity (TS 23.003 clause 2.2)."""

    mcc: str
    mnc: str


@dataclass(frozen=True)
class CoreSlice:
    """A brand's slice as the shared control plane knows it."""

    plmn: Plmn
    sst: int
    sd: str | None

    @classmethod
    def of(cls, brand: BrandSpec) -> CoreSlice:
        return cls(Plmn(brand.plmn.mcc, brand.plmn.mnc), brand.slice.sst, brand.slice.sd)


def _function(name: str, ports: Iterable[Mapping[str, Any]], config: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "ports": [dict(port) for port in ports], "config": config, **more}


def _database(name: str) -> dict[str, Any]:
    """What a function that reads subscribers has besides."""
    return {"database": True} if name in _WITH_DATABASE else {}


def _base(images: Images, monitoring_namespace: str | None = None) -> dict[str, Any]:
    values: dict[str, Any] = {"image": image_values(images.open5gs)}
    if monitoring_namespace:
        values["monitoringNamespace"] = monitoring_namespace
    if images.sctp:
        values["sctpOverTcp"] = {"enabled": True, "image": image_values(images.sctp)}
    return values


def _sctp(images: Images) -> str:
    """The protocol of N2 and S1: SCTP, or TCP that carries it."""
    return "TCP" if images.sctp else "SCTP"


def _secured(tls: SbiTls | None) -> dict[str, Any]:
    """The chart's `sbiTls` block, where there is TLS."""
    return {"sbiTls": {"secret": tls.secret}} if tls else {}


def control_plane(
    namespace: str,
    slices: Iterable[CoreSlice],
    images: Images,
    epc: Epc | None = None,
    roaming: Roaming | None = None,
    monitoring_namespace: str | None = None,
    sbi_tls: SbiTls | None = None,
    subscribers: Mapping[str, object] | None = None,
    directory: str = "",
) -> dict[str, Any]:
    """The functions that brands share. Raises BadInput.

    `directory`: the URI by which subscribers are read, where it has no password; `subscribers`: the chart's block, where
    it has one and comes by the environment.
    """
    known = sorted(set(slices), key=lambda one: (one.plmn.mcc, one.plmn.mnc, one.sst, one.sd or ""))
    plmns = list(dict.fromkeys(one.plmn for one in known))
    if len(plmns) > MOST_PLMNS:
        raise BadInput(
            f"the brands have {len(plmns)} PLMNs, and an AMF of Open5GS serves {MOST_PLMNS} (TS 38.413, maxnoofPLMNs)",
            "bring some of the brands up in another environment, with --env",
        )
    context = {
        "namespace": namespace,
        "cluster_domain": CLUSTER_DOMAIN,
        "scp": f"scp.{namespace}.svc.{CLUSTER_DOMAIN}",
        "directory": None if subscribers else directory,
        "ues": UES,
        "slices": known,
        "plmns": plmns,
        "sbi_tls": MOUNTED_AT if sbi_tls else "",
    }
    functions: list[dict[str, Any]] = []
    for name in CONTROL_PLANE:
        ports: list[Mapping[str, Any]] = [SBI]
        if name in _METERED:
            ports.append(METRICS)
        more = _database(name)
        if name == "amf":
            # Over TCP the Service's protocol is TCP as well.
            ports.append({"name": "n2", "port": N2_PORT, "protocol": _sctp(images)})
            more["sctp"] = True
            more["memory"] = AMF_MEMORY
        functions.append(_function(name, ports, render_template(f"open5gs/{name}.yaml.j2", **context), **more))
    values = {
        **_base(images, monitoring_namespace),
        **_secured(sbi_tls),
        "functions": functions,
        "peers": {"platformNamespace": namespace},
    }
    if subscribers is not None:
        values["subscribers"] = dict(subscribers)
    if roaming is not None:
        functions.append(_sepp(context, roaming))
        values["roaming"] = roaming.values
    if epc is None:
        return values
    if epc.sctp_peers and images.sctp:
        raise BadInput(
            f"the Diameter peer {epc.sctp_peers[0]} speaks SCTP, and the nodes' kernel has none (sctpOverTcp)",
            'modprobe sctp on the nodes and no stand-in for it, or "transport": "TCP" for this peer',
        )
    wanted: dict[str, tuple[Mapping[str, Any], ...]] = {
        "hss": (*listens(epc.peers), METRICS),
        "pcrf": (DIAMETER, METRICS),
        **(_SERVING_GATEWAY if epc.serving_gateway else {}),
    }
    if epc.mme is not None:
        wanted["mme"] = ({"name": "s1", "port": S1_PORT, "protocol": _sctp(images)}, GTPC, METRICS)
    for name, fixed in wanted.items():
        full = {**context, "epc": epc, "diameter_tls_port": DIAMETER_TLS_PORT}
        more = _database(name)
        if name in _WITH_DIAMETER:
            more["files"] = diameter_files(name, full)
        if name == "mme":
            # It looks up packet gateways at its start, and brands come after the platform.
            more |= {"sctp": True, "afterBrands": True}
        if name == "hss":
            more |= _s6a(epc)
        functions.append(_function(name, fixed, render_template(f"open5gs/{name}.yaml.j2", **full), **more))
    return {**values, "epc": epc.values}


def _s6a(epc: Epc) -> dict[str, Any]:
    """What the HSS has besides for the host network's sake."""
    more: dict[str, Any] = {"tlsSecret": epc.tls_secret} if epc.tls_secret else {}
    if epc.outside is not None and epc.outside.hss is not None:
        dialled = doors(epc.peers, test_peers=epc.test_peers)
        more["outside"] = epc.outside.service_values(epc.outside.hss, "diameter", dialled)
    return more


def _sepp(context: Mapping[str, Any], roaming: Roaming) -> dict[str, Any]:
    """The edge towards roaming partners. Raises BadInput where no brand has the PLMN that it speaks for."""
    if not any((one.mcc, one.mnc) == (roaming.mcc, roaming.mnc) for one in context["plmns"]):
        known = ", ".join(f"{one.mcc}-{one.mnc}" for one in context["plmns"]) or "none"
        raise BadInput(f"the SEPP is {roaming.mcc}-{roaming.mnc}'s, and no brand has this PLMN", f"one of {known}")
    config = render_template("open5gs/sepp.yaml.j2", **context, roaming=roaming, n32_port=N32_PORT)
    n32 = {"name": "n32", "port": N32_PORT, "protocol": "TCP"}
    return _function(
        "sepp",
        [SBI, n32],
        config,
        tlsSecret=roaming.tls_secret,
        outside={"type": roaming.service, "name": "n32", "ports": [n32]},
    )


def _of_brand(context: Mapping[str, Any]) -> dict[str, Any]:
    brand: BrandSpec = context["brand"]
    platform = context["platform_namespace"]
    servers = [str(server) for network in brand.data_networks for server in network.dns]
    public = PUBLIC_DNS + (PUBLIC_DNS6 if ipv6(brand) else ())
    return {
        **context,
        "ues": UES,
        "scp": f"scp.{platform}.svc.{CLUSTER_DOMAIN}",
        "dns": list(dict.fromkeys(servers)) or list(public),
    }


def ipv6(brand: BrandSpec) -> bool:
    """Whether UEs of a brand get IPv6 addresses."""
    return any(network.pool6 for network in brand.data_networks)


def slows(brand: BrandSpec) -> bool:
    """Whether a plan slows lines, for which Open5GS's UPF needs somebody beside it."""
    return any(plan.fair_use is not None for plan in brand.plans)


def session_management(
    context: Mapping[str, Any],
    peers: Mapping[str, str],
    images: Images,
    epc: Epc | None = None,
    monitoring_namespace: str | None = None,
    sbi_tls: SbiTls | None = None,
) -> dict[str, Any]:
    """A brand's SMF and, with 4G, its packet gateway, unless a host network outside reaches that: see `user_plane`."""
    brand: BrandSpec = context["brand"]
    if epc:
        check_halves(brand)
    full = {
        **_of_brand(context),
        "ranges": pool_ranges(brand) if epc else {},
        "sbi_tls": MOUNTED_AT if sbi_tls else "",
    }
    ports, more = _managing([SBI, PFCP, METRICS], brand)
    functions = [_function("smf", ports, render_template("open5gs/smf.yaml.j2", **full), **more)]
    values = {
        **_base(images, monitoring_namespace),
        **_secured(sbi_tls),
        "brand": brand.name,
        "functions": functions,
        "peers": dict(peers),
    }
    if epc and epc.edge(brand.name) is None:
        functions.append(_packet_gateway(context, epc))
        values["epc"] = epc.values
    return values


def _managing(ports: list[dict[str, Any]], brand: BrandSpec) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ports and more of a function that manages sessions: router solicitations come from the user plane by GTP-U."""
    return ([*ports, GTPU], {"ipv6": True}) if ipv6(brand) else (ports, {})


def _packet_gateway(context: Mapping[str, Any], epc: Epc) -> dict[str, Any]:
    """A brand's packet gateway; outside, with the host network's address on its pod, which takes NET_ADMIN once."""
    brand: BrandSpec = context["brand"]
    full = {**_of_brand(context), "ranges": pool_ranges(brand), "epc": epc, "edge": epc.edge(brand.name)}
    ports, more = _managing([GTPC, PFCP, METRICS], brand)
    more |= {"program": "smf", "files": diameter_files("pgwc", full)}
    if epc.outside is not None and full["edge"] is not None:
        more["prepare"] = render_template("open5gs/pgwc.sh.j2", **full)
        more["outside"] = epc.outside.service_values(full["edge"].pgw, "gtpc", [GTPC])
    return _function("pgwc", ports, render_template("open5gs/pgwc.yaml.j2", **full), **more)


def user_plane(
    context: Mapping[str, Any],
    peers: Mapping[str, str],
    images: Images,
    epc: Epc | None = None,
    monitoring_namespace: str | None = None,
) -> dict[str, Any]:
    """A brand's UPF, with its devices and rules made by an init container.

    Beside it the packet gateway that a host network outside reaches: the brand's other namespace is a restricted one.
    """
    edge = epc.edge(context["brand"].name) if epc else None
    full = {**_of_brand(context), "edge": edge, "closed": epc.closed_networks if epc else ()}
    config = render_template("open5gs/upf.yaml.j2", **full)
    prepare = render_template("open5gs/upf.sh.j2", **full)
    more: dict[str, Any] = {"ipv6": True} if ipv6(context["brand"]) else {}
    ports = [PFCP, GTPU, METRICS]
    if slows(context["brand"]):
        more["shaper"] = render_template("open5gs/shaper.yaml.j2", **full, shaper_port=SHAPER["port"])
        ports.append(SHAPER)
    if epc and epc.outside is not None and edge is not None:
        more["outside"] = epc.outside.service_values(edge.upf, "gtpu", [GTPU])
    functions = [_function("upf", ports, config, userPlane=True, prepare=prepare, cpu=UPF_CPU, **more)]
    if epc and edge is not None:
        functions.append(_packet_gateway(context, epc))
    return {
        **_base(images, monitoring_namespace),
        "brand": context["brand"].name,
        "functions": functions,
        "prepareImage": image_values(images.coresim),
        "peers": dict(peers),
        **({"epc": epc.values} if epc else {}),
    }


def lab_ran(context: Mapping[str, Any], peers: Mapping[str, str], images: Images, ues: int = 1) -> dict[str, Any]:
    """A brand's gNB of the laboratory, with so many UEs at a time."""
    amf = f"amf.{context['platform_namespace']}.svc.{CLUSTER_DOMAIN}"
    values = {
        "brand": context["brand"].name,
        "image": image_values(images.ueransim),
        "agentImage": image_values(images.coresim),
        "script": render_template("ueransim/ran.sh.j2", amf=amf),
        "gnb": render_template("ueransim/gnb.yaml.j2", **context),
        "agent": render_template("ueransim/agent.yaml.j2", **context),
        "ues": ues,
        "n2Protocol": _sctp(images),
        "peers": dict(peers),
    }
    if images.sctp:
        values["sctpOverTcp"] = {"enabled": True, "image": image_values(images.sctp)}
    return values
