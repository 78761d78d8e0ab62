"""Renewals: at the end of a line's period the next one's allowances, once, whoever of us does it and whenever.

A line is due when its `renews_at` has come. The row, the OCS's call and the event change in one transaction; the call's
request identifier is that of the period's first day, so the OCS grants a period once however often it is asked. Periods
that nobody was there for are not made up for: the line gets the one that it is in. Where the plan's period has another
length by then, the line is counted anew from the end of what it has.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from typing import Any
from zoneinfo import ZoneInfo

from mvnobox.bss import catalog, events, outbox, periods
from mvnobox.bss.context import Context
from mvnobox.service.working import work_forever
from mvnobox.spec import Plan

log = logging.getLogger(__name__)
IDLE_SECONDS = 1.0
# Lines a transaction: a midnight's renewals are many short ones.
AT_ONCE = 200
_DUE = """SELECT * FROM product WHERE status = 'active' AND (renews_at IS NULL OR renews_at <= $1)
          ORDER BY renews_at NULLS FIRST LIMIT $2 FOR UPDATE SKIP LOCKED"""


def zone_of(context: Context) -> ZoneInfo:
    """The zone whose midnights count."""
    return ZoneInfo(context.brand.effective_timezone)


def renews_by_itself(plan: Plan, wish: bool | None) -> bool:
    """As the line was told to; else billed plans do, and prepaid ones wait until they are paid."""
    return plan.payment == "postpaid" if wish is None else wish


def grant(
    context: Context, product: uuid.UUID, plan: Plan, anchor: dt.date, index: int, *, first: bool = False
) -> dict[str, Any] | None:
    """The OCS's grant of a period, `first` the one that a line begins with, its credit line in it; None where there is
    nothing to grant."""
    zone = zone_of(context)
    since, until = (periods.begin(anchor, plan.period, zone, n) for n in (index, index + 1))
    granted = catalog.plan_buckets(context.brand, plan, until)
    if first:
        granted += catalog.credit_line(context.brand, plan)
    if not granted:
        return None
    # Days are a line's own, whatever its periods' length and number.
    name = "plan" if first else f"plan:{since.astimezone(zone).date().isoformat()}"
    body: dict[str, Any] = {"requestId": str(uuid.uuid5(product, name)), "buckets": granted}
    if not first and plan.rollover is not None and plan.fair_use is None and isinstance(plan.allowances.data, int):
        last = periods.begin(anchor, plan.period, zone, index + plan.rollover.periods)
        body["rollover"] = {
            "unit": "octets",
            "source": f"plan:{plan.id}",
            "endedAt": since.isoformat(),
            "limit": plan.rollover.limit,
            "validUntil": last.isoformat(),
            # Before the new allowance: what is older goes first.
            "priority": 5,
        }
    return body


async def renew_forever(context: Context) -> None:
    """Renew what is due until cancelled."""
    await work_forever(
        lambda: renew(context, dt.datetime.now(dt.UTC)), name="renewals", log=log, idle_seconds=IDLE_SECONDS
    )


async def renew(context: Context, now: dt.datetime) -> int:
    """Renew some of the lines that are due; how many were looked at."""
    async with context.pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(_DUE, now, AT_ONCE)
        for row in rows:
            await _one(context, connection, row, now)
    return len(rows)


async def _one(context: Context, connection: Any, row: Any, now: dt.datetime) -> None:
    try:
        plan = context.brand.plan(row["plan"])
    except KeyError:
        log.error("a line's plan is not in the brand's file any more", extra={"plan": row["plan"]})
        await _later(connection, row["id"], now + dt.timedelta(days=1))
        return
    zone = zone_of(context)
    # Lines that are older than renewals begin to count with their start.
    kept = row["anchor"] or periods.anchor_of(row["started_at"], plan.period, zone)
    anchor, before = kept, row["period"]
    index = periods.index_at(anchor, plan.period, zone, now)
    if _other_length(row, plan, index):
        anchor, before = periods.anchor_after(row["renews_at"], plan.period, zone), -1
        index = periods.index_at(anchor, plan.period, zone, now)
    told = {"msisdn": row["msisdn"], "plan": plan.id}
    until = periods.begin(anchor, plan.period, zone, index + 1)
    if index <= before:
        # Nothing is due yet: a clock that went back, or a line that begins to count.
        await _set(connection, row["id"], plan, anchor, before, until)
        return
    if not renews_by_itself(plan, row["auto_renew"]):
        await connection.execute(
            "UPDATE product SET anchor = $2, renews_at = 'infinity' WHERE id = $1", row["id"], kept
        )
        await events.put(connection, "subscription.lapsed", row["id"], told)
        return
    await _set(connection, row["id"], plan, anchor, index, until)
    body = grant(context, row["id"], plan, anchor, index)
    if body is not None:
        await outbox.put(connection, row["id"], "POST", f"/ocs/v1/accounts/{row['id']}/grants", body)
    told |= {
        "period": index,
        "from": periods.begin(anchor, plan.period, zone, index).isoformat(),
        "until": until.isoformat(),
        "price": str(plan.price),
        "currency": context.brand.effective_currency,
        "periodsMissed": index - before - 1,
    }
    await events.put(connection, "subscription.renewed", row["id"], told)


def _other_length(row: Any, plan: Plan, index: int) -> bool:
    """Whether the plan's period has another length than the line has been counted in."""
    if row["renews_at"] is None:
        return False
    if row["period_length"] is None:
        # A line of before: shorter periods than now are seen by their number.
        return bool(index < row["period"])
    return bool(row["period_length"] != plan.period)


async def _set(connection: Any, product: uuid.UUID, plan: Plan, anchor: dt.date, period: int, at: dt.datetime) -> None:
    await connection.execute(
        "UPDATE product SET anchor = $2, period = $3, renews_at = $4, period_length = $5 WHERE id = $1",
        product, anchor, period, at, plan.period,
    )  # fmt: skip


async def _later(connection: Any, product: uuid.UUID, at: dt.datetime) -> None:
    await connection.execute("UPDATE product SET renews_at = $2 WHERE id = $1", product, at)


async def wish(connection: Any, product: uuid.UUID, auto_renew: bool) -> None:
    """Whether a line renews by itself from now on; one that has lapsed renews at once where it is to."""
    await connection.execute(
        """UPDATE product SET auto_renew = $2,
               renews_at = CASE WHEN $2 AND renews_at = 'infinity' THEN now() ELSE renews_at END WHERE id = $1""",
        product,
        auto_renew,
    )
