"""What an order makes, in its transaction: product, SIM, number, directory row, and what the OCS has to do."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import asyncpg

from mvnobox.bss import outbox, periods, renewals, sims
from mvnobox.bss.context import Context, TmfError
from mvnobox.spec import BrandSpec, Plan


# Open5GS's numbers of a bit rate's unit: bit/s, kbit/s, Mbit/s, Gbit/s.
def _rate(value: int) -> dict[str, int]:
    for unit, factor in ((3, 10**9), (2, 10**6), (1, 10**3)):
        if value % factor == 0:
            return {"value": value // factor, "unit": unit}
    return {"value": value, "unit": 0}


# Open5GS's numbers of a PDU session's type (TS 24.501 clause 9.11.4.11).
_IPV4, _IPV4V6 = 1, 3


def subscriber_document(brand: BrandSpec, plan: Plan) -> dict[str, Any]:
    """Open5GS's subscriber document (its database schema, version 1) for a plan, without identity and keys."""
    network = brand.data_network(plan.dnn)
    ambr = {"downlink": _rate(network.ambr.downlink), "uplink": _rate(network.ambr.uplink)}
    session = {
        "name": network.name,
        # A UE that asks for IPv4 alone gets that of both.
        "type": _IPV4 if network.pool6 is None else _IPV4V6,
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


async def provision(connection: Any, statement: str, *values: Any) -> None:
    """Call the directory. Raises TmfError where another brand has the identity or the number."""
    try:
        async with connection.transaction():
            await connection.execute(statement, *values)
    except (asyncpg.UniqueViolationError, asyncpg.InsufficientPrivilegeError):
        raise TmfError(
            409,
            "another brand has this number or subscriber identity already",
            "give the brands ranges of numbers and identities that do not overlap",
        ) from None


async def put_subscriber(
    context: Context, connection: Any, plan: Plan, imsi: str, number: str, sealed: bytes, *, barred: bool = False
) -> None:
    """Write a subscriber to the directory. Raises TmfError."""
    document = subscriber_document(context.brand, plan) | {"subscriber_status": int(barred)}
    await provision(
        connection, "SELECT directory.put_subscriber($1, $2, $3, $4)", imsi, [number], sealed, json.dumps(document)
    )


def account(context: Context, plan: Plan, imsi: str, number: str, status: str = "active") -> dict[str, Any]:
    """The OCS's account of a line."""
    return {
        "subscriberIds": [f"imsi-{imsi}", f"msisdn-{number}"],
        "currency": context.brand.effective_currency,
        "timezone": context.brand.effective_timezone,
        "status": status,
        "tariff": plan.id,
    }


async def fulfil(context: Context, connection: Any, order: uuid.UUID, party: uuid.UUID, plan: Plan) -> None:
    """Make everything of an order; the caller's savepoint takes it back on TmfError."""
    zone = renewals.zone_of(context)
    anchor = periods.anchor_of(dt.datetime.now(dt.UTC), plan.period, zone)
    product: uuid.UUID = await connection.fetchval(
        """INSERT INTO product (order_id, party, plan, status, anchor, renews_at, period_length)
           VALUES ($1, $2, $3, 'created', $4, $5, $6) RETURNING id""",
        order,
        party,
        plan.id,
        anchor,
        periods.begin(anchor, plan.period, zone, 1),
        plan.period,
    )
    sim = await sims.make_sim(context, connection, product)
    number = await sims.take_number(context, connection, product)
    await connection.execute("UPDATE product SET msisdn = $2, iccid = $3 WHERE id = $1", product, number, sim["iccid"])
    await put_subscriber(context, connection, plan, sim["imsi"], number, sim["sealed"])
    path = f"/ocs/v1/accounts/{product}"
    await outbox.put(connection, product, "PUT", path, account(context, plan, sim["imsi"], number))
    effect = {"complete": str(order), "activate": True}
    body = renewals.grant(context, product, plan, anchor, 0, first=True)
    if body is not None:
        await outbox.put(connection, product, "POST", f"{path}/grants", body, effect)
    else:
        await outbox.put(connection, product, "PATCH", path, {"status": "active"}, effect)
