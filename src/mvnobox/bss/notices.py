"""What the OCS tells of accounts becomes our own events: taken at least once, kept once."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from typing import Any

import asyncpg
import httpx

from mvnobox.bss import events
from mvnobox.bss.context import Context

log = logging.getLogger(__name__)
PATH = "/ocs/v1/events"
IDLE_SECONDS = 1.0
_TYPES = {"bucket.threshold": "balance.threshold", "balance.low": "balance.low"}


async def take_forever(context: Context) -> None:
    """Take what there is until cancelled."""
    while True:
        try:
            taken = await take(context)
        except (httpx.HTTPError, ValueError, KeyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            log.info("the OCS's events: %s", type(error).__name__)
            taken = 0
        if not taken:
            await asyncio.sleep(IDLE_SECONDS * random.uniform(0.5, 1.5))


async def take(context: Context) -> int:
    """Take the oldest events; how many there were. Raises httpx.HTTPError and what asyncpg raises."""
    answer = (await context.ocs.get(PATH)).raise_for_status().json()
    for event in answer:
        async with context.pool.acquire() as connection, connection.transaction():
            await _keep(connection, event)
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
    if row is not None and kind is not None:
        body = {"msisdn": row["msisdn"], **event["body"]}
        await events.put(connection, kind, product, body, identity=uuid.UUID(event["id"]))
