"""Why pods do not run, in words: images, scheduling, crashes with the last lines of their logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import objects
from ..cluster import Cluster

# States that no amount of waiting mends.
_HOPELESS = {"InvalidImageName", "ErrImageNeverPull"}
_TROUBLE = {
    "ErrImagePull",
    "ImagePullBackOff",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    *_HOPELESS,
}
CRASHES_TOO_MANY = 6


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a pod; hopeless when it cannot heal without a change."""

    text: str
    hopeless: bool = False


def ready(pod: objects.Object) -> bool:
    """Whether the pod's Ready condition holds."""
    return objects.condition(pod, "Ready").get("status") == "True"


def troubles(cluster: Cluster, pod: objects.Object, *, logs: bool) -> list[Trouble]:
    """What is wrong with the pod now; with the last log lines of crashed containers when asked."""
    found: list[Trouble] = []
    name = objects.name_of(pod)
    scheduled = objects.condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        found.append(Trouble(f"pod {name} cannot be scheduled: {scheduled.get('message', scheduled.get('reason'))}"))
    statuses: list[tuple[str, Any]] = [
        (word, status)
        for word, key in (("init container", "initContainerStatuses"), ("container", "containerStatuses"))
        for status in objects.get(pod, "status", key, default=[])
    ]
    for word, status in statuses:
        trouble = _container(cluster, pod, word, status, logs)
        if trouble is not None:
            found.append(trouble)
    if not found and objects.get(pod, "status", "phase") == "Failed":
        said = objects.get(pod, "status", "message", default=objects.get(pod, "status", "reason", default=""))
        found.append(Trouble(f"pod {name} failed: {said}", hopeless=True))
    return found


def _container(cluster: Cluster, pod: objects.Object, word: str, status: dict[str, Any], logs: bool) -> Trouble | None:
    name, container = objects.name_of(pod), status.get("name", "")
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting, restarts = state.get("waiting") or {}, int(status.get("restartCount", 0))
    ended = state.get("terminated") or {}
    crashed = (
        (ended if ended.get("exitCode") else None) or (last.get("terminated") if waiting or restarts else None) or {}
    )
    where = f"{word} {container} of pod {name}"
    if waiting.get("reason") in _TROUBLE and waiting["reason"] != "CrashLoopBackOff":
        said = waiting.get("message") or waiting["reason"]
        return Trouble(f"{where}: {waiting['reason']}: {said}", waiting["reason"] in _HOPELESS)
    if crashed.get("exitCode") and not status.get("ready"):
        how = f"exit code {crashed['exitCode']}" + (f", {crashed['reason']}" if crashed.get("reason") else "")
        text = f"{where} ended with {how}"
        if restarts:
            text += f" ({restarts} restart{'s' if restarts > 1 else ''})"
        if said := str(crashed.get("message") or "").strip():
            text += f": {said.splitlines()[-1]}"
        elif logs:
            previous = not ended
            lines = cluster.log_tail(objects.namespace_of(pod), name, container, previous)
            lines = lines or cluster.log_tail(objects.namespace_of(pod), name, container, not previous)
            if lines:
                text += "; last log lines: " + " | ".join(lines)
        return Trouble(text, restarts >= CRASHES_TOO_MANY)
    return None


def selected(cluster: Cluster, namespace: str, selector: dict[str, Any]) -> list[objects.Object]:
    """The pods that a label selector picks, without those on their way out."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or []:
        operator, key = item["operator"], item["key"]
        if operator in ("In", "NotIn"):
            terms.append(f"{key} {operator.lower()} ({','.join(item['values'])})")
        else:
            terms.append(key if operator == "Exists" else f"!{key}")
    if not terms:
        return []
    found = cluster.list("v1", "Pod", namespace, ",".join(terms))
    return [pod for pod in found if not objects.get(pod, "metadata", "deletionTimestamp")]
