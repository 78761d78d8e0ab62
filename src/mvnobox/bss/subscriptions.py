"""TMF637: what customers have."""

from __future__ import annotations

import uuid
from typing import Any

from mvnobox.bss import lifecycle, listing
from mvnobox.bss.catalog import BASE as CATALOG
from mvnobox.bss.context import Context, TmfError

BASE = "/tmf-api/productInventory/v4/product"
ATTRIBUTES = {
    "id": "p.id",
    "status": "p.status",
    "productOffering.id": "p.plan",
    "relatedParty.id": "p.party",
    "msisdn": "p.msisdn",
    "iccid": "p.iccid",
    "batch": "p.batch",
}


def _document(row: Any) -> dict[str, Any]:
    document = {
        "id": str(row["id"]),
        "href": f"{BASE}/{row['id']}",
        "@type": "Product",
        "status": row["status"],
        "startDate": row["started_at"],
        "productOffering": {"id": row["plan"], "href": f"{CATALOG}/{row['plan']}"},
        "productCharacteristic": [
            {"name": "msisdn", "value": row["msisdn"]},
            {"name": "iccid", "value": row["iccid"]},
        ],
        "relatedParty": [],
    }
    if row["ended_at"] is not None:
        document["terminationDate"] = row["ended_at"]
    if row["party"] is not None:
        document["relatedParty"] = [{"id": str(row["party"]), "role": "customer", "@referredType": "Individual"}]
    return document


async def read(context: Context, identity: uuid.UUID) -> dict[str, Any]:
    """One product. Raises TmfError."""
    row = await context.pool.fetchrow("SELECT * FROM product WHERE id = $1", identity)
    if row is None:
        raise TmfError(404, "there is no such product")
    return _document(row)


async def page(context: Context, wanted: listing.Wish) -> tuple[list[dict[str, Any]], int]:
    """A page of products, newest first, and how many there are."""
    order = "started_at DESC, id"
    return await listing.rows(context, wanted, "SELECT p.* FROM product p", ATTRIBUTES, order, _document)


async def change_status(context: Context, identity: uuid.UUID, status: str) -> dict[str, Any]:
    """Suspend, resume or terminate. Raises TmfError."""
    async with context.pool.acquire() as connection, connection.transaction():
        await lifecycle.move(connection, identity, status)
    return await read(context, identity)
