"""Watches go on over lost connections and lost history."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mvnobox.core.operator import (
    CoreInput,
    Event,
    EventKind,
    Open5GS,
    OperatorClient,
    Unreachable,
    to_open5gs,
)


def named(core: CoreInput, name: str) -> Open5GS:
    return to_open5gs(replace(core, name=name))


def told(events: Iterator[Event[Open5GS]], count: int) -> list[tuple[str, str]]:
    """The next so many events that are no bookmarks."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        event = next(events)
        if event.resource is not None:
            found.append((event.kind.value, event.resource.name))
    return found


def test_what_is_there_then_each_change(operator: OperatorClient, core: CoreInput, raw: Any) -> None:
    operator.create(named(core, "a"))
    with operator.watch(Open5GS, core.namespace, timeout=30) as events:
        assert told(events, 1) == [("ADDED", "a")]
        mark = next(events)
        assert mark.kind is EventKind.BOOKMARK and mark.resource is None
        raw.patch(named(core, "a"), {"spec": {"nrf": {"metrics": True}}})
        event = next(events)
        assert event.kind is EventKind.MODIFIED and event.resource is not None
        assert event.resource.spec.nrf is not None and event.resource.spec.nrf.metrics is True
        assert events.resource_version == event.resource_version
        raw.remove(named(core, "a"))
        assert told(events, 1) == [("DELETED", "a")]


def test_from_a_version_only_what_came_after(operator: OperatorClient, core: CoreInput) -> None:
    operator.create(named(core, "a"))
    version = operator.list(Open5GS, core.namespace).resource_version
    operator.create(named(core, "b"))
    with operator.watch(Open5GS, core.namespace, resource_version=version, timeout=30) as events:
        assert told(events, 1) == [("ADDED", "b")]


def test_the_servers_bookmarks_move_the_version_on(operator: OperatorClient, core: CoreInput) -> None:
    """What happens in other namespaces is not told here, but the version follows it."""
    with operator.watch(Open5GS, core.namespace, timeout=30, window=5) as events:
        assert next(events).kind is EventKind.BOOKMARK
        operator.create(named(core, "a"))
        told(events, 1)
        # The connection is open now. The server's bookmarks come shortly before it ends a watch, if something happened.
        elsewhere = operator.create(named(replace(core, namespace="default"), f"x-{core.namespace}"))
        version = int(elsewhere.metadata.resourceVersion or 0)
        mark = next(event for event in events if event.kind is EventKind.BOOKMARK)
        assert int(mark.resource_version) >= version and events.resource_version == mark.resource_version


def test_a_lost_connection_loses_no_event(
    operator: OperatorClient, through: OperatorClient, forwarder: Any, core: CoreInput, raw: Any
) -> None:
    operator.create(named(core, "a"))
    with through.watch(Open5GS, core.namespace, timeout=60) as events:
        assert told(events, 1) == [("ADDED", "a")]
        operator.create(named(core, "b"))
        assert told(events, 1) == [("ADDED", "b")]
        before = forwarder.connections
        forwarder.cut(stay_closed=True)
        raw.remove(named(core, "a"))
        operator.create(named(core, "c"))
        threading.Timer(0.5, forwarder.reopen).start()
        # b's fields were made over after its creation, which is a change too.
        found = [item for item in told(events, 3) if item != ("MODIFIED", "b")]
        assert found[0] == ("DELETED", "a") and found[1] == ("ADDED", "c")
        assert forwarder.connections > before


def test_a_server_that_stays_away_is_told(through: OperatorClient, forwarder: Any, core: CoreInput) -> None:
    with through.watch(Open5GS, core.namespace, timeout=60, patience=0.5) as events:
        assert next(events).kind is EventKind.BOOKMARK
        forwarder.cut(stay_closed=True)
        with pytest.raises(Unreachable):
            next(events)


def test_close_ends_a_wait_in_another_thread(operator: OperatorClient, core: CoreInput) -> None:
    events = operator.watch(Open5GS, core.namespace)
    assert next(events).kind is EventKind.BOOKMARK
    seen: queue.Queue[str] = queue.Queue()

    def follow() -> None:
        for event in events:
            seen.put(event.kind.value)
        seen.put("end")

    threading.Thread(target=follow, daemon=True).start()
    operator.create(named(core, "a"))
    assert [seen.get(timeout=20), seen.get(timeout=20)] == ["ADDED", "MODIFIED"]
    events.close()
    assert seen.get(timeout=10) == "end"


def test_time_out(operator: OperatorClient, core: CoreInput) -> None:
    events = operator.watch(Open5GS, core.namespace, timeout=1)
    assert {event.kind for event in events} == {EventKind.BOOKMARK}


def test_a_version_from_before_the_history(operator: OperatorClient, core: CoreInput) -> None:
    """410 Gone for a version that came from outside: a reset, then all that exists."""
    operator.create(named(core, "a"))
    with operator.watch(Open5GS, core.namespace, resource_version="1", timeout=30) as events:
        kinds = [next(events).kind for _ in range(3)]
    assert kinds == [EventKind.RESET, EventKind.ADDED, EventKind.BOOKMARK]


def test_history_lost_while_the_connection_was(
    server: Any, through: OperatorClient, forwarder: Any, core: CoreInput, raw: Any, operator: OperatorClient
) -> None:
    """A server that started again keeps no older history: 410, so what changed is found by a new list."""
    for name in ("a", "b", "same"):
        operator.create(named(core, name))
    with through.watch(Open5GS, core.namespace, timeout=90, patience=60) as events:
        assert sorted(told(events, 3)) == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "same")]
        operator.create(named(core, "late"))
        assert told(events, 2) == [("ADDED", "late"), ("MODIFIED", "late")]
        forwarder.cut(stay_closed=True)
        raw.remove(named(core, "a"))
        raw.remove(named(core, "late"))
        raw.patch(named(core, "b"), {"spec": {"nrf": {"metrics": True}}})
        operator.create(named(core, "c"))
        server.stop()
        server.start()
        forwarder.reopen()
        found = []
        while True:
            event = next(events)
            if event.resource is not None:
                found.append((event.kind.value, event.resource.name))
            elif event.kind is EventKind.BOOKMARK and found:
                break
            assert event.kind is not EventKind.RESET
        assert sorted(found) == [("ADDED", "c"), ("DELETED", "a"), ("DELETED", "late"), ("MODIFIED", "b")]
