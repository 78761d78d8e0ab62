"""Charging requests that wait at the same time share a transaction: one round trip and one flush to disk for many."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import asyncpg

from mvnobox.charging.diameter.ports import Engine
from mvnobox.charging.ledger import Call, Reply
from mvnobox.charging.settings import OcsSettings

log = logging.getLogger(__name__)
# A batch is what has come while the ones before were under way; its answers wait for the whole.
LARGEST = 32
AT_ONCE = 2
STATEMENT_SECONDS = 5.0
_CHARGE = "SELECT * FROM charge_batch({})".format(", ".join(f"${n}" for n in range(1, 22)))

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

    async def charge(self, call: Call) -> Reply:
        """See `Ledger.charge`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((call, answer))
        if len(self._workers) < AT_ONCE:
            task = loop.create_task(self._work())
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(LARGEST, len(self._waiting)))]
            try:
                for (_, answer), reply in zip(batch, await self.together([call for call, _ in batch]), strict=True):
                    if not answer.done():
                        answer.set_result(reply)
            except Exception as error:  # whatever it is, nobody is left waiting
                if len(batch) > 1:
                    log.warning("a batch failed; its calls go one by one", extra={"error": type(error).__name__})
                await asyncio.gather(*(self._alone(call, answer) for call, answer in batch))

    async def together(self, calls: list[Call]) -> list[Reply]:
        """One transaction for all of them; their replies in their order. Raises what asyncpg raises, for all."""
        columns = zip(*map(_row, calls), strict=True)
        async with self._pool.acquire(timeout=STATEMENT_SECONDS) as connection:
            rows = await connection.fetch(_CHARGE, *columns, *self._terms, timeout=STATEMENT_SECONDS)
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
