"""The platform layer as one component."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from components.release import namespace, release, secret
from components.sbi import certificate
from mvnobox.render import PlatformPlan, directory_uri, directory_users, platform_namespaces, platform_releases
from mvnobox.render.sbi_tls import MADE_SECRET, PLATFORM_FUNCTIONS
from mvnobox.render.subscribers import SECRET

# Releases that others need before they start.
_NEEDS = {"ocs": ("postgresql",), "directory": ("postgresql",), "core": ("directory",)}


@dataclass(frozen=True, kw_only=True)
class PlatformSecrets:
    """What only the platform's own pods may know. Keys are hexadecimal, 32 octets."""

    postgres_password: pulumi.Input[str]
    ocs_password: pulumi.Input[str]
    directory_password: pulumi.Input[str]
    ocs_tenant_key: pulumi.Input[str]
    directory_private_key: pulumi.Input[str]
    # Of the authority that signs the SBI's certificates, where the kit makes them.
    sbi_authority_key: pulumi.Input[str] | None = None
    # The URI of a MongoDB of the user's own.
    subscribers: pulumi.Input[str] | None = None
    # With which cores read the directory.
    directory_core_password: pulumi.Input[str] | None = None


@dataclass(frozen=True, kw_only=True)
class PlatformArgs:
    """The platform's plan, its secrets and the cluster it goes to."""

    plan: PlatformPlan
    secrets: PlatformSecrets
    provider: kubernetes.Provider


def database_url(role: str, password: pulumi.Input[str], platform_namespace: str) -> pulumi.Output[str]:
    """A role's DSN. Generated passwords are URL-safe, so that nothing has to be quoted."""
    return pulumi.Output.concat(
        f"postgresql://{role}:", password, f"@postgresql.{platform_namespace}.svc.cluster.local:5432/mvno"
    )


def core_uri(password: pulumi.Input[str], platform_namespace: str, *, tls: bool = False) -> pulumi.Output[str]:
    """The URI by which a core reads the directory."""
    return pulumi.Output.secret(password).apply(lambda plain: directory_uri(platform_namespace, plain, tls=tls))


class Platform(pulumi.ComponentResource):
    """PostgreSQL, the OCS, the subscriber directory and, with the simulated core, a data network."""

    def __init__(self, name: str, args: PlatformArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mvno:platform:Platform", name, None, opts)
        child = pulumi.ResourceOptions(parent=self, provider=args.provider)
        plan, secrets = args.plan, args.secrets
        homes = {spec.name: namespace(spec, child) for spec in platform_namespaces(plan)}
        where = homes[plan.namespace].metadata["name"]
        contents: dict[str, dict[str, pulumi.Input[str]]] = {
            "postgresql-auth": {
                "POSTGRES_PASSWORD": secrets.postgres_password,
                "OCS_PASSWORD": secrets.ocs_password,
                "DIRECTORY_PASSWORD": secrets.directory_password,
            },
            "ocs-env": {
                "DATABASE_URL": database_url("ocs", secrets.ocs_password, plan.namespace),
                "OCS_TENANT_KEY": secrets.ocs_tenant_key,
            },
            "directory-env": {
                "DATABASE_URL": database_url("directory", secrets.directory_password, plan.namespace),
                "DIRECTORY_PRIVATE_KEY": secrets.directory_private_key,
            },
        }
        if secrets.sbi_authority_key is not None:
            contents[MADE_SECRET] = certificate(secrets.sbi_authority_key, plan.env, plan.namespace, PLATFORM_FUNCTIONS)
        if secrets.directory_core_password is not None:
            password = pulumi.Output.secret(secrets.directory_core_password)
            contents["directory-env"]["DIRECTORY_USERS"] = password.apply(directory_users)
            if plan.core == "open5gs":
                contents[SECRET] = {"DB_URI": core_uri(password, plan.namespace, tls=plan.sbi_tls is not None)}
        if secrets.subscribers is not None:
            contents[SECRET] = {"DB_URI": secrets.subscribers}
            contents["directory-env"]["DIRECTORY_MIRROR"] = secrets.subscribers
        made = {key: secret(key, where, values, child) for key, values in contents.items()}
        # In order: what needs another would only wait for it, or end; and a repair of that has to come first.
        charts: dict[str, pulumi.Resource] = {}
        for spec in platform_releases(plan):
            first = [charts[one] for one in _NEEDS.get(spec.name, ()) if one in charts]
            needs = [*homes.values(), *(made[key] for key in spec.secrets), *first]
            charts[spec.name] = release(spec, contents, needs, child)
        self.register_outputs({"namespace": where})
