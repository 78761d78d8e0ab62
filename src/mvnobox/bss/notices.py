"""What the OCS tells of accounts becomes our own events: taken at least once, kept once."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import asyncpg
import httpx

from mvnobox.bss import events
from mvnobox.bss.context import Context
from mvnobox.service.database import TROUBLE
from mvnobox.service.working import work_forever

log = logging.getLogger(__name__)
PATH = "/ocs/v1/events"
IDLE_SECONDS = 1.0
_TYPES: dict[str, events.Kind] = {"bucket.threshold": "balance.threshold", "balance.low": "balance.low"}


async def take_forever(context: Context) -> None:
    """Take what there is until cancelled."""
    trouble = (*TROUBLE, httpx.HTTPError, ValueError, KeyError)
    await work_forever(
        lambda: take(context), name="the OCS's events", log=log, idle_seconds=IDLE_SECONDS, trouble=trouble
    )


async def take(context: Context) -> int:
    """Take the oldest events, whatever can be made of each; how many there were.

    Raises httpx.HTTPError and what a database in trouble raises.
    """
    answer = (await context.ocs.get(PATH)).raise_for_status().json()
    for event in answer:
        try:
            async with context.pool.acquire() as connection, connection.transaction():
                await _keep(connection, event)
        except (ValueError, KeyError, TypeError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            # It would come first again and again, and nothing after it ever.
            log.error("an event of the OCS is dropped: %s", type(error).__name__, extra={"event": event.get("id")})
    if answer:
        ids = [event["id"] for event in answer]
        (await context.ocs.post(f"{PATH}/taken", json={"ids": ids})).raise_for_status()
    return len(answer)


async def _keep(connection: Any, event: dict[str, Any]) -> None:
    try:
        product = uuid.UUID(event["accountId"])
    except ValueError:
        return  # an account that is no product of ours
    row = await connection.fetchrow("SELECT msisdn FROM product WHERE id = $1", product)
    kind = _TYPES.get(event["type"])
    if kind is None:
        log.warning("an event of a kind that nobody knows is dropped", extra={"kind": event["type"]})
    elif row is not None:
        body = {"msisdn": row["msisdn"], **event["body"]}
        await events.put(connection, kind, product, body, identity=uuid.UUID(event["id"]))
