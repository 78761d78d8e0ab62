"""Charging requests that wait at the same time share a transaction: one round trip and one flush to disk for many."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import deque
from typing import Any

from asyncpg.pgproto.pgproto import UUID as Uuid

from mvnobox.charging.ledger import ACQUIRE_SECONDS, SERVER_SETTINGS, STATEMENT_SECONDS, Call, Engine, Reply, Told
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

_Waiting = tuple[Call, Told]


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
        None if ref is None else Uuid(ref),
        None if body is None else body.decode(),
        int.from_bytes(overrun),
        int.from_bytes(denied),
    )
    return int.from_bytes(number), reply


def replies(rows: list[Row]) -> list[Reply]:
    """What `charge_batch` says of all calls of a batch, in their order."""
    found = dict(map(_reply, rows))
    return [found[number] for number in range(1, len(rows) + 1)]


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

    @functools.cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def charge(self, call: Call) -> asyncio.Future[Reply]:
        """See `Ledger.charge`."""
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self.submit(call, functools.partial(_settle, answer))
        return answer

    def submit(self, call: Call, told: Told) -> None:
        """See `PromptEngine`."""
        self._waiting.append((call, told))
        waiting = len(self._waiting)
        # Counted now, not when a batch goes: then some of those who had an answer are on their way back.
        if waiting + self._under_way > self._lately:
            self._lately = waiting + self._under_way
        if waiting >= self._share and self._free:
            # Who makes a batch full sends it on its way at once. Later, all requests that came together would be read, and
            # the halves of what is outstanding would go to and fro in step, not in turn.
            self._send()
        elif self._later is None or waiting >= MOST * self._share:
            self._start()

    @property
    def _share(self) -> float:
        """How many requests a batch should have."""
        return min(self._lately / AT_ONCE if self._lately >= WORTH_TWO else self._lately, LARGEST)

    @property
    def _free(self) -> bool:
        """Whether a batch may go now."""
        return not self._at_work or (self._at_work < AT_ONCE and self._lately >= WORTH_TWO)

    @property
    def _ripe(self) -> bool:
        """Whether a batch may go now and has most of its share."""
        return self._free and len(self._waiting) >= MOST * self._share

    def _start(self) -> None:
        """Send the next batch if there is one and it is time for it; or else see to it that it will be in time."""
        if not self._waiting or self._at_work >= AT_ONCE:
            return
        if self._ripe:
            # What comes in the same turn of the event loop is in the batch, too.
            self._loop.call_soon(self._due)
            return
        patient = bool(self._at_work)
        if self._later is not None and self._patient and not patient:
            self._later.cancel()
            self._later = None
        if self._later is None:
            self._patient = patient
            seconds = PATIENCE_SECONDS if patient else GATHER_SECONDS
            self._later = self._loop.call_later(seconds, self._in_time)

    def _due(self) -> None:
        # Who made the batch full may have sent it meanwhile, and those who have come since are no batch.
        if self._ripe:
            self._send()
        else:
            self._start()

    def _in_time(self) -> None:
        self._later = None
        self._send()

    def _send(self) -> None:
        """Send a batch on its way, unless there is none any more."""
        if not self._waiting or self._at_work >= AT_ONCE:
            return
        self._lately += (len(self._waiting) + self._under_way - self._lately) / 8
        size = min(LARGEST, len(self._waiting), max(math.ceil(self._share), math.ceil(len(self._waiting) / AT_ONCE)))
        batch = [self._waiting.popleft() for _ in range(size)]
        self._at_work += 1
        self._under_way += size
        if self._later is not None:  # its moment was for these; those who are left have their own
            self._later.cancel()
            self._later = None
        self._start()
        try:
            rows = self.together([call for call, _ in batch])
        except Exception as error:
            rows = self._loop.create_future()
            rows.set_exception(error)
        rows.add_done_callback(functools.partial(self._landed, batch))

    def _landed(self, batch: list[_Waiting], rows: asyncio.Future[list[Row]]) -> None:
        """A batch is back: hand out its answers."""
        self._at_work -= 1
        # The next batch goes before anybody gets to read an answer of this one; those who asked for it most likely come
        # again and are still counted.
        self._start()
        self._loop.call_soon(self._leave, len(batch))
        try:
            answers = list(zip(batch, replies(rows.result()), strict=True))
        except (Exception, asyncio.CancelledError) as error:  # whatever it is, nobody is left waiting
            if len(batch) > 1:
                log.warning("a batch failed; its calls go one by one", extra={"error": type(error).__name__})
            task = self._loop.create_task(self._one_by_one(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        for (_, told), answer in answers:
            _tell(told, answer)

    def _leave(self, count: int) -> None:
        self._under_way -= count

    async def _one_by_one(self, batch: list[_Waiting]) -> None:
        await asyncio.gather(*(self._alone(call, told) for call, told in batch))

    def together(self, calls: list[Call]) -> asyncio.Future[list[Row]]:
        """One transaction for all of them: the rows of `charge_batch`. Raises what the pipeline raises, for all."""
        rows = zip(*map(_row, calls), strict=True)
        columns = [array(element, values) for element, values in zip(_COLUMNS, rows, strict=True)]
        scenes = array(TEXT, [call.scene for call in calls])
        return self._pipeline.run([*columns, *self._terms, scenes])

    async def _alone(self, call: Call, told: Told) -> None:
        """A call that may have been charged already: its repeat gets the first answer."""
        try:
            reply: Reply | Exception = await self._ledger.charge(call)
        except Exception as error:
            reply = error
        _tell(told, reply)


def _tell(told: Told, reply: Reply | Exception) -> None:
    try:
        told(reply)
    except Exception as error:  # the others of the batch are told all the same
        log.error("an answer was lost", extra={"error": type(error).__name__})


def _settle(answer: asyncio.Future[Reply], reply: Reply | Exception) -> None:
    if answer.done():  # nobody waits for it any more
        return
    if isinstance(reply, Exception):
        answer.set_exception(reply)
    else:
        answer.set_result(reply)
