"""Comparing the MongoDB with the directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg

from mvnobox.core.directory.documents import Assembler
from mvnobox.core.directory.mirror.plan import Planner
from mvnobox.core.directory.mirror.queue import Queue
from mvnobox.core.directory.mirror.target import Target
from mvnobox.core.directory.store import QUERY_SECONDS

_BATCH = 1000
_IN_ORDER = "SELECT imsi FROM subscriber WHERE imsi > $1 ORDER BY imsi LIMIT $2"
_WAITING = "SELECT imsi FROM unmirrored WHERE imsi = ANY($1::text[])"


@dataclass(frozen=True)
class Difference:
    """A subscriber whose document is not as it should be, and the names of its fields that are not."""

    imsi: str
    fields: list[str]


class Check:
    """One comparison. What waits to be written is counted, not compared."""

    def __init__(self, pool: asyncpg.Pool, target: Target, assembler: Assembler) -> None:
        self._pool, self._target = pool, target
        self._queue, self._planner = Queue(pool, target.digest), Planner(assembler, target.owner)
        self.compared = self.waiting = 0

    async def run(self) -> AsyncIterator[Difference]:
        """What differs, subscribers first, then documents without one. Raises PyMongoError."""
        after = ""
        while rows := await self._pool.fetch(_IN_ORDER, after, _BATCH, timeout=QUERY_SECONDS):
            after = rows[-1]["imsi"]
            for one in await self._sure([row["imsi"] for row in rows]):
                yield one
        async for imsis in self._target.mirrored(_BATCH):
            for one in await self._sure(await self._queue.strangers(imsis)):
                yield one

    async def _sure(self, imsis: list[str]) -> list[Difference]:
        """What differs the second time too: something may have been written between two looks."""
        differing = await self._of(imsis)
        if differing:
            self.compared -= len(differing)
            differing = await self._of([one.imsi for one in differing])
        return differing

    async def _of(self, imsis: list[str]) -> list[Difference]:
        found = await self._target.found(imsis) if imsis else {}
        states = await self._queue.states(imsis)
        waiting = {row["imsi"] for row in await self._pool.fetch(_WAITING, imsis, timeout=QUERY_SECONDS)}
        self.waiting += len(waiting)
        compared = [one for one in states if one.imsi not in waiting]
        self.compared += len(compared)
        differing = []
        for state in compared:
            if state.leaving and state.row is None:
                continue
            if fields := self._planner.differences(state, found.get(state.imsi)):
                differing.append(Difference(state.imsi, fields))
        return differing
