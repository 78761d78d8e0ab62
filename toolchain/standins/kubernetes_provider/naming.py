"""Names for objects that the program leaves unnamed."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from . import objects
from .values import UNKNOWN


def _is_named(inputs: objects.Object) -> bool:
    return objects.get(inputs, "metadata", "name") is UNKNOWN or bool(objects.name_of(inputs))


def suffix(seed: bytes) -> str:
    """Eight hexadecimal digits: from the engine's seed if it gives one (so that a preview and its update agree)."""
    return hashlib.sha256(seed).hexdigest()[:8] if seed else secrets.token_hex(4)


def name_object(inputs: objects.Object, olds: objects.Object, urn: str, seed: bytes, autonaming: Any) -> None:
    """Name the object in place if it has none: the old name on an update, else `<resource name>-<8 hex>`.

    `autonaming` is the engine's own proposal (CheckRequest.AutonamingOptions) or None. Raises ValueError when the
    project's settings forbid made-up names.
    """
    metadata = inputs.setdefault("metadata", {})
    if metadata is UNKNOWN or _is_named(inputs) or metadata.get("generateName"):
        return
    if objects.is_true(olds, objects.AUTONAMED) and objects.name_of(olds):
        name = objects.name_of(olds)
    elif autonaming is not None and autonaming.mode == autonaming.DISABLE:
        raise ValueError("autonaming is disabled: set metadata.name")
    elif autonaming is not None and autonaming.proposed_name:
        name = autonaming.proposed_name
    else:
        name = f"{urn.split('::')[3]}-{suffix(seed)}"
    metadata["name"] = name
    annotations = metadata.get("annotations")
    if annotations is not UNKNOWN:
        metadata["annotations"] = {**(annotations or {}), objects.AUTONAMED: "true"}
