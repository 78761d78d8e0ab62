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
    images_from,
    layer_of,
    monitoring_from,
    roaming_from,
    slices_from,
    subscribers_from,
)
from mvnobox.errors import KitError
from mvnobox.render import BrandPlan, PlatformPlan
from mvnobox.spec import load_brand


def platform(config: pulumi.Config, env: str) -> None:
    """The layer that brands share."""
    plan = PlatformPlan(
        env=env,
        images=images_from(config.require_object("images")),
        core=config.get("core") or "simulated",  # type: ignore[arg-type]
        storage_class=config.get("storageClass"),
        slices=slices_from(config.get_object("slices")),
        epc=epc_from(config.get_object("epc")),
        roaming=roaming_from(config.get_object("roaming")),
        monitoring_namespace=monitoring_from(config.get("monitoringNamespace")),
        # In plain text only to see where it is: policies have to know.
        subscribers=subscribers_from(
            config.get("subscribers"),
            encrypted=pulumi.runtime.is_config_secret(config.full_key("subscribers")),
            tls_secret=config.get("subscribersTls"),
        ),
    )
    secrets = PlatformSecrets(
        postgres_password=config.require_secret("postgresPassword"),
        ocs_password=config.require_secret("ocsPassword"),
        directory_password=config.require_secret("directoryPassword"),
        ocs_tenant_key=config.require_secret("ocsTenantKey"),
        directory_private_key=config.require_secret("directoryPrivateKey"),
        subscribers=config.get_secret("subscribers"),
    )
    Platform("platform", PlatformArgs(plan=plan, secrets=secrets, provider=cluster_provider(config)))
    pulumi.export("namespace", plan.namespace)
    pulumi.export("core", plan.core)
    # A brand's stack derives its own token from this key and can decrypt it only with the installation's passphrase.
    pulumi.export("ocsTenantKey", secrets.ocs_tenant_key)
    pulumi.export("directoryPublicKey", config.require("directoryPublicKey"))


def brand(config: pulumi.Config, env: str) -> None:
    """One brand's layer."""
    shared = pulumi.StackReference(f"organization/{pulumi.get_project()}/platform.{env}")
    plan = BrandPlan(
        env=env,
        brand=load_brand(brand_file(config.require("brandFile"))),
        images=images_from(config.require_object("images")),
        core=config.get("core") or "simulated",  # type: ignore[arg-type]
        public_url=config.get("publicUrl"),
        epc=epc_from(config.get_object("epc")),
        monitoring_namespace=monitoring_from(config.get("monitoringNamespace")),
    )
    secrets = BrandSecrets(
        bss_password=config.require_secret("bssPassword"),
        ctf_password=config.require_secret("ctfPassword"),
        sim_key=config.require_secret("simKey"),
        bss_admin_token=config.require_secret("bssAdminToken"),
        ocs_tenant_key=shared.require_output("ocsTenantKey"),
        directory_public_key=shared.require_output("directoryPublicKey"),
    )
    Brand(plan.brand.name, BrandArgs(plan=plan, secrets=secrets, provider=cluster_provider(config)))
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
