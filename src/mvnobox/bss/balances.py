"""TMF654: balances as the OCS has them now, and top-ups."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from typing import Any

import httpx

from mvnobox.bss import catalog, outbox
from mvnobox.bss.context import Context, TmfError

BASE = "/tmf-api/prepayBalanceManagement/v4"
# How long an answer waits for the OCS before it says "acknowledged".
PATIENCE_SECONDS = 2.0


async def _ocs(context: Context, product: uuid.UUID, what: str) -> dict[str, Any]:
    if await context.pool.fetchval("SELECT 1 FROM product WHERE id = $1", product) is None:
        raise TmfError(404, "there is no such product")
    try:
        response = await context.ocs.get(f"/ocs/v1/accounts/{product}/{what}")
    except httpx.HTTPError:
        raise TmfError(503, "the balances cannot be read at the moment", "try again") from None
    if response.status_code == 404:
        return {"buckets": [], "totals": {}, "sessions": []}
    if not response.is_success:
        raise TmfError(503, "the balances cannot be read at the moment", "try again")
    document: dict[str, Any] = response.json()
    return document


async def buckets(context: Context, product: uuid.UUID) -> list[dict[str, Any]]:
    """TMF654 Bucket, one for each bucket of the account."""
    found = await _ocs(context, product, "balances")
    return [
        {
            "id": str(one["id"]),
            "href": f"{BASE}/bucket/{one['id']}",
            "@type": "Bucket",
            "name": one["source"],
            "usageType": {"octets": "data", "seconds": "voice", "messages": "sms"}.get(one["unit"], "monetary"),
            "remainingValue": {"amount": one["available"], "units": one["unit"]},
            "reservedValue": {"amount": one["held"], "units": one["unit"]},
            "usedValue": {"amount": one["used"], "units": one["unit"]},
            "validFor": {"endDateTime": one["validUntil"]},
            "status": "active",
            "product": [{"id": str(product)}],
        }
        for one in found["buckets"]
    ]


async def accumulated(context: Context, product: uuid.UUID) -> dict[str, Any]:
    """TMF654 AccumulatedBalance: the totals of a product, with its use."""
    balances, usage = await asyncio.gather(_ocs(context, product, "balances"), _ocs(context, product, "usage"))
    return {
        "id": str(product),
        "@type": "AccumulatedBalance",
        "product": [{"id": str(product)}],
        "totalBalance": [
            {
                "units": unit,
                "granted": total["granted"],
                "amount": total["available"],
                "reserved": total["held"],
                "used": usage["totals"].get(unit, total["used"]),
            }
            for unit, total in balances["totals"].items()
        ],
        "session": usage["sessions"][:20],
    }


async def top_up(context: Context, product: uuid.UUID, offer: str, request: uuid.UUID) -> tuple[dict[str, Any], bool]:
    """Sell a top-up once a request id; (TopupBalance, whether it is new). Raises TmfError."""
    try:
        item = context.brand.top_up(offer)
    except KeyError:
        raise TmfError(400, f"there is no top-up {offer!r}", "see productOffering") from None
    async with context.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow("SELECT * FROM product WHERE id = $1 FOR UPDATE", product)
        if row is None:
            raise TmfError(404, "there is no such product")
        if offer not in context.brand.plan(row["plan"]).top_ups:
            raise TmfError(400, f"the plan {row['plan']!r} has no top-up {offer!r}")
        known = await connection.fetchrow("SELECT * FROM topup WHERE id = $1", request)
        if known is not None and (known["product"], known["offer"]) != (product, offer):
            raise TmfError(409, "this request id came before with another content")
        if known is None:
            if row["status"] not in ("active", "created"):
                raise TmfError(409, f"a product that is {row['status']} takes no top-up")
            await connection.execute(
                "INSERT INTO topup (id, product, offer, amount, currency, state) VALUES ($1, $2, $3, $4, $5, 'acknowledged')",
                request,
                product,
                offer,
                item.price,
                context.brand.effective_currency,
            )
            until = catalog.period_end(dt.datetime.now(dt.UTC), item.validity)
            granted = catalog.buckets(item.adds, f"topup:{item.id}", until, 20)
            body = {"requestId": str(request), "buckets": granted}
            path = f"/ocs/v1/accounts/{product}/grants"
            await outbox.put(connection, product, "POST", path, body, {"topup": str(request)})
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        state = await context.pool.fetchval("SELECT state FROM topup WHERE id = $1", request)
        if state != "acknowledged" or asyncio.get_running_loop().time() > deadline:
            break
        if not await outbox.deliver_one(context):
            await asyncio.sleep(0.05)
    document = {
        "id": str(request),
        "href": f"{BASE}/topupBalance/{request}",
        "@type": "TopupBalance",
        "status": state,
        "amount": {"amount": float(item.price), "units": context.brand.effective_currency},
        "product": {"id": str(product)},
    }
    return document, known is None
