"""Bringing objects into being, changing them and removing them, with the official provider's field managers."""

from __future__ import annotations

import threading
import time
from typing import Any

from . import objects
from .cluster import FIELD_MANAGER, Cluster
from .errors import ApiError, Cancelled, NoSuchKind, ProviderError, Unreachable

# Who may have written an object's fields by plain updates before our own manager applies them (official list).
_FORMER_MANAGERS = {
    (FIELD_MANAGER, "Update"),
    ("pulumi-kubernetes.exe", "Update"),
    ("pulumi-resource-kubernetes", "Update"),
    ("kubectl", "Update"),
    ("kubectl", "Apply"),
    ("before-first-apply", "Update"),
}
_CREATE_PATIENCE = 30.0  # seconds to wait for a kind or a namespace that is being made beside
_UNCHANGEABLE_BY_APPLY = {"CustomResourceDefinition"}


def create(
    cluster: Cluster,
    obj: objects.Object,
    manager: str,
    cancelled: threading.Event,
    *,
    upsert: bool = False,
    force: bool = False,
    warnings: list[str] | None = None,
) -> objects.Object:
    """POST the object, or with `upsert` apply it over one that may exist already.

    A kind or namespace that another resource is just making is waited for.
    """
    deadline = time.monotonic() + _CREATE_PATIENCE
    pause = 0.2
    while True:
        try:
            if upsert:
                _take_over_existing(cluster, obj, manager)
                return _apply(cluster, obj, manager, force=force, dry_run=False, warnings=warnings)
            return cluster.create(obj, dry_run=False, warnings=warnings)
        except NoSuchKind:
            cluster.forget_kinds()
            if time.monotonic() > deadline:
                raise
        except Unreachable:
            raise
        except ApiError as error:
            if not _may_pass(error) or time.monotonic() > deadline:
                raise
        if cancelled.wait(pause):
            raise Cancelled("the update was cancelled before the object was made")
        pause = min(pause * 2, 3.0)


def _take_over_existing(cluster: Cluster, obj: objects.Object, manager: str) -> None:
    # What the earlier create set and the program no longer says must go, so our manager has to own it first.
    try:
        live = cluster.read(obj)
    except ApiError as error:
        if error.status != 404:
            raise
        return
    take_over(cluster, live, manager)


def _may_pass(error: ApiError) -> bool:
    if error.status == 404:
        return True  # the namespace, or the kind right after its definition
    said = str(error)
    return (error.status == 403 and "being terminated" in said) or (
        error.status in (429, 500, 503) or (error.status == 403 and "serviceaccount" in said and "not found" in said)
    )


def patch_create(cluster: Cluster, obj: objects.Object, manager: str, *, dry_run: bool = False) -> objects.Object:
    """A `…Patch` resource: our fields in an object that is somebody else's."""
    return _apply(cluster, obj, manager, force=objects.is_true(obj, objects.PATCH_FORCE), dry_run=dry_run)


def update(
    cluster: Cluster,
    obj: objects.Object,
    live_name: str,
    manager: str,
    *,
    patch: bool,
    force: bool,
    dry_run: bool,
    warnings: list[str] | None = None,
) -> objects.Object:
    """Make the live object look as the new inputs say; fields of other managers stay theirs."""
    live = cluster.read(obj, live_name)
    if obj.get("kind") in _UNCHANGEABLE_BY_APPLY:
        # Apply would merge the versions' lists; a definition is one document.
        metadata = {**objects.get(obj, "metadata", default={}), "resourceVersion": live["metadata"]["resourceVersion"]}
        return cluster.replace({**obj, "metadata": metadata}, dry_run)
    if not patch and not dry_run:
        take_over(cluster, live, manager)
    return _apply(cluster, obj, manager, force=force or dry_run, dry_run=dry_run, warnings=warnings)


def _apply(
    cluster: Cluster,
    obj: objects.Object,
    manager: str,
    *,
    force: bool,
    dry_run: bool,
    warnings: list[str] | None = None,
) -> objects.Object:
    try:
        return cluster.apply(obj, manager, force=force, dry_run=dry_run, warnings=warnings)
    except ApiError as error:
        if error.status == 409 and error.reason == "Conflict":
            raise ProviderError(
                f"another field manager owns fields that the program sets: {error}. Take them with the annotation "
                f'{objects.PATCH_FORCE}: "true", or leave them out of the program'
            ) from error
        raise


def merge_fields(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """The union of two fieldsV1 trees."""
    merged = dict(left)
    for key, value in right.items():
        merged[key] = merge_fields(merged.get(key, {}), value)
    return merged


def taken_over(managed: list[dict[str, Any]], manager: str) -> list[dict[str, Any]] | None:
    """managedFields in which our Apply manager owns what former managers wrote; None when nothing changes."""
    former = [
        entry
        for entry in managed
        if (entry.get("manager"), entry.get("operation")) in _FORMER_MANAGERS
        and not entry.get("subresource")
        and entry.get("manager") != manager
    ] + [
        entry
        for entry in managed
        if entry.get("manager") == manager == FIELD_MANAGER and entry.get("operation") == "Update"
    ]
    if not former:
        return None
    own = [entry for entry in managed if (entry.get("manager"), entry.get("operation")) == (manager, "Apply")]
    fields: dict[str, Any] = {}
    for entry in [*own, *former]:
        fields = merge_fields(fields, entry.get("fieldsV1", {}))
    base = {key: value for key, value in (own or former)[0].items() if key != "subresource"}
    ours = {**base, "manager": manager, "operation": "Apply", "fieldsV1": fields}
    rest = [entry for entry in managed if all(entry is not gone for gone in [*own, *former])]
    return [ours, *rest]


def take_over(cluster: Cluster, live: objects.Object, manager: str) -> None:
    """Move what plain creates and updates wrote to our Apply manager, so that removed fields really go."""
    managed = taken_over(objects.get(live, "metadata", "managedFields", default=[]), manager)
    if managed is None:
        return
    cluster.json_patch(
        live,
        [
            {"op": "test", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/metadata/managedFields", "value": managed},
        ],
    )


def relinquish(cluster: Cluster, obj: objects.Object, manager: str) -> None:
    """Give up every field of a `…Patch` resource by applying nothing under its manager."""
    metadata = {"name": objects.name_of(obj)}
    if objects.namespace_of(obj):
        metadata["namespace"] = objects.namespace_of(obj)
    empty = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    cluster.apply(empty, manager, force=False, dry_run=False)


def propagation(inputs: objects.Object) -> str:
    """How dependents go with an object: foreground unless its annotation says otherwise."""
    wanted = objects.annotation(inputs, objects.DELETION_PROPAGATION).lower()
    return {"orphan": "Orphan", "background": "Background"}.get(wanted, "Foreground")
