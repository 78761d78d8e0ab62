"""TMF622: orders, from acknowledgement to a line that works. An order and all that it makes is one transaction."""

from __future__ import annotations

import datetime as dt
import json
import logging
import secrets
import uuid
from typing import Annotated, Any, Literal

import asyncpg
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from mvnobox.bss import catalog, outbox, sims
from mvnobox.bss.context import Context, TmfError
from mvnobox.spec import BrandSpec, Plan

log = logging.getLogger(__name__)
BASE = "/tmf-api/productOrderingManagement/v4/productOrder"
Name = Annotated[str, Field(min_length=1, max_length=100)]


class Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Identification(Incoming):
    identification_type: str = Field(min_length=1, max_length=60)
    identification_id: str = Field(min_length=1, max_length=60)
    issuing_authority: str | None = Field(default=None, max_length=100)


class ContactMedium(Incoming):
    medium_type: str = Field(max_length=40)
    characteristic: dict[str, Any] = {}


class RelatedParty(Incoming):
    """A customer inline, or a reference to one (`id`)."""

    id: uuid.UUID | None = None
    role: str = Field(default="customer", max_length=40)
    given_name: Name | None = None
    family_name: Name | None = None
    preferred_locale: str | None = Field(default=None, max_length=10)
    contact_medium: Annotated[list[ContactMedium], Field(max_length=5)] = []
    individual_identification: Annotated[list[Identification], Field(max_length=3)] = []

    @property
    def email(self) -> str | None:
        for medium in self.contact_medium:
            if medium.medium_type == "email":
                value = str(medium.characteristic.get("emailAddress", ""))[:254]
                return value or None
        return None


class Reference(Incoming):
    id: str = Field(min_length=1, max_length=60)


class OrderItem(Incoming):
    id: str = Field(default="1", max_length=20)
    action: Literal["add"] = "add"
    quantity: Literal[1] = 1
    product_offering: Reference


class OrderCreate(Incoming):
    """ProductOrder_Create (TMF622)."""

    external_id: str | None = Field(default=None, min_length=1, max_length=100)
    product_order_item: Annotated[list[OrderItem], Field(min_length=1, max_length=1)]
    related_party: Annotated[list[RelatedParty], Field(min_length=1, max_length=1)]


# Open5GS's numbers of a bit rate's unit: bit/s, kbit/s, Mbit/s, Gbit/s.
def _rate(value: int) -> dict[str, int]:
    for unit, factor in ((3, 10**9), (2, 10**6), (1, 10**3)):
        if value % factor == 0:
            return {"value": value // factor, "unit": unit}
    return {"value": value, "unit": 0}


def subscriber_document(brand: BrandSpec, plan: Plan) -> dict[str, Any]:
    """Open5GS's subscriber document (its database schema, version 1) for a plan, without identity and keys."""
    network = brand.data_network(plan.dnn)
    ambr = {"downlink": _rate(network.ambr.downlink), "uplink": _rate(network.ambr.uplink)}
    session = {
        "name": network.name,
        "type": 1,
        "qos": {"index": 9, "arp": {"priority_level": 8, "pre_emption_capability": 1, "pre_emption_vulnerability": 2}},
        "ambr": ambr,
        "pcc_rule": [],
    }
    entry: dict[str, Any] = {"sst": brand.slice.sst, "default_indicator": True, "session": [session]}
    if brand.slice.sd:
        entry["sd"] = brand.slice.sd
    return {
        "schema_version": 1,
        "ambr": ambr,
        "slice": [entry],
        "access_restriction_data": 32,
        "subscriber_status": 0,
        "operator_determined_barring": 0,
        "network_access_mode": 0,
        "subscribed_rau_tau_timer": 12,
    }


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


async def place(context: Context, order: OrderCreate, *, operator: bool) -> tuple[dict[str, Any], bool]:
    """Place an order; (order, whether it is new). A repeated externalId gives the first one. Raises TmfError."""
    wanted = order.product_order_item[0].product_offering.id
    try:
        plan = context.brand.plan(wanted)
    except KeyError:
        raise TmfError(400, f"there is no plan {wanted!r}", "see productOffering") from None
    if not plan.sellable and not operator:
        raise TmfError(400, f"there is no plan {wanted!r}", "see productOffering")
    party = order.related_party[0]
    if not operator:
        # Only the operator vouches for an identity.
        party = party.model_copy(update={"individual_identification": [], "id": None})
    try:
        async with context.pool.acquire() as connection, connection.transaction():
            if order.external_id is not None:
                known = await connection.fetchval(
                    "SELECT id FROM product_order WHERE external_id = $1", order.external_id
                )
                if known is not None:
                    return await read(context, known), False
            person = await _party(context, connection, party)
            held = context.brand.pack.identity.required_before_activation and person["verified_at"] is None
            identity = await connection.fetchval(
                """INSERT INTO product_order (external_id, party, plan, state, reason, token)
                   VALUES ($1, $2, $3, $4, $5, $6) RETURNING id""",
                order.external_id,
                person["id"],
                plan.id,
                "pending" if held else "inProgress",
                "the customer's identity must be verified before activation" if held else None,
                secrets.token_urlsafe(24),
            )
            if not held:
                await fulfil(context, connection, identity, person["id"], plan)
    except asyncpg.UniqueViolationError:
        # A twin of this order was quicker.
        if order.external_id is None:
            raise
        known = await context.pool.fetchval("SELECT id FROM product_order WHERE external_id = $1", order.external_id)
        return await read(context, known), False
    return await read(context, identity), True


async def fulfil(context: Context, connection: Any, order: uuid.UUID, party: uuid.UUID, plan: Plan) -> None:
    """Everything that an order makes, in its transaction: product, SIM, number, directory row, what the OCS has to do."""
    product: uuid.UUID = await connection.fetchval(
        "INSERT INTO product (order_id, party, plan, status) VALUES ($1, $2, $3, 'created') RETURNING id",
        order,
        party,
        plan.id,
    )
    sim = await sims.make_sim(context, connection, product)
    number = await sims.take_number(context, connection, product)
    await connection.execute("UPDATE product SET msisdn = $2, iccid = $3 WHERE id = $1", product, number, sim["iccid"])
    await connection.execute(
        "SELECT directory.put_subscriber($1, $2, $3, $4)",
        sim["imsi"],
        [number],
        sim["sealed"],
        json.dumps(subscriber_document(context.brand, plan)),
    )
    account = {
        "subscriberIds": [f"imsi-{sim['imsi']}", f"msisdn-{number}"],
        "currency": context.brand.effective_currency,
        "timezone": context.brand.effective_timezone,
        "status": "active",
    }
    await outbox.put(connection, product, "PUT", f"/ocs/v1/accounts/{product}", account)
    until = catalog.period_end(dt.datetime.now(dt.UTC), plan.period)
    granted = catalog.buckets(plan.allowances, f"plan:{plan.id}", until, 10)
    effect = {"complete": str(order)}
    if granted:
        body = {"requestId": str(uuid.uuid5(product, "plan")), "buckets": granted}
        await outbox.put(connection, product, "POST", f"/ocs/v1/accounts/{product}/grants", body, effect)
    else:
        await outbox.put(connection, product, "PATCH", f"/ocs/v1/accounts/{product}", {"status": "active"}, effect)


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
            await fulfil(context, connection, row["id"], party, context.brand.plan(row["plan"]))


_QUERY = (
    """SELECT o.*, p.id AS product, p.msisdn, p.iccid FROM product_order o LEFT JOIN product p ON p.order_id = o.id"""
)


def _document(row: Any) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": "1",
        "action": "add",
        "state": row["state"],
        "productOffering": {"id": row["plan"], "href": f"{catalog.BASE}/{row['plan']}"},
    }
    if row["product"] is not None:
        item["product"] = {
            "id": str(row["product"]),
            "productCharacteristic": [
                {"name": "msisdn", "value": row["msisdn"]},
                {"name": "iccid", "value": row["iccid"]},
            ],
        }
    document = {
        "id": str(row["id"]),
        "href": f"{BASE}/{row['id']}",
        "@type": "ProductOrder",
        "externalId": row["external_id"],
        "state": row["state"],
        "orderDate": row["created_at"],
        "completionDate": row["completed_at"],
        "productOrderItem": [item],
        "relatedParty": [{"id": str(row["party"]), "role": "customer", "@referredType": "Individual"}],
    }
    if row["reason"]:
        document["note"] = [{"text": row["reason"]}]
    return document


async def read(context: Context, identity: uuid.UUID) -> dict[str, Any]:
    """One order. Raises TmfError."""
    row = await context.pool.fetchrow(f"{_QUERY} WHERE o.id = $1", identity)
    if row is None:
        raise TmfError(404, "there is no such order")
    return _document(row)


async def listing(context: Context, offset: int, limit: int, state: str | None) -> tuple[list[dict[str, Any]], int]:
    """A page of orders, newest first, and how many there are."""
    total = await context.pool.fetchval(
        "SELECT count(*) FROM product_order WHERE $1::text IS NULL OR state = $1", state
    )
    rows = await context.pool.fetch(
        f"{_QUERY} WHERE $3::text IS NULL OR o.state = $3 ORDER BY o.created_at DESC OFFSET $1 LIMIT $2",
        offset,
        limit,
        state,
    )
    return [_document(row) for row in rows], int(total)
