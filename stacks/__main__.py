"""The Pulumi program. A stack is `platform.<env>` or `<brand>.<env>`; its settings say the rest.

This file is the only reader of `pulumi.Config`; everything below it takes typed arguments.
"""

from __future__ import annotations

import pulumi

from components.brand import Brand, BrandArgs, BrandSecrets
from components.cluster import cluster_provider
from components.platform import Platform, PlatformArgs, PlatformSecrets
from components.settings import (
    brand_file,
    epc_from,
    forwarding_from,
    images_from,
    lab_ues_from,
    layer_of,
    monitoring_from,
    roaming_from,
    sbi_tls_from,
    slices_from,
    subscribers_from,
)
from components.shared import served, told
from mvnobox.errors import KitError
from mvnobox.render import BrandPlan, PlatformPlan
from mvnobox.spec import load_brand


def platform(config: pulumi.Config, env: str) -> None:
    """The layer that brands share."""
    core = config.get("core") or "simulated"
    sbi_tls = sbi_tls_from(config.get_object("sbiTls"), core)
    plan = PlatformPlan(
        env=env,
        images=images_from(config.require_object("images")),
        core=core,  # type: ignore[arg-type]
        storage_class=config.get("storageClass"),
        slices=slices_from(config.get_object("slices")),
        epc=epc_from(config.get_object("epc")),
        roaming=roaming_from(config.get_object("roaming")),
        monitoring_namespace=monitoring_from(config.get("monitoringNamespace")),
        sbi_tls=sbi_tls,
        # In plain text only to see where it is: policies have to know.
        subscribers=subscribers_from(
            config.get("subscribers"),
            encrypted=pulumi.runtime.is_config_secret(config.full_key("subscribers")),
            tls_secret=config.get("subscribersTls"),
        ),
        directory_login=config.get("directoryCorePassword") is not None,
    )
    secrets = PlatformSecrets(
        postgres_password=config.require_secret("postgresPassword"),
        ocs_password=config.require_secret("ocsPassword"),
        directory_password=config.require_secret("directoryPassword"),
        ocs_tenant_key=config.require_secret("ocsTenantKey"),
        directory_private_key=config.require_secret("directoryPrivateKey"),
        sbi_authority_key=config.require_secret("sbiAuthorityKey") if sbi_tls and sbi_tls.automatic else None,
        subscribers=config.get_secret("subscribers"),
        directory_core_password=config.get_secret("directoryCorePassword"),
    )
    Platform("platform", PlatformArgs(plan=plan, secrets=secrets, provider=cluster_provider(config)))
    pulumi.export("namespace", plan.namespace)
    pulumi.export("core", plan.core)
    # A brand's stack refuses what the shared core does not serve.
    pulumi.export("slices", told(plan.slices))
    # A brand's stack derives its own token from this key and can decrypt it only with the installation's passphrase.
    pulumi.export("ocsTenantKey", secrets.ocs_tenant_key)
    pulumi.export("directoryPublicKey", config.require("directoryPublicKey"))
    pulumi.export("sbiTls", sbi_tls.setting if sbi_tls else None)
    if secrets.sbi_authority_key is not None:
        # As with the OCS's key: each brand's stack issues its own functions' certificate.
        pulumi.export("sbiAuthorityKey", secrets.sbi_authority_key)


def brand(config: pulumi.Config, env: str) -> None:
    """One brand's layer."""
    shared = pulumi.StackReference(f"organization/{pulumi.get_project()}/platform.{env}")
    core = config.get("core") or "simulated"
    sbi_tls = sbi_tls_from(config.get_object("sbiTls"), core)
    plan = BrandPlan(
        env=env,
        brand=load_brand(brand_file(config.require("brandFile"))),
        images=images_from(config.require_object("images")),
        core=core,  # type: ignore[arg-type]
        public_url=config.get("publicUrl"),
        epc=epc_from(config.get_object("epc")),
        monitoring_namespace=monitoring_from(config.get("monitoringNamespace")),
        forwarding=forwarding_from(config.get("forwarding")),
        lab_ues=lab_ues_from(config.get("labUes")),
        sbi_tls=sbi_tls,
        directory_login=config.get("directoryCorePassword") is not None,
    )
    # Everything of the brand goes by the provider: nothing is made before it is known.
    context = served(shared, plan, config.require("context"))
    authority_key = None
    if sbi_tls and sbi_tls.automatic:
        both = pulumi.Output.all(context, shared.get_output("sbiAuthorityKey"))
        authority_key = both.apply(lambda two: str(two[1]))
    secrets = BrandSecrets(
        bss_password=config.require_secret("bssPassword"),
        ctf_password=config.require_secret("ctfPassword"),
        sim_key=config.require_secret("simKey"),
        bss_admin_token=config.require_secret("bssAdminToken"),
        ocs_tenant_key=shared.require_output("ocsTenantKey"),
        directory_public_key=shared.require_output("directoryPublicKey"),
        sbi_authority_key=authority_key,
        directory_core_password=config.get_secret("directoryCorePassword"),
    )
    provider = cluster_provider(config, context)
    Brand(plan.brand.name, BrandArgs(plan=plan, secrets=secrets, provider=provider))
    pulumi.export("namespace", plan.namespace)
    pulumi.export("userPlaneNamespace", plan.user_plane_namespace)
    pulumi.export("brand", plan.brand.name)


def main() -> None:
    """Bring up the layer that the stack's name stands for."""
    layer, env = layer_of(pulumi.get_stack())
    config = pulumi.Config()
    (platform if layer == "platform" else brand)(config, env)


try:
    main()
except KitError as error:
    raise pulumi.RunError(str(error)) from None
