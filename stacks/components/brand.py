"""A brand's layer as one component."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from components.platform import core_uri, database_url
from components.release import namespace, release, secret
from components.sbi import certificate
from mvnobox.render import BrandPlan, brand_namespaces, brand_releases, brand_resources
from mvnobox.render.directory import SIMULATED_SECRET
from mvnobox.render.sbi_tls import BRAND_FUNCTIONS, MADE_SECRET


@dataclass(frozen=True, kw_only=True)
class BrandSecrets:
    """What only this brand's pods may know. Keys are hexadecimal, 32 octets."""

    bss_password: pulumi.Input[str]
    ctf_password: pulumi.Input[str]
    sim_key: pulumi.Input[str]
    bss_admin_token: pulumi.Input[str]
    ocs_tenant_key: pulumi.Input[str]
    directory_public_key: pulumi.Input[str]
    # The platform's, where the kit makes the SBI's certificates.
    sbi_authority_key: pulumi.Input[str] | None = None
    # The platform's, with which a simulated core reads the directory.
    directory_core_password: pulumi.Input[str] | None = None


@dataclass(frozen=True, kw_only=True)
class BrandArgs:
    """The brand's plan, its secrets and the cluster it goes to."""

    plan: BrandPlan
    secrets: BrandSecrets
    provider: kubernetes.Provider


def ocs_token(brand: str, tenant_key: pulumi.Input[str]) -> pulumi.Output[str]:
    """The token by which the OCS knows a brand: its name and the HMAC-SHA256 of it under the platform's key."""

    def sign(key: str) -> str:
        return f"{brand}.{hmac.new(bytes.fromhex(key), brand.encode(), hashlib.sha256).hexdigest()}"

    return pulumi.Output.secret(pulumi.Output.from_input(tenant_key).apply(sign))


class Brand(pulumi.ComponentResource):
    """BSS, CTF and, with the simulated core, SMF, UPF and a UE: nothing that another brand shares."""

    def __init__(self, name: str, args: BrandArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mvno:brand:Brand", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, provider=args.provider)
        plan, secrets = args.plan, args.secrets
        suffix = plan.brand.role_suffix
        homes = {spec.name: namespace(spec, child) for spec in brand_namespaces(plan)}
        token = ocs_token(plan.brand.name, secrets.ocs_tenant_key)
        tenant = f"tenant-{plan.brand.name}"
        contents: dict[str, dict[str, pulumi.Input[str]]] = {
            tenant: {"BSS_PASSWORD": secrets.bss_password, "CTF_PASSWORD": secrets.ctf_password},
            "bss-env": {
                "DATABASE_URL": database_url(f"bss_{suffix}", secrets.bss_password, plan.platform_namespace),
                "OCS_TOKEN": token,
                "DIRECTORY_PUBLIC_KEY": secrets.directory_public_key,
                "SIM_KEY": secrets.sim_key,
                "BSS_ADMIN_TOKEN": secrets.bss_admin_token,
            },
            "ctf-env": {
                "DATABASE_URL": database_url(f"ctf_{suffix}", secrets.ctf_password, plan.platform_namespace),
                "OCS_TOKEN": token,
            },
        }
        if secrets.sbi_authority_key is not None:
            contents[MADE_SECRET] = certificate(secrets.sbi_authority_key, plan.env, plan.namespace, BRAND_FUNCTIONS)
        if secrets.directory_core_password is not None and plan.core == "simulated":
            uri = core_uri(secrets.directory_core_password, plan.platform_namespace)
            contents[SIMULATED_SECRET] = {"DIRECTORY_URI": uri}
        # The tenant's Job runs beside the database, where its administrator's password is.
        own = homes[plan.namespace].metadata["name"]
        made = {
            key: secret(key, plan.platform_namespace if key == tenant else own, values, child)
            for key, values in contents.items()
        }
        roles: list[pulumi.Resource] = []
        for spec in brand_releases(plan):
            chart = release(spec, contents, [*homes.values(), *(made[key] for key in spec.secrets), *roles], child)
            if spec.name == tenant:
                roles = [chart]
        for document in brand_resources(plan):
            kubernetes.apiextensions.CustomResource(
                document["kind"].lower(),
                api_version=document["apiVersion"],
                kind=document["kind"],
                metadata=document["metadata"],
                spec=document["spec"],
                opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[*homes.values()])),
            )
        self.register_outputs({"namespace": plan.namespace})
