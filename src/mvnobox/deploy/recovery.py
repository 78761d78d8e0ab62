"""What `up` mends of an earlier run before it goes on."""

from __future__ import annotations

import time
from typing import Any

from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.report import Reporter
from mvnobox.errors import Failed

READY_SECONDS = 300.0
_POLL_SECONDS = 1.0

_WAITS = ("CrashLoopBackOff", "ImagePullBackOff")


def waits_after_failure(pod: dict[str, Any]) -> bool:
    """Whether a container of the pod is held back after failing; the kubelet lets it wait up to five minutes."""
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return any(one.get("state", {}).get("waiting", {}).get("reason") in _WAITS for one in containers)


def restart_waiting(kubectl: Kubectl, report: Reporter) -> None:
    """Start pods of ours anew that wait after failures: what they failed for may be what this run mends."""
    pods = kubectl.json("get", "pods", "-A", "-l", "app.kubernetes.io/part-of=mvno-in-a-box")["items"]
    for pod in filter(waits_after_failure, pods):
        meta = pod["metadata"]
        kubectl.run("-n", meta["namespace"], "delete", "pod", meta["name"], "--wait=false")
        report.note(f"pod {meta['namespace']}/{meta['name']} waited after failing; started anew")


def unready(kubectl: Kubectl) -> list[str]:
    """Pods of ours that are not ready, finished ones aside."""
    pods = kubectl.json("get", "pods", "-A", "-l", "app.kubernetes.io/part-of=mvno-in-a-box")["items"]
    found = []
    for pod in pods:
        status = pod.get("status", {})
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
        if not ready and status.get("phase") != "Succeeded":
            found.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    return found


def await_ready(kubectl: Kubectl, report: Reporter) -> None:
    """Wait for pods that were there before this run, after a machine's restart for instance. Raises Failed."""
    if not unready(kubectl):
        return
    with report.task("Waiting for what was there to be ready again") as task:
        deadline = time.monotonic() + READY_SECONDS
        while waiting := unready(kubectl):
            if time.monotonic() > deadline:
                raise Failed(
                    f"not ready within {READY_SECONDS:.0f} s: {', '.join(waiting)}",
                    'eval "$(./mvno env)"; kubectl describe and kubectl logs say why',
                )
            task.update(", ".join(waiting[:3]))
            time.sleep(_POLL_SECONDS)
