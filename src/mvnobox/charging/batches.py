"""Charging requests that wait at the same time share a transaction: one round trip and one flush to disk for many."""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections import deque
from collections.abc import Coroutine
from typing import Any

from mvnobox.charging.ledger import ACQUIRE_SECONDS, SERVER_SETTINGS, STATEMENT_SECONDS, Call, Engine, Reply
from mvnobox.charging.settings import OcsSettings
from mvnobox.service.arrays import BOOL, INT4, INT8, TEXT, TIMESTAMPTZ, UUID, array, int4
from mvnobox.service.pipeline import Pipeline, Row

log = logging.getLogger(__name__)
# A batch is what has come while the ones before were under way; its answers wait for the whole.
LARGEST = 32
# So many requests at once are worth two batches in turn: while the database works on one, the other is read or answered.
# Each batch costs the database some 300 µs besides its requests, which replicas on the same machine feel; fewer are one.
WORTH_TWO = 12
AT_ONCE = 2
# Peers answer a batch of answers with a batch of requests: a batch waits a moment until most of its share of the requests
# that were there lately have come; beside another one longer, should that one wait for a lock.
MOST = 0.9
GATHER_SECONDS = 0.002
PATIENCE_SECONDS = 0.01
# The arrays of `charge_batch`, then its terms, then the scenes.
_COLUMNS = (
    TEXT, TEXT, UUID, INT8, TEXT, UUID, TIMESTAMPTZ, BOOL, TEXT, INT8, TEXT, INT8, INT8, TEXT, TEXT, TEXT, TEXT,
)  # fmt: skip
_TYPES = [*(column.array for column in _COLUMNS), INT4, INT4, INT4, INT4, TEXT.array]
_CHARGE = "SELECT * FROM charge_batch({})".format(", ".join(f"${n}" for n in range(1, len(_TYPES) + 1)))

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


def _reply(row: Row) -> tuple[int, Reply]:
    """A call's number in its batch, from 1, and its reply: a row of `charge_batch`."""
    number, outcome, ref, body, overrun, denied = row
    assert number is not None and outcome is not None and overrun is not None and denied is not None
    reply = Reply(
        outcome.decode(),
        None if ref is None else uuid.UUID(bytes=ref),
        None if body is None else body.decode(),
        int.from_bytes(overrun),
        int.from_bytes(denied),
    )
    return int.from_bytes(number), reply


def make_pipeline(dsn: str) -> Pipeline:
    """The way of batches to the database."""
    return Pipeline(
        dsn, _CHARGE, _TYPES, SERVER_SETTINGS,
        seconds=STATEMENT_SECONDS, connect_seconds=ACQUIRE_SECONDS, patience=PATIENCE_SECONDS,
    )  # fmt: skip


class Batches:
    """An Engine over a ledger. Calls have to carry a `ref`; a batch that fails is charged call by call."""

    def __init__(self, pipeline: Pipeline, ledger: Engine, settings: OcsSettings) -> None:
        self._pipeline, self._ledger = pipeline, ledger
        self._terms = [int4(term) for term in settings.terms]
        self._waiting: deque[_Waiting] = deque()
        self._at_work = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # When the next batch goes at the latest; whether that was set beside another batch.
        self._later: asyncio.TimerHandle | None = None
        self._patient = False
        # Requests that are under way in batches; and how many there were lately with those that waited.
        self._under_way = 0
        self._lately = 1.0

    async def charge(self, call: Call) -> Reply:
        """See `Ledger.charge`."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._free and len(self._waiting) >= self._share:
            # Who makes a batch full sends it on its way at once. A task would have to wait until all requests that came
            # together are read, and the halves of what is outstanding would go to and fro in step, not in turn.
            await self._work(sender=1)
        else:
            self._start()
        return await answer

    @property
    def _share(self) -> float:
        """How many requests a batch should have."""
        return min(self._lately / AT_ONCE if self._lately >= WORTH_TWO else self._lately, LARGEST)

    @property
    def _free(self) -> bool:
        """Whether a batch may go now."""
        return not self._at_work or (self._at_work < AT_ONCE and self._lately >= WORTH_TWO)

    def _start(self) -> None:
        """Send the next batch if there is one and it is time for it; or else see to it that it will be in time."""
        if not self._waiting or self._at_work >= AT_ONCE:
            return
        if self._free and len(self._waiting) >= MOST * self._share:
            self._send()
            return
        patient = bool(self._at_work)
        if self._later is not None and self._patient and not patient:
            self._later.cancel()
            self._later = None
        if self._later is None:
            self._patient = patient
            seconds = PATIENCE_SECONDS if patient else GATHER_SECONDS
            self._later = asyncio.get_running_loop().call_later(seconds, self._in_time)

    def _in_time(self) -> None:
        self._later = None
        if self._waiting and self._at_work < AT_ONCE:
            self._send()

    def _send(self) -> None:
        # What comes in the same turn of the event loop is in the batch, too.
        self._run(self._work())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, sender: int = 0) -> None:
        """Send a batch and hand out its answers; `sender` of its requests run this themselves."""
        if not self._waiting or self._at_work >= AT_ONCE:
            return
        there = len(self._waiting) + self._under_way
        self._lately = max(there, self._lately + (there - self._lately) / 8)
        size = min(LARGEST, len(self._waiting), max(math.ceil(self._share), math.ceil(len(self._waiting) / AT_ONCE)))
        batch = [self._waiting.popleft() for _ in range(size)]
        self._at_work += 1
        self._under_way += size
        if self._later is not None:  # its moment was for these; those who are left have their own
            self._later.cancel()
            self._later = None
        self._start()
        replies: list[Reply] | None = None
        try:
            replies = await self.together([call for call, _ in batch])
        except Exception as error:  # whatever it is, nobody is left waiting
            if len(batch) > 1:
                log.warning("a batch failed; its calls go one by one", extra={"error": type(error).__name__})
        finally:
            self._at_work -= 1
            # The next batch goes before anybody gets to read an answer of this one; those who asked for it most likely
            # come again and are still counted.
            self._start()
            self._leave(sender)
            asyncio.get_running_loop().call_soon(self._leave, size - sender)
            if replies is None:
                # Also of a batch whose sender was cancelled.
                self._run(self._one_by_one(batch))
            else:
                for (_, answer), reply in zip(batch, replies, strict=True):
                    if not answer.done():
                        answer.set_result(reply)

    def _leave(self, count: int) -> None:
        self._under_way -= count

    async def _one_by_one(self, batch: list[_Waiting]) -> None:
        await asyncio.gather(*(self._alone(call, answer) for call, answer in batch))

    async def together(self, calls: list[Call]) -> list[Reply]:
        """One transaction for all of them; their replies in their order. Raises what the pipeline raises, for all."""
        rows = zip(*map(_row, calls), strict=True)
        columns = [array(element, values) for element, values in zip(_COLUMNS, rows, strict=True)]
        scenes = array(TEXT, [call.scene for call in calls])
        found = dict(map(_reply, await self._pipeline.run([*columns, *self._terms, scenes])))
        return [found[number] for number in range(1, len(calls) + 1)]

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
