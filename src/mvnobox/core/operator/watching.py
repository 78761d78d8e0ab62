"""A watch that goes on: over lost connections from where it was, over lost history from a new list."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from kubernetes.watch import Watch

from .errors import TimedOut, Unreachable
from .failures import Gone, told
from .models import Resource

T = TypeVar("T", bound=Resource)

_new_watch: Any = Watch
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class EventKind(StrEnum):
    """What a watch tells."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    # A point in time without a change: `resource_version` is safe to go on from.
    BOOKMARK = "BOOKMARK"
    # The server no longer had the history since a version given from outside: all that exists follows as ADDED up to
    # the next BOOKMARK, and what is not among it has been deleted.
    RESET = "RESET"


@dataclass(frozen=True)
class Event(Generic[T]):
    """`resource` is None for BOOKMARK and RESET; for DELETED it is the last known state."""

    kind: EventKind
    resource_version: str
    resource: T | None = None


@dataclass(frozen=True)
class Listing(Generic[T]):
    """All resources at one point in time, and the version to watch from."""

    items: list[T]
    resource_version: str


class _Stream(Protocol):
    def __call__(self, **query: Any) -> Any: ...


class Watching(Iterator[Event[T]]):
    """The events, as an iterator; `close` ends it from any thread. Not to be iterated by two threads."""

    def __init__(
        self,
        kind: type[T],
        lister: Callable[[], Listing[T]],
        stream: _Stream,
        *,
        resource_version: str | None,
        timeout: float | None,
        patience: float,
        window: int,
    ) -> None:
        self._kind, self._lister, self._stream = kind, lister, stream
        self._version = resource_version
        # What is there is known only if this watch began with a list.
        self._complete = resource_version is None
        self._known: dict[tuple[str, str], T] = {}
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._patience, self._window = patience, window
        self._closed = threading.Event()
        self._connected = False
        self._watch: Any = None  # a kubernetes.watch.Watch, which has no types
        self._events = self._run()

    @property
    def resource_version(self) -> str | None:
        """Where to go on from after a restart of the caller; None before the first list."""
        return self._version

    def __next__(self) -> Event[T]:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration, also one that waits in another thread."""
        self._closed.set()
        if self._watch is not None:
            self._watch.stop()

    def _over(self) -> bool:
        return self._closed.is_set() or (self._deadline is not None and time.monotonic() >= self._deadline)

    def _run(self) -> Iterator[Event[T]]:
        pause = _FIRST_PAUSE
        answered = time.monotonic()
        while not self._over():
            began, self._connected = time.monotonic(), False
            try:
                if self._version is None:
                    yield from self._relist()
                yield from self._once()
            except Gone:
                if not self._complete:
                    yield Event(EventKind.RESET, "")
                self._version = None
            except (Unreachable, TimedOut) as error:
                if self._closed.is_set():
                    return
                if not self._connected and time.monotonic() - answered > self._patience:
                    raise Unreachable(f"{error.cause} (for {self._patience:.0f} s)", error.remedy) from None
            if self._connected:
                answered = time.monotonic()
            # A server or proxy that ends every watch at once is not to be asked without a pause.
            if self._connected and time.monotonic() - began > 1:
                pause = _FIRST_PAUSE
            else:
                self._closed.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _relist(self) -> Iterator[Event[T]]:
        """Tell what a new list has that was not known, and what it lacks; then a bookmark."""
        listing = self._lister()
        there = {_key(item): item for item in listing.items}
        before, self._known = self._known, dict(there)
        # The version is set first: a caller that stops half way has seen what it was given and no more.
        self._version, self._complete = listing.resource_version, True
        for key, old in before.items():
            new = there.get(key)
            if new is None or new.metadata.uid != old.metadata.uid:
                yield Event(EventKind.DELETED, listing.resource_version, old)
        for key, item in there.items():
            known = before.get(key)
            if known is None or known.metadata.uid != item.metadata.uid:
                yield Event(EventKind.ADDED, item.metadata.resourceVersion or "", item)
            elif known.metadata.resourceVersion != item.metadata.resourceVersion:
                yield Event(EventKind.MODIFIED, item.metadata.resourceVersion or "", item)
        yield Event(EventKind.BOOKMARK, listing.resource_version)

    def _once(self) -> Iterator[Event[T]]:
        """One connection's events."""
        window = self._window
        if self._deadline is not None:
            window = max(1, min(window, round(self._deadline - time.monotonic())))
        self._watch = _new_watch(return_type="object")
        if self._closed.is_set():
            return
        query = {
            "resource_version": self._version,
            "timeout_seconds": window,
            "allow_watch_bookmarks": True,
            # A connection that died without a word is noticed when the server should have ended the watch.
            "_request_timeout": (10, window + 10),
        }
        with told(f"watch {self._kind.PLURAL}"):
            for raw in self._watch.stream(self._open, **query):
                if self._closed.is_set():
                    return
                if raw is not None:
                    yield self._typed(raw)

    def _open(self, **query: Any) -> Any:
        response = self._stream(**query)
        self._connected = 200 <= response.status < 300
        return response

    def _typed(self, raw: dict[str, Any]) -> Event[T]:
        document = raw["raw_object"]
        version = str(document["metadata"]["resourceVersion"])
        if raw["type"] == EventKind.BOOKMARK:
            self._version = version
            return Event(EventKind.BOOKMARK, version)
        resource = self._kind.from_object(document)
        kind = EventKind(raw["type"])
        if kind is EventKind.DELETED:
            self._known.pop(_key(resource), None)
        else:
            self._known[_key(resource)] = resource
        self._version = version
        return Event(kind, version, resource)


def _key(resource: Resource) -> tuple[str, str]:
    return resource.namespace, resource.name
