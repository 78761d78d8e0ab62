"""TMF622: orders, from acknowledgement to what they ask for. An order and all that it makes is one transaction."""

from __future__ import annotations

import json
import secrets
import uuid
from typing import Any

import asyncpg

from mvnobox.bss import catalog, fulfilment, lifecycle, listing
from mvnobox.bss.context import Context, TmfError
from mvnobox.bss.incoming import OrderCreate, OrderItem, RelatedParty
from mvnobox.spec import Plan

BASE = "/tmf-api/productOrderingManagement/v4/productOrder"
ATTRIBUTES = {
    "id": "o.id",
    "externalId": "o.external_id",
    "state": "o.state",
    "relatedParty.id": "o.party",
}
# How an order is kept that was told apart by the Idempotency-Key header and not by an externalId of its own.
BY_KEY = "idempotency-key:"


async def _party(context: Context, connection: Any, party: RelatedParty) -> Any:
    if party.id is not None:
        row = await connection.fetchrow("SELECT * FROM individual WHERE id = $1", party.id)
        if row is None:
            raise TmfError(400, "relatedParty.id is not a customer of this brand")
        return row
    if not party.given_name or not party.family_name:
        raise TmfError(400, "relatedParty needs givenName and familyName, or the id of a customer")
    locale = party.preferred_locale if party.preferred_locale in context.brand.locales else context.brand.locales[0]
    shown = party.individual_identification[:1]
    accepted = context.brand.pack.identity.accepted_documents
    if shown and accepted and shown[0].identification_type not in accepted:
        raise TmfError(
            400, f"identification {shown[0].identification_type!r} is not accepted", f"one of {', '.join(accepted)}"
        )
    return await connection.fetchrow(
        """INSERT INTO individual (given_name, family_name, email, locale, identification, verified_at)
           VALUES ($1, $2, $3, $4, $5, CASE WHEN $5::jsonb IS NULL THEN NULL ELSE now() END) RETURNING *""",
        party.given_name,
        party.family_name,
        party.email,
        locale,
        shown[0].model_dump_json(by_alias=True) if shown else None,
    )


async def place(
    context: Context, order: OrderCreate, *, operator: bool, key: str | None = None
) -> tuple[dict[str, Any], bool]:
    """Place an order; (order, whether it is new). A repeated externalId, or else key, gives the first one.

    Raises TmfError; where a range is used up the order is kept, failed, with the reason.
    """
    item = order.product_order_item[0]
    name = order.external_id or (BY_KEY + key if key else None)
    try:
        async with context.pool.acquire() as connection, connection.transaction():
            known = await _known(connection, name, item)
            if known is None:
                made, refused = await (
                    _add(context, connection, order, name, operator=operator)
                    if item.action == "add"
                    else _change(context, connection, item, name)
                )
    except asyncpg.UniqueViolationError:
        # A twin of this order was quicker.
        if name is None:
            raise
        known = await _known(context.pool, name, item)
        if known is None:
            raise
    if known is not None:
        return await read(context, known), False
    if refused is not None:
        refused.reference = f"{BASE}/{made}"
        raise refused
    return await read(context, made), True


async def _known(connection: Any, name: str | None, item: OrderItem) -> uuid.UUID | None:
    if name is None:
        return None
    row = await connection.fetchrow("SELECT id, action, plan, target FROM product_order WHERE external_id = $1", name)
    if row is None:
        return None
    same = row["action"] == item.action and (
        row["target"] == item.product.id
        if item.product is not None
        else item.product_offering is not None and row["plan"] == item.product_offering.id
    )
    if not same:
        raise TmfError(409, "this externalId came before with another content", "give every order an id of its own")
    identity: uuid.UUID = row["id"]
    return identity


Placed = tuple[uuid.UUID, TmfError | None]


async def _add(context: Context, connection: Any, order: OrderCreate, name: str | None, *, operator: bool) -> Placed:
    offering = order.product_order_item[0].product_offering
    assert offering is not None  # the item's own validation
    try:
        plan = context.brand.plan(offering.id)
    except KeyError:
        plan = None
    if plan is None or not (plan.sellable or operator):
        raise TmfError(400, f"there is no plan {offering.id!r}", "see productOffering")
    party = order.related_party[0]
    if not operator:
        # Only the operator vouches for an identity.
        party = party.model_copy(update={"individual_identification": [], "id": None})
    person = await _party(context, connection, party)
    held = context.brand.pack.identity.required_before_activation and person["verified_at"] is None
    identity = await connection.fetchval(
        """INSERT INTO product_order (external_id, party, plan, state, reason, token)
           VALUES ($1, $2, $3, $4, $5, $6) RETURNING id""",
        name,
        person["id"],
        plan.id,
        "pending" if held else "inProgress",
        "the customer's identity must be verified before activation" if held else None,
        secrets.token_urlsafe(24),
    )
    return identity, None if held else await _fulfil(context, connection, identity, person["id"], plan)


async def _fulfil(
    context: Context, connection: Any, identity: uuid.UUID, party: uuid.UUID, plan: Plan
) -> TmfError | None:
    """Fulfil an order, or note why it failed and leave nothing else of it."""
    try:
        async with connection.transaction():
            await fulfilment.fulfil(context, connection, identity, party, plan)
    except TmfError as error:
        await connection.execute(
            "UPDATE product_order SET state = 'failed', reason = $2 WHERE id = $1",
            identity,
            f"{error.reason}: {error.message}",
        )
        return error
    return None


async def _change(context: Context, connection: Any, item: OrderItem, name: str | None) -> Placed:
    """Modify or delete a product. What its state does not allow is an error and leaves no order."""
    assert item.product is not None  # the item's own validation
    target = item.product.id
    row = await lifecycle.locked(connection, target)
    if row["party"] is None:
        raise TmfError(409, "this product has no customer yet", "change it through the product inventory")
    status = "terminated" if item.action == "delete" else item.product.status
    change = {"simSwap": True} if status is None else {"status": status}
    identity: uuid.UUID = await connection.fetchval(
        """INSERT INTO product_order (external_id, party, plan, state, token, action, target, change)
           VALUES ($1, $2, $3, 'inProgress', $4, $5, $6, $7) RETURNING id""",
        name,
        row["party"],
        row["plan"],
        secrets.token_urlsafe(24),
        item.action,
        target,
        json.dumps(change),
    )
    effect = {"complete": str(identity)}
    if status is None:
        await lifecycle.swap_sim(context, connection, target, effect)
    elif not await lifecycle.move(connection, target, status, effect):
        await connection.execute(
            "UPDATE product_order SET state = 'completed', completed_at = now() WHERE id = $1", identity
        )
    return identity, None


async def verify_identity(context: Context, party: uuid.UUID) -> None:
    """The operator has seen the customer's document: held orders go on. Raises TmfError."""
    async with context.pool.acquire() as connection, connection.transaction():
        found = await connection.fetchval(
            "UPDATE individual SET verified_at = coalesce(verified_at, now()) WHERE id = $1 RETURNING id", party
        )
        if found is None:
            raise TmfError(404, "there is no such customer")
        rows = await connection.fetch(
            """UPDATE product_order SET state = 'inProgress', reason = NULL
               WHERE party = $1 AND state = 'pending' RETURNING id, plan""",
            party,
        )
        for row in rows:
            await _fulfil(context, connection, row["id"], party, context.brand.plan(row["plan"]))


_QUERY = """SELECT o.*, p.id AS product, p.msisdn, p.iccid, p.status FROM product_order o
            LEFT JOIN product p ON p.id = coalesce(o.target, (SELECT id FROM product WHERE order_id = o.id))"""


def _document(row: Any) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": "1",
        "@type": "ProductOrderItem",
        "action": row["action"],
        "quantity": 1,
        "state": row["state"],
        "productOffering": {"id": row["plan"], "href": f"{catalog.BASE}/{row['plan']}"},
    }
    if row["product"] is not None:
        item["product"] = {
            "id": str(row["product"]),
            "href": f"/tmf-api/productInventory/v4/product/{row['product']}",
            "status": row["status"],
            "productCharacteristic": [
                {"name": "msisdn", "value": row["msisdn"]},
                {"name": "iccid", "value": row["iccid"]},
            ],
        }
    name = row["external_id"]
    document = {
        "id": str(row["id"]),
        "href": f"{BASE}/{row['id']}",
        "@type": "ProductOrder",
        "state": row["state"],
        "orderDate": row["created_at"],
        "productOrderItem": [item],
        "relatedParty": [{"id": str(row["party"]), "role": "customer", "@referredType": "Individual"}],
    }
    if name is not None and not name.startswith(BY_KEY):
        document["externalId"] = name
    if row["completed_at"] is not None:
        document["completionDate"] = row["completed_at"]
    if row["reason"]:
        document["note"] = [{"text": row["reason"]}]
    return document


async def read(context: Context, identity: uuid.UUID) -> dict[str, Any]:
    """One order. Raises TmfError."""
    row = await context.pool.fetchrow(f"{_QUERY} WHERE o.id = $1", identity)
    if row is None:
        raise TmfError(404, "there is no such order")
    return _document(row)


async def page(context: Context, wanted: listing.Wish) -> tuple[list[dict[str, Any]], int]:
    """A page of orders, newest first, and how many there are."""
    return await listing.rows(context, wanted, _QUERY, ATTRIBUTES, "created_at DESC, id", _document)
