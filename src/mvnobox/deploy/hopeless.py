"""Pods that wait for what their node will never give: told at once with the remedy, not after the engine's patience."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterable
from typing import Any

from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.kernel import TUN, TUN_REMEDY
from mvnobox.errors import EnvironmentUnfit, KitError

OURS = "app.kubernetes.io/part-of=mvno-in-a-box"
# How our own containers tell it; see templates/open5gs/upf.sh.j2 and mvnobox.core.sim.
_TOLD = re.compile(r"^(?P<cause>.+); remedy: (?P<remedy>.+)$")


def _at(stamp: str | None) -> dt.datetime:
    return dt.datetime.fromisoformat(stamp) if stamp else dt.datetime.min.replace(tzinfo=dt.UTC)


def _said(message: str) -> tuple[str, str] | None:
    """(cause, remedy) out of a container's last words, plain or a log's JSON."""
    for line in reversed(message.strip().splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            line = str(json.loads(line)["msg"])
        if match := _TOLD.match(line.strip()):
            return match["cause"], match["remedy"]
    return None


def _of_containers(pod: dict[str, Any], since: dt.datetime) -> tuple[str, str] | None:
    status = pod.get("status", {})
    for one in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        for state in (one.get("state", {}), one.get("lastState", {})):
            ended = state.get("terminated", {})
            if (
                ended.get("exitCode")
                and _at(ended.get("finishedAt")) >= since
                and (found := _said(ended.get("message", "")))
            ):
                return found
    return None


def verdict(
    pods: Iterable[dict[str, Any]], events: Iterable[dict[str, Any]], since: dt.datetime
) -> EnvironmentUnfit | None:
    """Why one of the pods cannot ever start on its node; only what was seen `since` counts, as the rest may be mended."""
    pending = {}
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status", {})
        name = f"pod {meta['namespace']}/{meta['name']}"
        if status.get("reason") == "SysctlForbidden" and _at(meta.get("creationTimestamp")) >= since:
            return EnvironmentUnfit(
                f"{name}: the node's kubelet forbids a sysctl of user planes (net.ipv4.ip_forward, or "
                "net.ipv6.conf.all.forwarding with a pool6)",
                "pulumi config set forwarding node, or allow them there (allowedUnsafeSysctls)",
            )
        if told := _of_containers(pod, since):
            return EnvironmentUnfit(f"{name}: {told[0]}", told[1])
        if status.get("phase") == "Pending":
            pending[meta["namespace"], meta["name"]] = (name, pod.get("spec", {}).get("nodeName", "the node"))
    for event in events:
        about = event.get("involvedObject", {})
        found = pending.get((about.get("namespace", ""), about.get("name", "")))
        fresh = _at(event.get("lastTimestamp") or event.get("eventTime")) >= since
        if found and fresh and event.get("reason") == "FailedMount" and str(TUN) in event.get("message", ""):
            return EnvironmentUnfit(f"{found[0]}: {found[1]} has no TUN devices ({TUN})", f"on the node: {TUN_REMEDY}")
    return None


class Watch:
    """Looks after the pods of a cluster while something waits for them."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        # Kubernetes' times are whole seconds.
        self._since = dt.datetime.now(dt.UTC).replace(microsecond=0)

    def __call__(self) -> EnvironmentUnfit | None:
        """What makes waiting useless; None where nothing is known to."""
        ask = ("-A", "--request-timeout=5s")
        try:
            pods = self._kubectl.json("get", "pods", "-l", OURS, *ask)["items"]
            if all(pod.get("status", {}).get("phase") == "Running" for pod in pods) and not any(
                _of_containers(pod, self._since) for pod in pods
            ):
                return None
            events = self._kubectl.json("get", "events", "--field-selector=reason=FailedMount", *ask)["items"]
        except KitError:
            return None
        return verdict(pods, events, self._since)
