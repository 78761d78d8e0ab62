"""Maximum bit rates: what passes, what waits, what is lost."""

from __future__ import annotations

import pytest

from mvnobox.core.sim import shaper
from mvnobox.core.sim.shaper import LEAST_BURST, LEAST_QUEUE, Shaper


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(shaper.time, "monotonic", lambda: now[0])
    return now


def limited(rate: int) -> Shaper:
    made = Shaper()
    made.rate = rate
    return made


def test_without_a_rate_everything_passes() -> None:
    free = Shaper()
    assert all(free.passes(1500) for _ in range(10_000)) and free.delay() is None


def test_over_time_the_rate_is_what_passes(clock: list[float]) -> None:
    one = limited(1_000_000)
    passed = 0
    for _ in range(2000):
        clock[0] += 0.001
        while one.passes(1000):
            passed += 1000
    # Two seconds, and the bucket that was full at the start.
    assert 2_000_000 <= passed <= 2_000_000 + LEAST_BURST + 1000


def test_what_waits_keeps_its_order_and_goes_when_it_may(clock: list[float]) -> None:
    one = limited(1_000_000)
    while one.passes(1000):
        pass
    packets = [bytes([number]) * 1000 for number in range(5)]
    assert all(one.wait(packet) for packet in packets)
    # The first one that comes later does not overtake.
    clock[0] += 0.002
    assert not one.passes(1000)
    going = one.ready()
    delay = one.delay()
    assert going == packets[: len(going)] and 0 < len(going) < 5 and delay is not None
    clock[0] += 1
    assert going + one.ready() == packets and one.delay() is None


def test_a_full_queue_takes_no_more(clock: list[float]) -> None:
    one = limited(8_000)
    taken = 0
    while one.wait(bytes(1000)):
        taken += 1000
    assert LEAST_QUEUE - 1000 < taken <= LEAST_QUEUE


def test_a_rate_that_is_lifted_lets_everything_go(clock: list[float]) -> None:
    one = limited(1)
    one.wait(bytes(60_000))
    one.wait(bytes(5_000))
    one.rate = 0
    assert one.delay() == 0 and len(one.ready()) == 2
