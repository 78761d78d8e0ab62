"""Nchf notifications through the outbox: at least once, with growing pauses, by any replica."""

from __future__ import annotations

import asyncio
import json
import logging

import asyncpg
import httpx

from mvnobox.charging.ledger import Ledger

log = logging.getLogger(__name__)
IDLE_SECONDS = 0.5
SWEEP_SECONDS = 15.0
# After this many attempts (about two hours) a consumer is taken to be gone for good.
ATTEMPTS = 14


async def deliver_forever(pool: asyncpg.Pool) -> None:
    """Deliver what is due until cancelled."""
    async with httpx.AsyncClient(timeout=5, limits=httpx.Limits(max_connections=20)) as client:
        while True:
            try:
                busy = await _deliver_one(pool, client)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                log.warning("outbox: %s", type(error).__name__)
                busy = False
            if not busy:
                await asyncio.sleep(IDLE_SECONDS)


async def _deliver_one(pool: asyncpg.Pool, client: httpx.AsyncClient) -> bool:
    # The claim is a short transaction of its own: a delivery under way holds no lock.
    row = await pool.fetchrow(
        """UPDATE outbox SET attempts = attempts + 1,
               next_at = now() + make_interval(secs => least(600, 0.5 * 2 ^ attempts) + 5)
           WHERE id = (SELECT id FROM outbox WHERE done_at IS NULL AND next_at <= now() AND attempts < $1
                       ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
           RETURNING id, uri, body, attempts""",
        ATTEMPTS,
    )
    if row is None:
        return False
    try:
        response = await client.post(row["uri"], json=json.loads(row["body"]), headers={"X-Event-Id": str(row["id"])})
        delivered = response.is_success or response.status_code == 404
    except httpx.HTTPError as error:
        log.info("notification not delivered", extra={"attempt": row["attempts"], "error": type(error).__name__})
        delivered = False
    if delivered:
        await pool.execute("UPDATE outbox SET done_at = now() WHERE id = $1", row["id"])
    else:
        await pool.execute(
            "UPDATE outbox SET next_at = now() + make_interval(secs => least(600, 0.5 * 2 ^ attempts)) WHERE id = $1",
            row["id"],
        )
    return True


async def sweep_forever(ledger: Ledger) -> None:
    """Close sessions that expired until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            if closed := await ledger.close_expired():
                log.info("sessions expired", extra={"count": closed})
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            log.warning("sweep: %s", type(error).__name__)
