"""TMF637: what customers have."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from mvnobox.bss import lifecycle, listing, renewals
from mvnobox.bss.catalog import BASE as CATALOG
from mvnobox.bss.context import Context, TmfError

BASE = "/tmf-api/productInventory/v4/product"
# asyncpg's word for a time that does not come.
NEVER = dt.datetime.max
ATTRIBUTES = {
    "id": "p.id",
    "status": "p.status",
    "productOffering.id": "p.plan",
    "relatedParty.id": "p.party",
    "msisdn": "p.msisdn",
    "iccid": "p.iccid",
    "batch": "p.batch",
}


def _document(context: Context, row: Any) -> dict[str, Any]:
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
    if row["renews_at"] is not None and row["ended_at"] is None:
        document["productTerm"] = [_term(context, row)]
    if row["ended_at"] is not None:
        document["terminationDate"] = row["ended_at"]
    if row["party"] is not None:
        document["relatedParty"] = [{"id": str(row["party"]), "role": "customer", "@referredType": "Individual"}]
    return document


def _term(context: Context, row: Any) -> dict[str, Any]:
    """The period that a line is in; a lapsed line's has no end any more."""
    lapsed = row["renews_at"] == NEVER
    try:
        automatic = renewals.renews_by_itself(context.brand.plan(row["plan"]), row["auto_renew"])
    except KeyError:
        automatic = False
    return {
        "name": "lapsed" if lapsed else "period",
        "number": row["period"] + 1,
        "autoRenew": automatic,
        **({} if lapsed else {"validFor": {"endDateTime": row["renews_at"]}}),
    }


async def read(context: Context, identity: uuid.UUID) -> dict[str, Any]:
    """One product. Raises TmfError."""
    row = await context.pool.fetchrow("SELECT * FROM product WHERE id = $1", identity)
    if row is None:
        raise TmfError(404, "there is no such product")
    return _document(context, row)


async def page(context: Context, wanted: listing.Wish) -> tuple[list[dict[str, Any]], int]:
    """A page of products, newest first, and how many there are."""
    order = "started_at DESC, id"

    def make(row: Any) -> dict[str, Any]:
        return _document(context, row)

    return await listing.rows(context, wanted, "SELECT p.* FROM product p", ATTRIBUTES, order, make)


async def change(
    context: Context, identity: uuid.UUID, status: str | None, auto_renew: bool | None = None
) -> dict[str, Any]:
    """Suspend, resume or terminate; have the plan renew by itself or not. Raises TmfError."""
    async with context.pool.acquire() as connection, connection.transaction():
        if auto_renew is not None:
            row = await lifecycle.locked(connection, identity)
            if row["status"] == "terminated":
                raise TmfError(409, "a product that is terminated does not renew")
            await renewals.wish(connection, identity, auto_renew)
        if status is not None:
            await lifecycle.move(connection, identity, status)
    return await read(context, identity)
