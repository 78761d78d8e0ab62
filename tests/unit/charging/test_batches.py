"""Which requests share a transaction: the batches' sizes and moments, over a database that the tests let go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mvnobox.charging.batches import LARGEST, Batches
from mvnobox.charging.ledger import Call, Reply
from mvnobox.charging.settings import OcsSettings
from mvnobox.service.pipeline import Row


def done(number: int) -> Reply:
    """What a call of this number is answered."""
    return Reply("done", None, str(number), 0, 0)


class Paper(Batches):
    """Keeps the batches' sizes; each takes as long as `work` says."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(None, None, OcsSettings())  # type: ignore[arg-type]
        self.sizes: list[int] = []
        self.at_once = self.most_at_once = 0
        self._work_of = work

    def together(self, calls: list[Call]) -> asyncio.Future[list[Row]]:
        self.sizes.append(len(calls))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        return asyncio.ensure_future(self._worked(calls))

    async def _worked(self, calls: list[Call]) -> list[Row]:
        await self._work_of()
        self.at_once -= 1
        rows: list[Row] = [
            (int.to_bytes(number, 8), b"done", None, str(one.sequence).encode(), bytes(8), bytes(4))
            for number, one in enumerate(calls, 1)
        ]
        return rows[::-1]


def call(number: int) -> Call:
    return Call("update", "alpha", number, [])


async def walkers(batches: Batches, count: int, each: int) -> None:
    async def walk() -> None:
        for number in range(each):
            assert await batches.charge(call(number)) == done(number)

    await asyncio.gather(*(walk() for _ in range(count)))


async def turns() -> None:
    """As long as it takes others to come."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("count", "size", "at_once"), [(4, 4, 1), (8, 8, 1), (16, 8, 2), (40, 20, 2), (100, 32, 2)])
async def test_many_requests_are_two_batches_in_turn(count: int, size: int, at_once: int) -> None:
    batches = Paper(turns)
    await walkers(batches, count, 60)
    settled = sorted(batches.sizes[len(batches.sizes) // 3 : -4])
    assert settled[len(settled) // 2] == pytest.approx(size, abs=1)
    assert batches.most_at_once == at_once
    assert max(batches.sizes) <= LARGEST
    assert sum(batches.sizes) == count * 60


async def test_who_is_alone_does_not_wait() -> None:
    loop = asyncio.get_running_loop()
    batches = Paper(turns)
    await walkers(batches, 1, 5)
    started = loop.time()
    later = loop.call_later  # a timer would be a wait
    timers: list[float] = []
    loop.call_at = lambda when, *rest, **more: timers.append(when) or later(0, *rest, **more)  # type: ignore
    try:
        await walkers(batches, 1, 20)
    finally:
        del loop.call_at
    assert batches.sizes == [1] * 25 and not timers, loop.time() - started


async def test_requests_of_a_crowd_that_has_gone_wait_a_moment_only() -> None:
    batches = Paper(turns)
    await walkers(batches, 30, 10)
    async with asyncio.timeout(1):
        await walkers(batches, 1, 20)
    assert batches.sizes[-1] == 1


async def test_a_batch_that_waits_for_a_lock_holds_nobody_up() -> None:
    lock, first = asyncio.Event(), True

    async def work() -> None:
        nonlocal first
        if first:
            first = False
            await lock.wait()

    batches = Paper(work)
    stuck = asyncio.ensure_future(batches.charge(call(1)))
    await turns()
    async with asyncio.timeout(1):
        await walkers(batches, 3, 10)
    assert not stuck.done() and batches.most_at_once == 2
    lock.set()
    assert await stuck == done(1)


async def test_the_first_half_is_on_its_way_before_the_second_is_read() -> None:
    """Who makes a batch full sends it: requests that come together are two batches, not two after all have come."""
    batches = Paper(turns)
    batches._lately = 16
    sent_before: list[int] = []

    async def one(number: int) -> None:
        sent_before.append(len(batches.sizes))
        await batches.charge(call(number))

    await asyncio.gather(*(one(number) for number in range(16)))
    assert sent_before == [0] * 8 + [1] * 8 and batches.sizes == [8, 8]


async def test_one_who_gives_up_leaves_nobody_else_without_an_answer() -> None:
    """Whoever made the batch full or not: it goes on, and what it was charged is stored."""
    back = asyncio.Event()
    batches = Paper(back.wait)
    batches._lately = 3
    waiting = [asyncio.ensure_future(batches.charge(call(number))) for number in range(3)]
    await turns()
    assert batches.sizes == [3]
    waiting[2].cancel()
    back.set()
    assert await asyncio.gather(*waiting[:2]) == [done(0), done(1)]
    with pytest.raises(asyncio.CancelledError):
        await waiting[2]


async def test_a_batch_that_is_given_up_goes_call_by_call() -> None:
    asked: list[int] = []

    class OneByOne:
        async def charge(self, call: Call) -> Reply:
            asked.append(call.sequence)
            return done(call.sequence)

    class GivenUp(Paper):
        def together(self, calls: list[Call]) -> asyncio.Future[list[Row]]:
            rows = super().together(calls)
            rows.cancel()
            return rows

    batches = GivenUp(turns)
    batches._ledger = OneByOne()
    batches._lately = 3
    assert await asyncio.gather(*(batches.charge(call(number)) for number in range(3))) == [done(0), done(1), done(2)]
    assert sorted(asked) == [0, 1, 2]


async def test_who_leaves_a_word_is_told_once_whatever_happens() -> None:
    class OneByOne:
        async def charge(self, call: Call) -> Reply:
            raise OSError(call.sequence)

    async def fail() -> None:
        raise TimeoutError

    for work, kinds in ((turns, {Reply}), (fail, {OSError})):
        batches = Paper(work)
        batches._ledger = OneByOne()
        told: list[Reply | Exception] = []
        for number in range(20):
            batches.submit(call(number), told.append)
            assert not told, "before whoever asked is ready to hear it"
        while len(told) < 20:
            await turns()
        await turns()
        assert len(told) == 20 and {type(one) for one in told} == kinds
        if kinds == {Reply}:
            assert sorted(told, key=lambda one: int(one.body)) == [done(number) for number in range(20)]


async def test_one_who_fails_to_take_an_answer_takes_it_from_nobody_else() -> None:
    batches, told = Paper(turns), []
    batches._lately = 3

    def fail(reply: Reply | Exception) -> None:
        raise RuntimeError

    for number, word in enumerate((told.append, fail, told.append)):
        batches.submit(call(number), word)
    while len(told) < 2:
        await turns()
    assert told == [done(0), done(2)]


async def test_who_comes_while_a_batch_goes_is_no_batch() -> None:
    """Nine of ten are enough, the tenth comes and makes it full, and then the eleventh: he waits for others."""
    batches = Paper(turns)
    batches._lately = 10
    waiting = [batches.charge(call(number)) for number in range(11)]
    await asyncio.sleep(0)
    assert batches.sizes == [10]
    assert await asyncio.gather(*waiting) == [done(number) for number in range(11)]


async def test_a_batch_that_fails_goes_call_by_call_and_only_the_bad_one_fails() -> None:
    class OneByOne:
        async def charge(self, call: Call) -> Reply:
            if call.sequence == 1:
                raise ValueError("bad")
            return done(call.sequence)

    async def fail() -> None:
        raise OSError

    batches = Paper(fail)
    batches._ledger = OneByOne()
    batches._lately = 3
    found = await asyncio.gather(*(batches.charge(call(number)) for number in range(3)), return_exceptions=True)
    assert found[0] == done(0) and isinstance(found[1], ValueError) and found[2] == done(2)
