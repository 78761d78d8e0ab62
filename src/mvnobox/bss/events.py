"""What happened to subscribers, told to whoever must act on it in the core: kept until it says that it has it."""

from __future__ import annotations

import json
import uuid
from typing import Any, Literal

from mvnobox.bss.context import Context, TmfError

BASE = "/subscriber-event/v1/event"
Kind = Literal[
    "subscriber.suspended",
    "subscriber.resumed",
    "subscriber.sim_swapped",
    "subscriber.terminated",
    "subscription.renewed",
    "subscription.lapsed",
    "balance.threshold",
    "balance.low",
]


async def put(
    connection: Any, kind: Kind, product: uuid.UUID, body: dict[str, Any], *, identity: uuid.UUID | None = None
) -> None:
    """Record an event in the transaction of its cause; one with an identity of its own once."""
    await connection.execute(
        "INSERT INTO event (id, type, product, body) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
        identity or uuid.uuid4(),
        kind,
        product,
        json.dumps(body),
    )


async def waiting(context: Context, limit: int) -> list[dict[str, Any]]:
    """The oldest events that nobody has taken."""
    rows = await context.pool.fetch("SELECT * FROM event WHERE taken_at IS NULL ORDER BY sequence LIMIT $1", limit)
    return [
        {
            "eventId": str(row["id"]),
            "href": f"{BASE}/{row['id']}",
            "@type": "SubscriberEvent",
            "eventType": row["type"],
            "eventTime": row["at"],
            "event": {"productId": str(row["product"]), **json.loads(row["body"])},
        }
        for row in rows
    ]


async def take(context: Context, identity: uuid.UUID) -> None:
    """The core has acted on an event; repeating it changes nothing. Raises TmfError."""
    done = await context.pool.fetchval(
        "UPDATE event SET taken_at = coalesce(taken_at, now()) WHERE id = $1 RETURNING id", identity
    )
    if done is None:
        raise TmfError(404, "there is no such event")
