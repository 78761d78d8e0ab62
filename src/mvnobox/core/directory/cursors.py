"""Results longer than one answer, and change streams: what a server keeps between two getMore."""

from __future__ import annotations

import secrets
import time
from typing import Generic, TypeVar

MOST = 256
IDLE_SECONDS = 600.0
T = TypeVar("T")


class Cursors(Generic[T]):
    """A bounded set of cursors; the one that rested longest gives way. A replica knows its own only."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, T]] = {}

    def add(self, state: T, identity: int | None = None) -> int:
        """Keep a state; its cursor's id, never 0."""
        self._known = {key: entry for key, entry in self._known.items() if time.monotonic() - entry[0] < IDLE_SECONDS}
        if len(self._known) >= MOST:
            del self._known[min(self._known, key=lambda key: self._known[key][0])]
        identity = identity or secrets.randbelow(2**62) + 1
        self._known[identity] = (time.monotonic(), state)
        return identity

    def take(self, identity: int) -> T | None:
        """The state of a cursor, which is forgotten until it is added again; None for an unknown one."""
        return self._known.pop(identity, (0.0, None))[1]
