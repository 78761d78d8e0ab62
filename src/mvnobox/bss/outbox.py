"""What the OCS has to do for us: written with its cause, delivered at least once, in order for each product."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import Any

import asyncpg
import httpx

from mvnobox.bss.context import Context

log = logging.getLogger(__name__)
IDLE_SECONDS = 0.2
# Answers that a repetition cannot change.
FINAL = frozenset({400, 404, 409, 413, 422})


async def put(
    connection: Any,
    product: uuid.UUID,
    method: str,
    path: str,
    body: dict[str, Any],
    effect: dict[str, Any] | None = None,
) -> None:
    """Owe a call to the OCS, in the caller's transaction. `effect` says what its success means here."""
    await connection.execute(
        "INSERT INTO outbox (product, method, path, body, effect) VALUES ($1, $2, $3, $4, $5)",
        product,
        method,
        path,
        json.dumps(body),
        json.dumps(effect or {}),
    )


async def deliver_forever(context: Context) -> None:
    """Deliver what is due until cancelled."""
    while True:
        try:
            busy = await deliver_one(context)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            log.warning("outbox: %s", type(error).__name__)
            busy = False
        if not busy:
            await asyncio.sleep(IDLE_SECONDS)


async def deliver_one(context: Context) -> bool:
    """Deliver the oldest call that is due, of a product nobody else works for; False if there is none."""
    row = await context.pool.fetchrow(
        """UPDATE outbox SET attempts = attempts + 1, next_at = now() + interval '10 seconds'
           WHERE id = (SELECT o.id FROM outbox o WHERE done_at IS NULL AND next_at <= now() AND NOT EXISTS
                         (SELECT FROM outbox e WHERE e.product = o.product AND e.done_at IS NULL AND e.sequence < o.sequence)
                       ORDER BY sequence LIMIT 1 FOR UPDATE SKIP LOCKED)
           RETURNING *"""
    )
    if row is None:
        return False
    try:
        response = await context.ocs.request(row["method"], row["path"], json=json.loads(row["body"]))
    except httpx.HTTPError as error:
        log.info("the OCS does not answer: %s", type(error).__name__, extra={"attempt": row["attempts"]})
        await _again(context, row)
        return True
    if response.is_success or response.status_code in FINAL:
        await _settle(context, row, None if response.is_success else f"the OCS refused: {response.text[:300]}")
    else:
        await _again(context, row)
    return True


async def _again(context: Context, row: Any) -> None:
    await context.pool.execute(
        "UPDATE outbox SET next_at = now() + make_interval(secs => least(60, 0.2 * 2 ^ least(attempts, 12))) WHERE id = $1",
        row["id"],
    )


async def _settle(context: Context, row: Any, failure: str | None) -> None:
    effect = json.loads(row["effect"])
    async with context.pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE outbox SET done_at = now(), failure = $2 WHERE id = $1", row["id"], failure)
        if failure is not None:
            log.error("a call to the OCS failed for good", extra={"path": row["path"], "failure": failure})
            await connection.execute(
                """UPDATE product_order SET state = 'failed', reason = $2
                   WHERE id = (SELECT order_id FROM product WHERE id = $1) AND state = 'inProgress'""",
                row["product"],
                failure,
            )
        if "complete" in effect and failure is None:
            await connection.execute(
                "UPDATE product_order SET state = 'completed', completed_at = now() WHERE id = $1 AND state = 'inProgress'",
                uuid.UUID(effect["complete"]),
            )
            await connection.execute(
                "UPDATE product SET status = 'active' WHERE id = $1 AND status = 'created'", row["product"]
            )
        if "topup" in effect:
            await connection.execute(
                "UPDATE topup SET state = $2 WHERE id = $1",
                uuid.UUID(effect["topup"]),
                "failed" if failure else "confirmed",
            )
