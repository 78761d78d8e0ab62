"""The mirror at work: claims what waits, writes it, gives it back, again and again, beside other replicas."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import replace
from typing import TypeVar

import asyncpg
from bson.errors import BSONError
from prometheus_client import Counter, Gauge

from mvnobox.core.directory.documents import Assembler, Sealed
from mvnobox.core.directory.mirror.plan import Document, Foreign, Planner, State, Write
from mvnobox.core.directory.mirror.queue import DONE, LEASE_SECONDS, Backlog, Held, Queue
from mvnobox.core.directory.mirror.target import AWAY, NO_STREAMS, Target, cause_of, is_duplicate
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
DOCUMENTS = Counter("directory_mirror_documents_total", "Documents written to the mirror, or not", ["result"])
BACKLOG = Gauge("directory_mirror_backlog", "Subscribers whose document in the mirror may be old")
OLDEST = Gauge("directory_mirror_oldest_seconds", "For how long the first of them has waited")
UP = Gauge("directory_mirror_up", "Whether the mirror's MongoDB answered last")
AT_ONCE = 1000
IDLE_SECONDS = 0.2
# Between two signs of life; they also count what waits.
_HOLD_SECONDS = 5.0
_LONGEST_PAUSE = 5.0
_LONGEST_DELAY = 60.0
# For a batch, well within its lease; one that takes longer is halved.
_WRITE_SECONDS = 0.75 * LEASE_SECONDS
_LEAST_AT_ONCE = 50
_AT_A_TIME = 50
# Another directory's document, or one with something that nobody expects.
_UNUSABLE = (Foreign, BSONError, TypeError, ValueError, KeyError, AttributeError, OverflowError)
_RESULTS = {"insert": "inserted", "update": "updated", "delete": "removed"}
T = TypeVar("T")


class _Away(Exception):
    """The MongoDB did not answer, or refused as a whole."""


class Mirror:
    """One replica's part in the mirror."""

    def __init__(self, pool: asyncpg.Pool, target: Target, assembler: Assembler, *, tells_amf: bool) -> None:
        """`tells_amf`: whether an AMF is told of subscribers that are withdrawn, which keeps their documents for a while."""
        self._queue = Queue(pool, target.digest)
        self._target, self._planner, self._tells_amf = target, Planner(assembler, target.owner), tells_amf
        self._held: dict[str, Held] = {}
        self._at_once = AT_ONCE
        self._ours = False
        self._held_at = -_HOLD_SECONDS
        self._prepared = False
        self._backlog = Backlog(0, 0.0)
        self._trouble: str | None = "has not answered yet"

    async def ready(self) -> str | None:
        """None, or what is missing."""
        if self._trouble is None:
            return None
        return f"the mirror's MongoDB {self._trouble}; {self._backlog.waiting} subscribers wait to be written there"

    async def leave(self) -> None:
        """See `Queue.leave`; after the end of `run`."""
        if self._ours:
            with contextlib.suppress(*TROUBLE):
                await self._queue.leave()

    async def run(self) -> None:
        """Work until cancelled."""
        failures = 0
        try:
            while True:
                pause = IDLE_SECONDS
                try:
                    done = await self.step()
                except _Away as error:
                    failures += 1
                    pause = min(_LONGEST_PAUSE, 0.25 * 2 ** min(failures, 10))
                    self._say(f"does not answer ({error})")
                    done = 0
                except TROUBLE as error:
                    log.warning("mirror: %s", type(error).__name__)
                    done = 0
                else:
                    failures = 0
                if not done:
                    # Replicas out of step share the work.
                    await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        finally:
            await self._target.close()

    def _say(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            if trouble is None:
                log.info("mirror: the MongoDB follows")
            else:
                log.warning("mirror: the MongoDB %s", trouble)
        self._trouble = trouble
        UP.set(trouble is None)

    async def step(self) -> int:
        """Do what there is to do; how much it was. Raises _Away, and what PostgreSQL raises."""
        if time.monotonic() - self._held_at > _HOLD_SECONDS:
            await self._hold()
        await self._settle()
        if not self._ours:
            return 0
        if not self._prepared:
            await self._reached(self._target.prepare(), seconds=None)
            if not await self._reached(self._target.has_streams()):
                log.warning("mirror: the MongoDB %s", NO_STREAMS)
            await self._queue.go_on_from(await self._reached(self._target.highest(), seconds=None))
            self._prepared = True
            self._say(None)
        self._held |= (claimed := await self._queue.claim(self._at_once))
        if not claimed:
            return await self._queue.seed() or await self._search()
        try:
            states = await self._queue.states(claimed)
            await self._reached(self._write(claimed, states))
        finally:
            await self._settle_at_once()
        self._say(None)
        return len(claimed)

    async def _hold(self) -> None:
        self._ours = await self._queue.hold()
        self._held_at = time.monotonic()
        self._backlog = await self._queue.backlog()
        BACKLOG.set(self._backlog.waiting)
        OLDEST.set(self._backlog.seconds)
        if not self._ours:
            self._say("waits: another one followed until a moment ago")
        elif self._prepared:
            await self._reached(self._target.ping())
            self._say(None)

    async def _settle(self) -> None:
        for imsi in await self._queue.settle(self._held):
            del self._held[imsi]

    async def _settle_at_once(self) -> None:
        """Also at the end of the process: no other replica has to wait for the lease."""
        settling = asyncio.ensure_future(self._settle())
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            with contextlib.suppress(*TROUBLE):
                await settling
            raise

    async def _reached(self, work: Awaitable[T], seconds: float | None = _WRITE_SECONDS) -> T:
        try:
            async with asyncio.timeout(seconds):
                done = await work
        except AWAY as error:
            # Perhaps it was too much for one lease.
            self._at_once = max(_LEAST_AT_ONCE, self._at_once // 2)
            raise _Away(cause_of(error)) from error
        self._at_once = min(AT_ONCE, 2 * self._at_once)
        return done

    async def _write(self, claimed: dict[str, Held], states: Iterable[State]) -> None:
        looked_for = [imsi for imsi, one in claimed.items() if not (one.fresh and self._target.unique)]
        found = await self._target.found(looked_for) if looked_for else {}
        writes: dict[str, Write] = {}
        for number, state in enumerate(states, 1):
            try:
                write = self._planned(state, found.get(state.imsi), claimed[state.imsi].label)
            except _UNUSABLE as error:
                # One document is nobody else's trouble.
                log.error("mirror: a document cannot be written over: %s", type(error).__name__)
                DOCUMENTS.labels("failed").inc()
                self._held[state.imsi] = replace(claimed[state.imsi], delay=_LONGEST_DELAY)
                continue
            if write is None:
                self._held[state.imsi] = replace(claimed[state.imsi], delay=DONE)
            else:
                writes[state.imsi] = write
            if number % _AT_A_TIME == 0:
                # Clients of the directory in the same process have their turn.
                await asyncio.sleep(0)
        async for some, undone in self._target.apply(writes.values()):
            for one in some:
                held, failed = claimed[one.imsi], one.imsi in undone
                delay = min(_LONGEST_DELAY, 0.1 * 2 ** min(held.attempts, 10)) if failed else DONE
                self._held[one.imsi] = replace(held, delay=delay)
                DOCUMENTS.labels("failed" if failed else _RESULTS[one.kind]).inc()
            for code in {code for code in undone.values() if code is not None}:
                log.warning("mirror: documents are refused", extra={"code": code, "subscribers": len(undone)})
            if taken := [one for one in some if is_duplicate(undone.get(one.imsi))]:
                await self._free(taken)

    def _planned(self, state: State, found: Document | None, label: int) -> Write | None:
        if not self._tells_amf:
            state = replace(state, leaving=False)
        try:
            return self._planner.plan(state, found, label)
        except Sealed as error:
            log.error("mirror: %s", error)
            DOCUMENTS.labels("without keys").inc()
            return self._planner.unopened(state, found, label)

    async def _free(self, writes: list[Write]) -> None:
        """Numbers that have moved between subscribers are taken from whose document still has them."""
        holders = await self._target.holders(writes)
        if holders:
            # First noted: whoever does it half leaves nobody without his number.
            await self._queue.note(holders)
            await self._target.take_numbers(holders.values())

    async def _search(self) -> int:
        """After all subscribers were noted: documents of those that have been removed meanwhile."""
        if not await self._queue.to_be_searched():
            return 0
        async for imsis in self._pages():
            if gone := await self._queue.strangers(imsis):
                await self._queue.note(gone)
        await self._queue.searched()
        return 1

    async def _pages(self) -> AsyncIterator[list[str]]:
        try:
            async for imsis in self._target.mirrored():
                yield imsis
        except AWAY as error:
            raise _Away(cause_of(error)) from error
