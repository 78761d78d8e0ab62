"""What the OCS has to do for us: written with its cause, delivered at least once, in order for each product."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import Any

import httpx

from mvnobox.bss import sims
from mvnobox.bss.context import Context
from mvnobox.service.working import work_forever

log = logging.getLogger(__name__)
IDLE_SECONDS = 0.2
# Calls under way at once, each of another product.
AT_ONCE = 16
# How long a call is its process's own; longer than a call can take.
LEASE_SECONDS = 6.0
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
    await work_forever(lambda: deliver(context), name="outbox", log=log, idle_seconds=IDLE_SECONDS)


async def deliver(context: Context, product: uuid.UUID | None = None) -> bool:
    """Deliver the oldest calls that are due, of products nobody else works for; False if there is none.

    Calls of batches wait for those of single orders. With `product` only that product's next call.
    """
    rows = await context.pool.fetch(
        """UPDATE outbox SET attempts = attempts + 1, next_at = now() + make_interval(secs => $3)
           WHERE id IN (SELECT o.id FROM outbox o WHERE done_at IS NULL AND next_at <= now()
                          AND ($1::uuid IS NULL OR product = $1) AND NOT EXISTS
                         (SELECT FROM outbox e WHERE e.product = o.product AND e.done_at IS NULL AND e.sequence < o.sequence)
                       ORDER BY bulk, sequence LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING *""",
        product,
        AT_ONCE,
        LEASE_SECONDS,
    )
    await asyncio.gather(*(_deliver(context, row) for row in rows))
    return bool(rows)


async def _deliver(context: Context, row: Any) -> None:
    try:
        response = await context.ocs.request(row["method"], row["path"], json=json.loads(row["body"]))
    except httpx.HTTPError as error:
        log.info("the OCS does not answer: %s", type(error).__name__, extra={"attempt": row["attempts"]})
        await _again(context, row)
        return
    if response.is_success or response.status_code in FINAL:
        await _settle(context, row, None if response.is_success else f"the OCS refused: {response.text[:300]}")
    else:
        await _again(context, row)


async def _again(context: Context, row: Any) -> None:
    await context.pool.execute(
        "UPDATE outbox SET next_at = now() + make_interval(secs => least(30, 0.2 * 2 ^ least(attempts, 12))) WHERE id = $1",
        row["id"],
    )


async def _settle(context: Context, row: Any, failure: str | None) -> None:
    effect = json.loads(row["effect"])
    async with context.pool.acquire() as connection, connection.transaction():
        # The product first, as everybody else does who changes it.
        status = await connection.fetchval("SELECT status FROM product WHERE id = $1 FOR UPDATE", row["product"])
        await connection.execute("UPDATE outbox SET done_at = now(), failure = $2 WHERE id = $1", row["id"], failure)
        if failure is not None:
            log.error("a call to the OCS failed for good", extra={"path": row["path"], "failure": failure})
            await _fail(connection, row["product"], status, failure)
        elif "complete" in effect:
            await connection.execute(
                "UPDATE product_order SET state = 'completed', completed_at = now() WHERE id = $1 AND state = 'inProgress'",
                uuid.UUID(effect["complete"]),
            )
        if failure is None and effect.get("activate") and status == "created":
            await connection.execute("UPDATE product SET status = 'active' WHERE id = $1", row["product"])
        if "topup" in effect:
            await connection.execute(
                "UPDATE topup SET state = $2 WHERE id = $1",
                uuid.UUID(effect["topup"]),
                "failed" if failure else "confirmed",
            )


async def _fail(connection: Any, product: uuid.UUID, status: str, failure: str) -> None:
    await connection.execute(
        """UPDATE product_order SET state = 'failed', reason = $2 WHERE state = 'inProgress'
           AND (target = $1 OR id = (SELECT order_id FROM product WHERE id = $1))""",
        product,
        failure,
    )
    if status == "created":
        # A line without an account must not stay half made: nothing of it is left, nothing more is tried.
        await sims.give_back(connection, product)
        await connection.execute(
            "UPDATE outbox SET done_at = now(), failure = $2 WHERE product = $1 AND done_at IS NULL", product, failure
        )
        path = f"/ocs/v1/accounts/{product}"
        await put(connection, product, "PATCH", path, {"status": "terminated"})
