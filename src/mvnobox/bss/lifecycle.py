"""The life of a line: suspend, resume, SIM swap, terminate. Each is one transaction with the directory and the outbox."""

from __future__ import annotations

import uuid
from typing import Any

from mvnobox.bss import events, fulfilment, outbox, sims
from mvnobox.bss.context import Context, TmfError

# From → to; everything else is refused.
_MOVES = {
    "active": ("suspended", "terminated"),
    "suspended": ("active", "terminated"),
    "created": ("terminated",),
    "terminated": (),
}
_EVENTS: dict[str, events.Kind] = {
    "suspended": "subscriber.suspended",
    "active": "subscriber.resumed",
    "terminated": "subscriber.terminated",
}


async def locked(connection: Any, product: uuid.UUID) -> Any:
    """A product with its IMSI, locked. Raises TmfError."""
    row = await connection.fetchrow(
        """SELECT p.*, s.imsi FROM product p LEFT JOIN sim s ON s.iccid = p.iccid WHERE p.id = $1 FOR UPDATE OF p""",
        product,
    )
    if row is None:
        raise TmfError(404, "there is no such product")
    return row


async def move(connection: Any, product: uuid.UUID, status: str, effect: dict[str, Any] | None = None) -> bool:
    """Give a line another status in the caller's transaction; False if it has it already. Raises TmfError."""
    row = await locked(connection, product)
    if row["status"] == status:
        return False
    if status not in _MOVES[row["status"]]:
        raise TmfError(
            409,
            f"a product that is {row['status']} cannot become {status}",
            f"it can become {' or '.join(_MOVES[row['status']]) or 'nothing else'}",
        )
    if status == "terminated":
        await sims.give_back(connection, product)
    else:
        barred = int(status == "suspended")
        known = await connection.fetchval("SELECT directory.set_subscriber_status($1, $2, 0)", row["imsi"], barred)
        if not known:
            raise TmfError(409, "the directory does not know this subscriber", "terminate the product")
        await connection.execute("UPDATE product SET status = $2 WHERE id = $1", product, status)
    await outbox.put(connection, product, "PATCH", f"/ocs/v1/accounts/{product}", {"status": status}, effect)
    await events.put(connection, _EVENTS[status], product, {"imsi": row["imsi"], "msisdn": row["msisdn"]})
    return True


async def swap_sim(
    context: Context, connection: Any, product: uuid.UUID, effect: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A new SIM for a line that keeps its number and balances; the old SIM is worth nothing from now on. Raises TmfError."""
    row = await locked(connection, product)
    if row["status"] not in ("active", "suspended"):
        raise TmfError(409, f"a product that is {row['status']} gets no other SIM")
    await connection.execute("SELECT directory.remove_subscriber($1)", row["imsi"])
    await connection.execute("UPDATE sim SET state = 'retired' WHERE product = $1", product)
    sim = await sims.make_sim(context, connection, product)
    await connection.execute("UPDATE product SET iccid = $2 WHERE id = $1", product, sim["iccid"])
    barred = row["status"] == "suspended"
    plan = context.brand.plan(row["plan"])
    await fulfilment.put_subscriber(context, connection, plan, sim["imsi"], row["msisdn"], sim["sealed"], barred=barred)
    body = fulfilment.account(context, plan, sim["imsi"], row["msisdn"], row["status"])
    await outbox.put(connection, product, "PUT", f"/ocs/v1/accounts/{product}", body, effect)
    told = {"imsi": sim["imsi"], "formerImsi": row["imsi"], "msisdn": row["msisdn"]}
    await events.put(connection, "subscriber.sim_swapped", product, told)
    return sim
