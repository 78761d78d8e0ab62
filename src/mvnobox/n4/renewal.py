"""Quotas are renewed before their time ends (validityTime, TS 32.291 clause 6.1.6.2.1).

The deadlines are in the database; the near ones have a timer here. After a restart, or where another instance wrote the
deadline, the next look at the database finds it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from mvnobox.n4.store import Store
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
# The OCS is asked so often at least, whatever it says of a quota's time.
LONGEST_SECONDS = 1800.0
SHORTEST_SECONDS = 1.0
# So long before the end at most: the answer, and the UPF's, have to be there by then.
LEAD_SECONDS = 5.0
# Deadlines closer than this have a timer. Looks at the database are closer to each other.
HORIZON_SECONDS = 30.0


def renew_in(validity: float | None) -> float:
    """Seconds after which a quota of so many seconds is renewed.

    Early by a tenth, five seconds at most, and by chance: hours that end for everybody end at once.
    """
    seconds = LONGEST_SECONDS if validity is None else min(validity, LONGEST_SECONDS)
    if not seconds > SHORTEST_SECONDS:
        # Past the end by a little: the next answer is on the terms that begin then.
        return SHORTEST_SECONDS + random.uniform(0, 0.5)
    lead = min(LEAD_SECONDS, seconds / 10) * random.uniform(0.5, 1)
    return max(SHORTEST_SECONDS, seconds - lead)


class Renewals:
    """Calls `renew` for each session whose quota's time is about to end."""

    def __init__(self, store: Store, renew: Callable[[int], Awaitable[None]]) -> None:
        self._store, self._renew = store, renew
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._running: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """No more of it."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._running:
            task.cancel()

    def note(self, seid: int, seconds: float) -> None:
        """A session's deadline is so many seconds from now."""
        timer = self._timers.pop(seid, None)
        if timer is not None:
            timer.cancel()
        if seconds <= HORIZON_SECONDS:
            self._timers[seid] = asyncio.get_running_loop().call_later(seconds, self._start, seid)

    async def look(self) -> None:
        """Set the timers of all near deadlines. Raises what the database raises."""
        for seid, seconds in await self._store.to_renew(HORIZON_SECONDS):
            if seid not in self._timers:
                self.note(seid, seconds)

    def _start(self, seid: int) -> None:
        self._timers.pop(seid, None)
        task = asyncio.ensure_future(self._one(seid))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _one(self, seid: int) -> None:
        try:
            # Asked for meanwhile, as with every report of use: the deadline is another.
            if await self._store.is_due(seid):
                await self._renew(seid)
        except TROUBLE as error:
            # The deadline stands in the database, and is seen again at the next look.
            log.warning("the database does not answer: %s", error)
