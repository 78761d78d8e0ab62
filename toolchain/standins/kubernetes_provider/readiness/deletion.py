"""Waiting until a deleted object is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .. import objects
from ..cluster import Cluster
from ..errors import ApiError, NoSuchKind, NotReady


def await_gone(
    cluster: Cluster,
    obj: objects.Object,
    uid: str,
    timeout: float,
    cancelled: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Return when the object is gone or another one has its name. Raises NotReady with what holds it."""
    started, pause, said = time.monotonic(), 0.1, ""
    while True:
        try:
            live = cluster.read(obj)
        except NoSuchKind:
            return
        except ApiError as error:
            if error.status == 404:
                return
            raise
        if uid and objects.get(live, "metadata", "uid") != uid:
            return
        held = objects.get(live, "metadata", "finalizers", default=[])
        own = [name for name in held if name not in ("foregroundDeletion", "orphan")]
        text = f"finalizers hold it: {', '.join(own)}" if own else "waiting for what belongs to it to go"
        blocked = objects.condition(live, "NamespaceContentRemaining").get("message")
        text = str(blocked) if blocked else text
        waited = time.monotonic() - started
        if waited > 2 and text != said:
            said = text
            say(text)
        if waited > timeout:
            raise NotReady(live, [f"it was not gone after {waited:.0f} s: {text}"])
        if cancelled.wait(pause):
            raise NotReady(live, ["the deletion was cancelled while waiting for it to end"])
        pause = min(pause * 1.5, 1.0)
