"""The outputs that a state keeps of an object: the live object with what made it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from . import objects
from .values import Secret, as_secret, dashed, has_secrets, mark_secrets, plain, underscored

INPUTS = "__inputs"
INITIAL_VERSION = "__initialApiVersion"
FIELD_MANAGER = "__fieldManager"


def checkpoint(
    inputs: objects.Object,
    live: objects.Object,
    source: Mapping[str, Any],
    initial_version: str,
    manager: str,
) -> dict[str, Any]:
    """Outputs in the official provider's shape; secret in them is what is secret in `source` (inputs as they came)."""
    marked = mark_secrets(underscored(live), source)
    if objects.kind_of(live) == "v1/Secret" and has_secrets(source.get("stringData")) and "data" in marked:
        marked["data"] = as_secret(marked["data"])
    return {
        **marked,
        INPUTS: mark_secrets(underscored(inputs), source),
        INITIAL_VERSION: initial_version,
        FIELD_MANAGER: manager,
    }


def opened(state: Mapping[str, Any]) -> tuple[objects.Object, objects.Object]:
    """(old inputs, live object) of outputs, plain and with Kubernetes' own key names."""
    values = dashed(plain(dict(state)))
    if "inputs" in values and "live" in values:  # states before provider 1.0
        return dict(values["inputs"]), dict(values["live"])
    inputs = values.pop(INPUTS, None) or {}
    live = {key: value for key, value in values.items() if not key.startswith("__")}
    return dict(inputs), live


def manager_of(state: Mapping[str, Any], inputs: objects.Object) -> str:
    """The field manager: the object's annotation, the state's, or a new name."""
    wanted = objects.annotation(inputs, objects.PATCH_FIELD_MANAGER)
    kept = state.get(FIELD_MANAGER)
    if isinstance(kept, Secret):
        kept = kept.value
    return wanted or (kept if isinstance(kept, str) and kept else f"pulumi-kubernetes-{secrets.token_hex(4)}")


def initial_version(state: Mapping[str, Any], inputs: objects.Object) -> str:
    """The apiVersion that the object was made with."""
    kept = state.get(INITIAL_VERSION)
    return kept if isinstance(kept, str) else str(inputs.get("apiVersion", ""))
