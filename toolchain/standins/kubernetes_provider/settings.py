"""The provider resource's own settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .values import UNKNOWN

_PREFIX = "kubernetes:config:"


@dataclass(frozen=True)
class Settings:
    """What `pulumi_kubernetes.Provider` was given. `reachable` is false while a setting is still unknown."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    namespace: str | None = None
    config_map_mutable: bool = False
    secret_mutable: bool = False
    patch_force: bool = False
    delete_unreachable: bool = False
    upsert: bool = False
    reachable: bool = True


def settings_of(variables: Mapping[str, str]) -> Settings:
    """The settings from Configure's variables: strings, or JSON for what is no string; environment as the fallback."""
    values = {key.removeprefix(_PREFIX): value for key, value in variables.items() if key.startswith(_PREFIX)}

    def text(name: str) -> str | None:
        return values.get(name) or None

    def flag(name: str, variable: str, default: bool = False) -> bool:
        value = values.get(name) or os.environ.get(variable)
        return default if value is None else value.lower() == "true"

    kubeconfig = text("kubeconfig")
    if kubeconfig and kubeconfig.startswith('"'):
        kubeconfig = str(json.loads(kubeconfig))
    return Settings(
        kubeconfig=kubeconfig,
        context=text("context"),
        cluster=text("cluster"),
        namespace=text("namespace"),
        config_map_mutable=flag("enableConfigMapMutable", "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE"),
        secret_mutable=flag("enableSecretMutable", "PULUMI_K8S_ENABLE_SECRET_MUTABLE"),
        patch_force=flag("enablePatchForce", "PULUMI_K8S_ENABLE_PATCH_FORCE"),
        delete_unreachable=flag("deleteUnreachable", "PULUMI_K8S_DELETE_UNREACHABLE"),
        upsert=flag("upsertExistingObjects", "PULUMI_K8S_UPSERT_EXISTING_OBJECTS"),
        reachable=not any(value == "04da6b54-80e4-46f7-96ec-b56ff0331ba9" for value in values.values()),
    )


def replaced_settings(olds: Mapping[str, Any], news: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(changed settings, those that mean another cluster and so a replacement of everything).

    With a `clusterIdentifier` only a change of it replaces; without, a change of kubeconfig, context or cluster does.
    """
    changed = sorted(
        key for key in {*olds, *news} if key not in ("version", "__internal") and olds.get(key) != news.get(key)
    )
    before, after = olds.get("clusterIdentifier"), news.get("clusterIdentifier")
    if after is not UNKNOWN and before and after:
        return changed, ["clusterIdentifier"] if before != after else []
    return changed, [key for key in changed if key in ("kubeconfig", "context", "cluster")]
