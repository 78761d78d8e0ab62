"""TMF637: what customers have, and its life: suspend, resume, terminate."""

from __future__ import annotations

import uuid
from typing import Any

from mvnobox.bss import outbox
from mvnobox.bss.catalog import BASE as CATALOG
from mvnobox.bss.context import Context, TmfError

BASE = "/tmf-api/productInventory/v4/product"
# From → to; everything else is refused.
_MOVES = {
    "active": ("suspended", "terminated"),
    "suspended": ("active", "terminated"),
    "created": ("terminated",),
    "terminated": (),
}


def _document(row: Any) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "href": f"{BASE}/{row['id']}",
        "@type": "Product",
        "status": row["status"],
        "startDate": row["started_at"],
        "terminationDate": row["ended_at"],
        "productOffering": {"id": row["plan"], "href": f"{CATALOG}/{row['plan']}"},
        "productCharacteristic": [
            {"name": "msisdn", "value": row["msisdn"]},
            {"name": "iccid", "value": row["iccid"]},
        ],
        "relatedParty": [{"id": str(row["party"]), "role": "customer", "@referredType": "Individual"}],
    }


async def read(context: Context, identity: uuid.UUID) -> dict[str, Any]:
    """One product. Raises TmfError."""
    row = await context.pool.fetchrow("SELECT * FROM product WHERE id = $1", identity)
    if row is None:
        raise TmfError(404, "there is no such product")
    return _document(row)


async def listing(context: Context, offset: int, limit: int, status: str | None) -> tuple[list[dict[str, Any]], int]:
    """A page of products, newest first, and how many there are."""
    total = await context.pool.fetchval("SELECT count(*) FROM product WHERE $1::text IS NULL OR status = $1", status)
    rows = await context.pool.fetch(
        "SELECT * FROM product WHERE $3::text IS NULL OR status = $3 ORDER BY started_at DESC OFFSET $1 LIMIT $2",
        offset,
        limit,
        status,
    )
    return [_document(row) for row in rows], int(total)


async def change_status(context: Context, identity: uuid.UUID, status: str) -> dict[str, Any]:
    """Suspend, resume or terminate: the directory in the same transaction, the OCS by the outbox. Raises TmfError."""
    async with context.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(
            """SELECT p.*, s.imsi FROM product p LEFT JOIN sim s ON s.iccid = p.iccid
               WHERE p.id = $1 FOR UPDATE OF p""",
            identity,
        )
        if row is None:
            raise TmfError(404, "there is no such product")
        if row["status"] != status:
            if status not in _MOVES[row["status"]]:
                raise TmfError(409, f"a product that is {row['status']} cannot become {status}")
            if status == "terminated":
                await connection.execute("SELECT directory.remove_subscriber($1)", row["imsi"])
                await connection.execute("UPDATE sim SET state = 'retired' WHERE iccid = $1", row["iccid"])
                await connection.execute(
                    "UPDATE number SET product = NULL, released_at = now() WHERE msisdn = $1", row["msisdn"]
                )
            else:
                barred = int(status == "suspended")
                await connection.execute("SELECT directory.set_subscriber_status($1, $2, 0)", row["imsi"], barred)
            await connection.execute(
                "UPDATE product SET status = $2, ended_at = CASE WHEN $2 = 'terminated' THEN now() END WHERE id = $1",
                identity,
                status,
            )
            await outbox.put(connection, identity, "PATCH", f"/ocs/v1/accounts/{identity}", {"status": status})
    return await read(context, identity)
