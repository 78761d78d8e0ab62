"""Nchf notifications through the outbox (TS 32.291 clause 5.2.2.5): at least once, with growing pauses, by any replica."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg
import httpx
from prometheus_client import Counter

from mvnobox.charging.ledger import Ledger
from mvnobox.charging.names import Names
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
NOTIFICATIONS = Counter("ocs_notifications_total", "Attempts to notify", ["result"])
Deliver = Callable[[str, dict[str, Any]], Awaitable[int]]
IDLE_SECONDS = 0.25
SWEEP_SECONDS = 15.0
TIMEOUT_SECONDS = 3.0
AT_ONCE = 32
# What `Deliver` says of a consumer that only another replica can reach.
MISDIRECTED = 421
# After this many attempts (about an hour and a half) a consumer is taken to be gone for good.
ATTEMPTS = 18
# The claim is a short transaction of its own: a delivery under way holds no lock. It is a lease longer than a delivery
# takes; when its holder dies, another replica takes over. A session's notifications go out in their order.
_CLAIM = """UPDATE outbox o SET attempts = attempts + 1,
        next_at = now() + make_interval(secs => 2 * $2::float + least(600, 0.5 * 2 ^ least(attempts, 20)))
    FROM (SELECT c.id FROM outbox c
          WHERE c.done_at IS NULL AND c.failed_at IS NULL AND c.next_at <= now() AND NOT EXISTS (
              SELECT FROM outbox e WHERE e.ref = c.ref AND e.n < c.n AND e.done_at IS NULL AND e.failed_at IS NULL)
          ORDER BY c.next_at LIMIT $1 FOR UPDATE OF c SKIP LOCKED) due
    WHERE o.id = due.id
    RETURNING o.id, o.ref, o.body, o.attempts, o.at > now() - interval '1 hour' AS young, coalesce((SELECT notify_uri FROM session s WHERE s.ref = o.ref), o.uri) AS uri"""


class Notifier:
    """Delivers what is due. One slow or dead consumer delays nobody else's notifications."""

    def __init__(self, pool: asyncpg.Pool, others: Mapping[str, Deliver] | None = None) -> None:
        """`others`: what delivers to addresses of schemes that are not HTTP's."""
        self._pool, self._others = pool, others or {}
        self._names = Names()
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, follow_redirects=False) as client:
            try:
                while True:
                    # Replicas in step would let the same one look first every time, perhaps the one without the peer.
                    await asyncio.sleep(0 if await self._round(client) else IDLE_SECONDS * random.uniform(0.5, 1.5))
            finally:
                for task in self._busy:
                    task.cancel()
                await asyncio.gather(*self._busy, return_exceptions=True)

    async def _round(self, client: httpx.AsyncClient) -> bool:
        free = AT_ONCE - len(self._busy)
        if free == 0:
            await asyncio.wait(self._busy, return_when=asyncio.FIRST_COMPLETED)
            return True
        try:
            rows = await self._pool.fetch(_CLAIM, free, TIMEOUT_SECONDS)
        except TROUBLE as error:
            log.warning("outbox: %s", type(error).__name__)
            return False
        for row in rows:
            task = asyncio.create_task(self._deliver(client, row))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
        return bool(rows)

    async def _deliver(self, client: httpx.AsyncClient, row: asyncpg.Record) -> None:
        try:
            # A deadline for the whole: a consumer that sends an octet a second must not hold a place for ever.
            async with asyncio.timeout(TIMEOUT_SECONDS):
                other = self._others.get(row["uri"].partition(":")[0])
                status = await (other(row["uri"], json.loads(row["body"])) if other else self._post(client, row))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TimeoutError) as error:
            log.info("notification not delivered", extra={"attempt": row["attempts"], "error": type(error).__name__})
            status = 0
        try:
            await self._settle(row, status)
        except TROUBLE as error:
            # Not settled: it will be delivered once more when the lease ends.
            log.warning("outbox: %s", type(error).__name__)

    async def _post(self, client: httpx.AsyncClient, row: asyncpg.Record) -> int:
        uri = httpx.URL(row["uri"])
        response = await client.post(
            uri.copy_with(host=await self._names.address(uri.host)),
            json=json.loads(row["body"]),
            headers={"Host": uri.netloc.decode("ascii"), "X-Event-Id": str(row["id"])},
            extensions={"sni_hostname": uri.host},
        )
        return response.status_code

    async def _settle(self, row: asyncpg.Record, status: int) -> None:
        if 200 <= status < 300:
            NOTIFICATIONS.labels("delivered").inc()
            await self._pool.execute("UPDATE outbox SET done_at = now() WHERE id = $1", row["id"])
        elif status in (404, 410):
            # The consumer does not know the session any more: it waits for nothing.
            NOTIFICATIONS.labels("gone").inc()
            await self._pool.execute(
                """WITH done AS (UPDATE outbox SET done_at = now() WHERE id = $1)
                   UPDATE session SET starved = false WHERE ref = $2""",
                row["id"], row["ref"],
            )  # fmt: skip
        elif status == MISDIRECTED and row["young"]:
            # Its peer may be connected to another replica, whose turn is next: soon, then ever later, counted as nothing.
            await self._pool.execute(
                """UPDATE outbox SET attempts = attempts - 1,
                       next_at = now() + random() * interval '0.1 s' + (now() - at) * 0.2 WHERE id = $1""",
                row["id"],
            )
        elif row["attempts"] >= ATTEMPTS:
            NOTIFICATIONS.labels("given up").inc()
            log.warning("notification given up", extra={"event": str(row["id"]), "attempts": row["attempts"]})
            await self._pool.execute(
                """WITH failed AS (UPDATE outbox SET failed_at = now() WHERE id = $1)
                   UPDATE session SET told_at = NULL WHERE ref = $2""",
                row["id"], row["ref"],
            )  # fmt: skip
        else:
            NOTIFICATIONS.labels("to repeat").inc()
            await self._pool.execute(
                """UPDATE outbox SET next_at = now() + make_interval(
                       secs => least(600, 0.5 * 2 ^ least(attempts - 1, 20)) * (0.75 + random() / 2)) WHERE id = $1""",
                row["id"],
            )


async def sweep_forever(ledger: Ledger) -> None:
    """Close dead sessions, let buckets lapse, forget old replies, until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            done = await ledger.sweep()
            if any(done.values()):
                log.info("swept", extra=done)
        except TROUBLE as error:
            log.warning("sweep: %s", type(error).__name__)
