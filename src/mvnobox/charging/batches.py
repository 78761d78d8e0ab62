"""Charging requests that wait at the same time share a transaction: one round trip and one flush to disk for many."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Any

import asyncpg

from mvnobox.charging.ledger import Call, Engine, Reply
from mvnobox.charging.settings import OcsSettings

log = logging.getLogger(__name__)
# A batch is what has come while the ones before were under way; its answers wait for the whole.
LARGEST = 32
# So many requests at once are worth two batches in turn: while the database works on one, the other is read or answered.
# Each batch costs the database some 300 µs besides its requests, so fewer requests are one batch.
WORTH_TWO = 12
AT_ONCE = 2
# Peers answer a batch of answers with a batch of requests: a batch waits a moment until most of its share of the requests
# that were there lately have come; beside another one longer, should that one wait for a lock.
MOST = 0.9
GATHER_SECONDS = 0.002
PATIENCE_SECONDS = 0.01
STATEMENT_SECONDS = 5.0
_CHARGE = "SELECT * FROM charge_batch({})".format(", ".join(f"${n}" for n in range(1, 23)))

_Waiting = tuple[Call, asyncio.Future[Reply]]


def _array(values: list[int | None] | list[int] | list[str | None]) -> str:
    return "{" + ",".join("NULL" if value is None else str(value) for value in values) + "}"


def _row(call: Call) -> tuple[Any, ...]:
    """A call as `charge_batch` takes it; see there."""
    common = (
        call.operation, call.brand, call.ref, call.sequence, call.subscriber, call.key, call.stamp, call.again,
        call.notify,
    )  # fmt: skip
    units = call.units
    if len(units) == 1:
        one = units[0]
        return (*common, one.rating, one.unit, one.used, one.wanted, None, None, None, None)
    return (
        *common, None, None, None, None,
        _array([one.rating for one in units]), _array([one.unit for one in units]),
        _array([one.used for one in units]), _array([one.wanted for one in units]),
    )  # fmt: skip


class Batches:
    """An Engine over a ledger. Calls have to carry a `ref`; a batch that fails is charged call by call."""

    def __init__(self, pool: asyncpg.Pool, ledger: Engine, settings: OcsSettings) -> None:
        self._pool, self._ledger = pool, ledger
        self._terms = (
            settings.validity_seconds,
            settings.grace_seconds,
            settings.quota_threshold_percent,
            settings.session_seconds,
        )
        self._waiting: deque[_Waiting] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        # Requests that are under way in batches; and how many there were lately with those that waited.
        self._under_way = 0
        self._lately = 1.0

    async def charge(self, call: Call) -> Reply:
        """See `Ledger.charge`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((call, answer))
        self._start()
        return await answer

    @property
    def _share(self) -> float:
        """How many requests a batch should have."""
        return min(self._lately / AT_ONCE if self._lately >= WORTH_TWO else self._lately, LARGEST)

    def _start(self) -> None:
        """Send the next batch if there is one and it is time for it; or else see to it that it will be in time."""
        if not self._waiting or len(self._workers) >= AT_ONCE:
            return
        if len(self._waiting) >= MOST * self._share and (not self._workers or self._lately >= WORTH_TWO):
            self._send()
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + (PATIENCE_SECONDS if self._workers else GATHER_SECONDS)
        if self._later is not None and self._later.when() > until:
            self._later.cancel()
            self._later = None
        if self._later is None:
            self._later = loop.call_at(until, self._in_time)

    def _in_time(self) -> None:
        self._later = None
        if self._waiting and len(self._workers) < AT_ONCE:
            self._send()

    def _send(self) -> None:
        # What comes in the same turn of the event loop is in the batch, too.
        task = asyncio.get_running_loop().create_task(self._work())
        self._workers.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._workers.discard(task)
        self._start()

    async def _work(self) -> None:
        there = len(self._waiting) + self._under_way
        self._lately = max(there, self._lately + (there - self._lately) / 4)
        size = min(LARGEST, len(self._waiting), max(math.ceil(self._share), math.ceil(len(self._waiting) / AT_ONCE)))
        batch = [self._waiting.popleft() for _ in range(size)]
        if not batch:
            return
        self._under_way += size
        self._start()
        try:
            for (_, answer), reply in zip(batch, await self.together([call for call, _ in batch]), strict=True):
                if not answer.done():
                    answer.set_result(reply)
        except Exception as error:  # whatever it is, nobody is left waiting
            if len(batch) > 1:
                log.warning("a batch failed; its calls go one by one", extra={"error": type(error).__name__})
            await asyncio.gather(*(self._alone(call, answer) for call, answer in batch))
        finally:
            self._under_way -= size

    async def together(self, calls: list[Call]) -> list[Reply]:
        """One transaction for all of them; their replies in their order. Raises what asyncpg raises, for all."""
        columns = zip(*map(_row, calls), strict=True)
        scenes = [call.scene for call in calls]
        async with self._pool.acquire(timeout=STATEMENT_SECONDS) as connection:
            rows = await connection.fetch(_CHARGE, *columns, *self._terms, scenes, timeout=STATEMENT_SECONDS)
        found: list[Reply | None] = [None] * len(calls)
        for number, *reply in rows:
            found[number - 1] = Reply(*reply)
        return [one for one in found if one is not None]

    async def _alone(self, call: Call, answer: asyncio.Future[Reply]) -> None:
        """A call that may have been charged already: its repeat gets the first answer."""
        try:
            reply = await self._ledger.charge(call)
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
            return
        if not answer.done():
            answer.set_result(reply)
