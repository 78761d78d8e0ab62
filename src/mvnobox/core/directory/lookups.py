"""Look-ups by IMSI, gathered: what comes in while the database is busy goes out as one query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Fetch = Callable[[list[str]], Awaitable[dict[str, Any]]]


class Lookups:
    """At most `lanes` queries at a time. A caller never shares a query that had begun before it asked."""

    def __init__(self, fetch: Fetch, lanes: int = 2, most: int = 64) -> None:
        self._fetch = fetch
        self._lanes = lanes
        self._most = most
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def get(self, imsi: str) -> asyncio.Future[Any]:
        """The row of an IMSI, or None. Fails with what the query failed with."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(imsi, []).append(future)
        if len(self._running) < self._lanes:
            task = asyncio.ensure_future(self._drain())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return future

    async def _drain(self) -> None:
        while self._waiting:
            imsis = list(self._waiting)[: self._most]
            asked = {imsi: self._waiting.pop(imsi) for imsi in imsis}
            try:
                rows = await self._fetch(imsis)
            except BaseException as error:
                for future in (one for futures in asked.values() for one in futures if not one.done()):
                    if isinstance(error, Exception):
                        future.set_exception(error)
                    else:
                        future.cancel()
                if not isinstance(error, Exception):
                    raise
                continue
            for imsi, futures in asked.items():
                for future in futures:
                    if not future.done():
                        future.set_result(rows.get(imsi))
