"""Waiting until an object is ready, with progress told and reasons gathered when it does not get there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .. import objects
from ..cluster import Cluster
from ..errors import ApiError, NotReady, Unreachable
from . import pods
from .kinds import CHECKS, SELECTORS
from .verdict import Verdict

DEFAULT_TIMEOUT = 600.0
# An object whose pods cannot heal by themselves is given this long, in case somebody is mending it.
HOPELESS_AFTER = 20.0
_POLL = (0.15, 0.25, 0.4, 0.6, 1.0)
_LOOK_AT_PODS_AFTER = 3.0


def is_awaited(obj: objects.Object) -> bool:
    """Whether readiness means anything for the object and it does not opt out."""
    return objects.kind_of(obj) in CHECKS and not objects.is_true(obj, objects.SKIP_AWAIT)


def timeout_of(obj: objects.Object, custom: float) -> float:
    """Seconds to wait: the resource's customTimeouts, else its annotation, else ten minutes."""
    if custom:
        return custom
    text = objects.annotation(obj, objects.TIMEOUT_SECONDS)
    try:
        return float(text) if text else DEFAULT_TIMEOUT
    except ValueError:
        return DEFAULT_TIMEOUT


def await_ready(
    cluster: Cluster,
    obj: objects.Object,
    timeout: float,
    cancelled: threading.Event,
    say: Callable[[str], None],
) -> objects.Object:
    """The live object once it is ready. Raises NotReady with its last state and every reason found."""
    check = CHECKS[objects.kind_of(obj)]
    started = time.monotonic()
    live, said, hopeless_since, polls, answered = obj, "", None, 0, started
    old_failure = ""
    while True:
        try:
            if polls:
                live = cluster.read(live)
            verdict = check(cluster, live)
            answered = time.monotonic()
        except Unreachable:
            if time.monotonic() - answered > 60:
                raise
            verdict = Verdict(waiting_for="the Kubernetes API server to answer again")
        except ApiError as error:
            if error.status == 404:
                raise NotReady(live, ["it was deleted while it was awaited"]) from error
            verdict = Verdict(waiting_for=str(error))
        if verdict.ready:
            return live
        if not polls:
            old_failure = verdict.since
        if verdict.since and verdict.since == old_failure:
            # The mark of an earlier try: what stopped that one may have been mended.
            verdict.failed = []
        waited = time.monotonic() - started
        troubles: list[pods.Trouble] = []
        if verdict.failed or waited > _LOOK_AT_PODS_AFTER:
            troubles = _pod_troubles(cluster, live, logs=bool(verdict.failed))
        if verdict.failed:
            raise NotReady(live, [*verdict.failed, *(trouble.text for trouble in troubles)])
        text = verdict.waiting_for + (f"; {troubles[0].text}" if troubles else "")
        if text and text != said:
            said = text
            say(text)
        hopeless = any(trouble.hopeless for trouble in troubles)
        hopeless_since = (hopeless_since or time.monotonic()) if hopeless else None
        given_up = hopeless_since is not None and time.monotonic() - hopeless_since > HOPELESS_AFTER
        if given_up or waited > timeout:
            reasons = [trouble.text for trouble in _pod_troubles(cluster, live, logs=True)]
            first = f"it was not ready after {waited:.0f} s: {verdict.waiting_for}"
            raise NotReady(live, [first, *reasons])
        if cancelled.wait(_POLL[min(polls, len(_POLL) - 1)]):
            raise NotReady(live, [f"the update was cancelled while waiting: {verdict.waiting_for}"])
        polls += 1


def _pod_troubles(cluster: Cluster, live: objects.Object, *, logs: bool) -> list[pods.Trouble]:
    kind = objects.kind_of(live)
    try:
        if kind == "v1/Pod":
            return pods.troubles(cluster, live, logs=logs)
        if kind not in SELECTORS:
            return []
        selector = objects.get(live, *SELECTORS[kind], default={})
        found = pods.selected(cluster, objects.namespace_of(live), selector)
        return [trouble for pod in found if not pods.ready(pod) for trouble in pods.troubles(cluster, pod, logs=logs)]
    except (ApiError, Unreachable):
        return []
