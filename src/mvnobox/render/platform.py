"""The platform layer: what brands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvnobox.errors import BadInput
from mvnobox.render.directory import directory_uri
from mvnobox.render.engine import render_template
from mvnobox.render.epc import Epc
from mvnobox.render.open5gs import SBI, CoreSlice, control_plane
from mvnobox.render.release import CLUSTER_DOMAIN, DATABASE, QUOTA_OCTETS, Images, Namespace, Release, image_values
from mvnobox.render.roaming import Roaming
from mvnobox.render.sbi_tls import MOUNTED_AT, SbiTls
from mvnobox.render.subscribers import SECRET, Subscribers

# A brand may also run on the core of the cluster's open5gs-operator; the platform has nothing of it.
Core = Literal["simulated", "open5gs"]
BrandCore = Literal["simulated", "open5gs", "operator"]


@dataclass(frozen=True)
class PlatformPlan:
    """Everything that decides the platform layer, secrets apart. Raises BadInput."""

    env: str
    images: Images
    core: Core = "simulated"
    storage_class: str | None = None
    database_storage: str = "2Gi"
    # The slices of all brands, which the shared control plane has to know.
    slices: tuple[CoreSlice, ...] = ()
    # 4G beside 5G, on Open5GS only.
    epc: Epc | None = None
    # 5G roaming, on Open5GS only.
    roaming: Roaming | None = None
    # Whose pods may read metrics; None: nobody.
    monitoring_namespace: str | None = None
    # TLS between functions, on Open5GS only.
    sbi_tls: SbiTls | None = None
    # A MongoDB of the user's own, on Open5GS only.
    subscribers: Subscribers | None = None
    # Whether whoever reads the directory needs a password; functions then have the URI from a Secret.
    directory_login: bool = False

    def __post_init__(self) -> None:
        if self.subscribers is not None and self.core != "open5gs":
            raise BadInput(
                f"the setting subscribers names a MongoDB, and the core is {self.core}, which does not read one",
                "bring up a brand with --core open5gs, or take the setting away: pulumi config rm subscribers",
            )

    @property
    def namespace(self) -> str:
        return f"platform-{self.env}"


def platform_namespaces(plan: PlatformPlan) -> list[Namespace]:
    """The platform's namespaces."""
    return [Namespace(plan.namespace, "restricted", {"mvno.box/layer": "platform"})]


def amf_root(plan: PlatformPlan) -> str | None:
    """The root of the AMF's SBI."""
    if plan.core != "open5gs":
        return None
    return f"{'https' if plan.sbi_tls else 'http'}://amf.{plan.namespace}.svc.{CLUSTER_DOMAIN}:{SBI['port']}"


def _subscribers_of(plan: PlatformPlan) -> dict[str, object] | None:
    """The chart's `subscribers` block, where functions have the URI from a Secret."""
    if plan.subscribers is not None:
        return plan.subscribers.values
    return {"secretName": SECRET} if plan.directory_login else None


def platform_releases(plan: PlatformPlan) -> list[Release]:
    """The platform's charts, in the order in which they depend on each other."""
    namespace = plan.namespace
    services = image_values(plan.images.services)
    storage: dict[str, object] = {"size": plan.database_storage}
    if plan.storage_class:
        storage["storageClassName"] = plan.storage_class
    epc = plan.epc if plan.core == "open5gs" else None
    sbi_tls = plan.sbi_tls if plan.core == "open5gs" else None
    made = sbi_tls.made if sbi_tls else ()
    releases = [
        Release(
            "postgresql",
            "postgresql",
            namespace,
            {
                "image": image_values(plan.images.postgresql),
                "existingSecret": "postgresql-auth",
                "bootstrapSql": render_template("postgresql/bootstrap.sql.j2", database=DATABASE),
                "storage": storage,
            },
            ("postgresql-auth",),
        ),
        Release(
            "ocs",
            "ocs",
            namespace,
            {
                "image": services,
                "existingSecret": "ocs-env",
                "config": render_template("ocs/ocs.yaml.j2", quota_octets=QUOTA_OCTETS, epc=epc),
                **({"diameter": True} if epc else {}),
            },
            ("ocs-env",),
        ),
        Release(
            "directory",
            "directory",
            namespace,
            {
                "image": services,
                "existingSecret": "directory-env",
                "config": render_template(
                    "directory/directory.yaml.j2", amf=amf_root(plan), tls=MOUNTED_AT if sbi_tls else ""
                ),
                **({"amf": True} if plan.core == "open5gs" else {}),
                **({"sbiTls": {"secret": sbi_tls.secret}} if sbi_tls else {}),
                **({"mirror": plan.subscribers.values} if plan.subscribers else {}),
            },
            ("directory-env", *made),
        ),
    ]
    if plan.core == "open5gs":
        core = control_plane(
            namespace,
            plan.slices,
            plan.images,
            epc,
            plan.roaming,
            plan.monitoring_namespace,
            sbi_tls,
            _subscribers_of(plan),
            directory_uri(namespace, tls=sbi_tls is not None),
        )
        named = (SECRET,) if "subscribers" in core else ()
        releases.append(Release("core", "open5gs", namespace, core, (*made, *named)))
    releases.append(
        Release(
            "dn",
            "coresim",
            namespace,
            {
                "image": image_values(plan.images.coresim),
                "dn": {"enabled": True, "config": render_template("coresim/dn.yaml.j2")},
            },
        )
    )
    return releases
