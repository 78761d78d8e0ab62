"""Whether the operator has done what a resource asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .models import NETWORK_FUNCTIONS, USER_FINALIZER, Open5GS, Open5GSUser, Resource

INSTANCE_LABEL = "app.kubernetes.io/instance"
NAME_LABEL = "app.kubernetes.io/name"


@dataclass(frozen=True)
class Readiness:
    """`reason` says by what it is judged, or what is missing."""

    ready: bool
    reason: str


class Deployment(Protocol):
    """The kubernetes client's V1Deployment, as far as it is read here."""

    metadata: Any
    spec: Any
    status: Any


def by_status(resource: Resource) -> Readiness | None:
    """What the status says, None where it says nothing (operator 1.0.7 writes none)."""
    status = resource.to_object().get("status") or {}
    ready = status.get("ready")
    if not isinstance(ready, bool):
        return None
    seen, current = status.get("observedGeneration"), resource.metadata.generation
    if isinstance(seen, int) and current is not None and seen < current:
        return Readiness(False, f"the status is of generation {seen}, the resource of {current}")
    return Readiness(ready, "status.ready is true" if ready else "status.ready is false")


def by_finalizer(user: Open5GSUser) -> Readiness:
    """Whether the operator has taken a user up; that it is in the core's database cannot be seen in Kubernetes."""
    if USER_FINALIZER in (user.metadata.finalizers or []):
        return Readiness(True, "the operator has taken the user up")
    return Readiness(False, "the operator has not taken the user up; is its controller running?")


def by_deployments(core: Open5GS, deployments: Sequence[Deployment]) -> Readiness:
    """Whether each function that is enabled has a Deployment whose current generation is wholly available."""
    effective = core.spec.effective()
    found = {(item.metadata.labels or {}).get(NAME_LABEL): item for item in deployments}
    waiting = []
    for name in NETWORK_FUNCTIONS:
        if getattr(effective, name).enabled and (missing := _missing(found.get(name.lower()))):
            waiting.append(f"{name}: {missing}")
    if waiting:
        return Readiness(False, "; ".join(waiting))
    return Readiness(True, "the Deployments of all enabled functions are available")


def _missing(deployment: Deployment | None) -> str:
    if deployment is None:
        return "no Deployment yet"
    status, generation = deployment.status, deployment.metadata.generation or 0
    if status is None or (status.observed_generation or 0) < generation:
        return "its Deployment's newest form has not been looked at"
    wanted = 1 if deployment.spec.replicas is None else deployment.spec.replicas
    updated, available = status.updated_replicas or 0, status.available_replicas or 0
    if updated < wanted or available < wanted:
        return f"{min(updated, available)} of {wanted} pods available"
    if (status.replicas or 0) > updated:
        return f"{available} of {wanted} pods available, and an old one not gone"
    return ""
