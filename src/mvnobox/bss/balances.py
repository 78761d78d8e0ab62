"""TMF654: balances as the OCS has them now, and top-ups."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from typing import Any

import httpx

from mvnobox.bss import catalog, outbox, periods
from mvnobox.bss.context import Context, TmfError
from mvnobox.bss.incoming import Quantity
from mvnobox.spec import TopUp

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
            "id": f"{product}.{one['id']}",
            "href": f"{BASE}/bucket/{product}.{one['id']}",
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


async def bucket(context: Context, identity: str) -> dict[str, Any]:
    """One Bucket. Raises TmfError."""
    try:
        product = uuid.UUID(identity.partition(".")[0])
    except ValueError:
        raise TmfError(404, "there is no such bucket") from None
    for document in await buckets(context, product):
        if document["id"] == identity:
            return document
    raise TmfError(404, "there is no such bucket")


async def accumulated(context: Context, product: uuid.UUID) -> dict[str, Any]:
    """TMF654 AccumulatedBalance: the totals of a product, with its use."""
    balances, usage = await asyncio.gather(_ocs(context, product, "balances"), _ocs(context, product, "usage"))
    return {
        "id": str(product),
        "href": f"{BASE}/accumulatedBalance?product.id={product}",
        "@type": "AccumulatedBalance",
        "product": [{"id": str(product)}],
        "totalBalance": [
            {
                "units": unit,
                "granted": total["granted"],
                "amount": total["available"],
                "reserved": total["held"],
                "expired": total.get("expired", 0),
                "used": usage["totals"].get(unit, total["used"]),
            }
            for unit, total in balances["totals"].items()
        ],
        "session": usage["sessions"][:20],
    }


def _price(context: Context, item: TopUp, amount: Quantity | None) -> None:
    currency = context.brand.effective_currency
    if amount is not None and amount.units != currency:
        raise TmfError(400, f"the price is in {currency}, not in {amount.units!r}", "see productOffering")
    if amount is not None and amount.amount != float(item.price):
        raise TmfError(400, f"the price of {item.id!r} is {item.price} {currency}", "see productOffering")


async def top_up(
    context: Context, product: uuid.UUID, offer: str, request: uuid.UUID, amount: Quantity | None = None
) -> tuple[dict[str, Any], bool]:
    """Sell a top-up once a request id; (TopupBalance, whether it is new). Raises TmfError."""
    try:
        item = context.brand.top_up(offer)
    except KeyError:
        raise TmfError(400, f"there is no top-up {offer!r}", "see productOffering") from None
    _price(context, item, amount)
    async with context.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow("SELECT * FROM product WHERE id = $1 FOR UPDATE", product)
        if row is None:
            raise TmfError(404, "there is no such product")
        if offer not in context.brand.plan(row["plan"]).top_ups:
            raise TmfError(400, f"the plan {row['plan']!r} has no top-up {offer!r}")
        # Two requests with one id for different products wait for each other here.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('topup'), hashtext($1))", str(request))
        known = await connection.fetchrow("SELECT * FROM topup WHERE id = $1", request)
        if known is not None and (known["product"], known["offer"]) != (product, offer):
            raise TmfError(
                409, "this request id came before with another content", "give every top-up an id of its own"
            )
        if known is None:
            if row["status"] not in ("active", "created"):
                raise TmfError(409, f"a product that is {row['status']} takes no top-up")
            await _sell(context, connection, product, item, request)
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while await context.pool.fetchval("SELECT state FROM topup WHERE id = $1", request) == "acknowledged":
        if asyncio.get_running_loop().time() > deadline:
            break
        if not await outbox.deliver(context, product):
            await asyncio.sleep(0.05)
    return await topup(context, request), known is None


async def _sell(context: Context, connection: Any, product: uuid.UUID, item: TopUp, request: uuid.UUID) -> None:
    await connection.execute(
        "INSERT INTO topup (id, product, offer, amount, currency, state) VALUES ($1, $2, $3, $4, $5, 'acknowledged')",
        request,
        product,
        item.id,
        item.price,
        context.brand.effective_currency,
    )
    until = periods.ahead(dt.datetime.now(dt.UTC), item.validity)
    granted = catalog.buckets(context.brand, item.adds, f"topup:{item.id}", until, 20)
    body = {"requestId": str(request), "buckets": granted}
    await outbox.put(connection, product, "POST", f"/ocs/v1/accounts/{product}/grants", body, {"topup": str(request)})


async def topup(context: Context, request: uuid.UUID) -> dict[str, Any]:
    """One TopupBalance. Raises TmfError."""
    row = await context.pool.fetchrow("SELECT * FROM topup WHERE id = $1", request)
    if row is None:
        raise TmfError(404, "there is no such top-up")
    return {
        "id": str(request),
        "href": f"{BASE}/topupBalance/{request}",
        "@type": "TopupBalance",
        "status": row["state"],
        "requestedDate": row["created_at"],
        "amount": {"amount": float(row["amount"]), "units": row["currency"]},
        "product": {"id": str(row["product"])},
        "productOffering": {"id": row["offer"]},
    }
