"""A brand's layer: what one brand owns and no other sees."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mvnobox.errors import BadInput
from mvnobox.render.directory import SIMULATED_SECRET
from mvnobox.render.engine import render_template
from mvnobox.render.epc import Epc
from mvnobox.render.hostnetwork import host_network_stand_in
from mvnobox.render.open5gs import CoreSlice, ipv6, lab_ran, session_management, slows, user_plane
from mvnobox.render.operator import operator_core
from mvnobox.render.platform import BrandCore
from mvnobox.render.release import (
    CLUSTER_DOMAIN,
    DATABASE,
    QUANTUM_OCTETS,
    QUOTA_OCTETS,
    Forwarding,
    Images,
    Namespace,
    Release,
    image_values,
)
from mvnobox.render.sbi_tls import SbiTls
from mvnobox.spec import BrandSpec


@dataclass(frozen=True)
class BrandPlan:
    """Everything that decides a brand's layer, secrets apart."""

    env: str
    brand: BrandSpec
    images: Images
    core: BrandCore = "simulated"
    public_url: str | None = None
    # The platform's 4G; a brand that it does not name has none.
    epc: Epc | None = None
    # Whose pods may read metrics; None: nobody.
    monitoring_namespace: str | None = None
    forwarding: Forwarding = "node"
    # UEs that the laboratory's radio network takes at a time.
    lab_ues: int = 1
    # TLS between functions, as the platform has it.
    sbi_tls: SbiTls | None = None
    # Whether a simulated core reads the directory with a password.
    directory_login: bool = False

    @property
    def namespace(self) -> str:
        return f"{self.brand.name}-{self.env}"

    @property
    def user_plane_namespace(self) -> str:
        return f"{self.namespace}-up"

    @property
    def platform_namespace(self) -> str:
        return f"platform-{self.env}"


def brand_namespaces(plan: BrandPlan) -> list[Namespace]:
    """The brand's namespaces: its services' (restricted) and its user plane's (NET_ADMIN and the TUN device)."""
    labels = {"mvno.box/layer": "brand", "mvno.box/brand": plan.brand.name}
    return [
        Namespace(plan.namespace, "restricted", labels),
        Namespace(plan.user_plane_namespace, "privileged", {**labels, "mvno.box/plane": "user"}),
    ]


def brand_releases(plan: BrandPlan) -> list[Release]:
    """The brand's charts, in the order in which they depend on each other."""
    context = {
        "brand": plan.brand,
        "namespace": plan.namespace,
        "user_plane_namespace": plan.user_plane_namespace,
        "platform_namespace": plan.platform_namespace,
        "cluster_domain": CLUSTER_DOMAIN,
        "quota_octets": QUOTA_OCTETS,
        "quantum_octets": QUANTUM_OCTETS,
        "public_url": plan.public_url or "",
        "upf_initiates": plan.core == "open5gs",
        "upf_ignores_drop": plan.core == "open5gs",
        "shaper": plan.core == "open5gs" and slows(plan.brand),
        "allow": [f"dn.{plan.platform_namespace}.svc.{CLUSTER_DOMAIN}"],
    }
    peers = {
        "platformNamespace": plan.platform_namespace,
        "brandNamespace": plan.namespace,
        "userPlaneNamespace": plan.user_plane_namespace,
    }
    services = image_values(plan.images.services)
    releases = [
        Release(
            f"tenant-{plan.brand.name}",
            "tenant",
            plan.platform_namespace,
            {
                "brand": plan.brand.name,
                "image": image_values(plan.images.postgresql),
                "existingSecret": f"tenant-{plan.brand.name}",
                "adminSecret": "postgresql-auth",
                "sql": render_template("postgresql/tenant.sql.j2", database=DATABASE, brand=plan.brand.name),
            },
            (f"tenant-{plan.brand.name}",),
        ),
        Release(
            "bss",
            "bss",
            plan.namespace,
            {
                "brand": plan.brand.name,
                "image": services,
                "existingSecret": "bss-env",
                "config": render_template("bss/bss.yaml.j2", **context),
                # JSON is YAML: the service loads the same model from it that the kit validated.
                "brandSpec": brand_document(plan.brand),
                "peers": peers,
            },
            ("bss-env",),
        ),
    ]
    if plan.core == "operator":
        # Its SMF is wired to its UPF: there is no place for a CTF, and no chart for the core.
        return releases
    releases.append(
        Release(
            "ctf",
            "ctf",
            plan.namespace,
            {
                "brand": plan.brand.name,
                "image": services,
                "existingSecret": "ctf-env",
                "config": render_template("ctf/ctf.yaml.j2", **context),
                "peers": peers,
            },
            ("ctf-env",),
        )
    )
    if plan.core == "simulated":
        coresim = {"brand": plan.brand.name, "image": image_values(plan.images.coresim), "peers": peers}
        on = {"enabled": True, **({"ipv6": True} if ipv6(plan.brand) else {})}
        smf = {**on, "config": render_template("coresim/smf.yaml.j2", **context)}
        if plan.directory_login:
            smf["existingSecret"] = SIMULATED_SECRET
        releases += [
            Release(
                "core",
                "coresim",
                plan.namespace,
                {**coresim, "smf": smf},
                (SIMULATED_SECRET,) if plan.directory_login else (),
            ),
            Release(
                "user-plane",
                "coresim",
                plan.user_plane_namespace,
                {
                    **coresim,
                    "forwarding": plan.forwarding,
                    "upf": {**on, "config": render_template("coresim/upf.yaml.j2", **context)},
                    "ue": {"enabled": True, "config": render_template("coresim/ue.yaml.j2", **context)},
                },
            ),
        ]
    else:
        epc = plan.epc if plan.epc and plan.brand.name in plan.epc.brands else None
        # A packet gateway that a host network outside reaches is beside the UPF, and is asked for there.
        context["packet_gateway_namespace"] = plan.namespace
        if epc and epc.edge(plan.brand.name) is not None:
            context["packet_gateway_namespace"] = plan.user_plane_namespace
            peers = {**peers, "packetGatewayNamespace": plan.user_plane_namespace}
        seen_by = plan.monitoring_namespace
        core = session_management(context, peers, plan.images, epc, seen_by, plan.sbi_tls)
        releases += [
            Release("core", "open5gs", plan.namespace, core, plan.sbi_tls.made if plan.sbi_tls else ()),
            Release(
                "user-plane",
                "open5gs",
                plan.user_plane_namespace,
                {**user_plane(context, peers, plan.images, epc, seen_by), "forwarding": plan.forwarding},
            ),
            Release("ran", "ueransim", plan.user_plane_namespace, lab_ran(context, peers, plan.images, plan.lab_ues)),
        ]
        if epc and epc.test_peers:
            values = host_network_stand_in(context, peers, plan.images, epc)
            releases.append(Release("hostnetwork", "hostnetwork", plan.user_plane_namespace, values))
    return releases


def check_directory(plan: BrandPlan, sbi_tls: object) -> None:
    """Refuse a simulated core that cannot read the platform's directory (its output `sbiTls`). Raises BadInput."""
    if plan.core == "simulated" and sbi_tls is not None:
        raise BadInput(
            f"the platform's directory is read over TLS, as its SBI is, which the simulated core of {plan.brand.name} "
            "does not speak",
            f"./mvno up --brand {plan.brand.name} --core open5gs, or another environment for it, with --env",
        )


def check_platform(plan: BrandPlan, core: str | None, slices: tuple[CoreSlice, ...] | None) -> None:
    """Refuse a brand whose core or slice the platform does not have (its outputs `core`, `slices`). Raises BadInput."""
    if plan.core != "open5gs":
        return
    stack, own = f"platform.{plan.env}", CoreSlice.of(plan.brand)
    by_kit = f"./mvno up --core open5gs --brand {plan.brand.name} --env {plan.env} sets both stacks"
    if core != "open5gs":
        raise BadInput(
            f"the brand is to have Open5GS, and the core of {stack} is {core}",
            f"pulumi config set core open5gs --stack {stack}, the slice likewise, and bring it up first; or {by_kit}",
        )
    if slices is None:
        raise BadInput(f"{stack} does not say which slices it serves", f"pulumi up --stack {stack} first; or {by_kit}")
    if own not in slices:
        said = f"sst {own.sst}" + (f", sd {own.sd}" if own.sd else "")
        whole = json.dumps([asdict(one) for one in (*slices, own)])
        raise BadInput(
            f"{stack} does not serve {plan.brand.name}'s slice ({said}) of PLMN {own.plmn.mcc}-{own.plmn.mnc}",
            f"pulumi config set slices --stack {stack} '{whole}', then pulumi up --stack {stack}; or {by_kit}",
        )


def brand_resources(plan: BrandPlan) -> list[dict[str, Any]]:
    """Objects beside the charts: with the open5gs-operator, the core that it is asked for. Raises BadInput."""
    if plan.core != "operator":
        return []
    return [operator_core(plan.brand, plan.user_plane_namespace).to_object()]


def brand_document(brand: BrandSpec) -> str:
    """The BrandSpec file that the BSS reads in its pod."""
    return json.dumps(brand.source, ensure_ascii=False, indent=1)
