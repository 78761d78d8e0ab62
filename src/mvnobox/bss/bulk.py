"""Many lines in one go, for a brand's launch: made in chunks of one transaction each, known by the batch's id.

A batch that was interrupted goes on where it stopped; a finished one only tells again what it made.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

from mvnobox.bss import fulfilment, periods, renewals, sims
from mvnobox.bss.context import Context, TmfError
from mvnobox.spec import Plan

BASE = "/subscriber-provisioning/v1/batch"
CHUNK = 500
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


async def begin(context: Context, batch: str, plan: str, count: int, *, identity_verified: bool) -> None:
    """Register a batch; the same again changes nothing. Raises TmfError."""
    if not _ID.fullmatch(batch):
        raise TmfError(400, "a batch's id is 1 to 60 letters, digits, points, hyphens and underscores")
    if plan not in {one.id for one in context.brand.plans}:
        known = ", ".join(one.id for one in context.brand.plans)
        raise TmfError(400, f"there is no plan {plan[:60]!r}", f"take one of {known}")
    if context.brand.pack.identity.required_before_activation and not identity_verified:
        raise TmfError(
            409,
            f"in {context.brand.pack.name} a customer's identity is verified before a line is activated",
            "say that every line's holder is known and verified: identityVerified, or --identity-verified",
        )
    row = await context.pool.fetchrow("SELECT plan, wanted FROM batch WHERE id = $1", batch)
    if row is None:
        await _enough(context, count)
        await context.pool.execute(
            "INSERT INTO batch (id, plan, wanted) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", batch, plan, count
        )
        row = await context.pool.fetchrow("SELECT plan, wanted FROM batch WHERE id = $1", batch)
    assert row is not None  # batches are never deleted
    if (row["plan"], row["wanted"]) != (plan, count):
        raise TmfError(
            409,
            f"this batch is known with {row['wanted']} lines of {row['plan']!r}",
            "take another id for another batch",
        )


async def _enough(context: Context, count: int) -> None:
    msins, numbers = context.brand.msin_range, context.brand.number_range
    ranges = {
        sims.IDENTITIES: (int(msins.first), int(msins.last)),
        sims.NUMBERS: (int(numbers.first), int(numbers.last)),
    }
    for name, (first, last) in ranges.items():
        used = await context.pool.fetchval("SELECT value FROM counter WHERE name = $1", name)
        left = last - max(first - 1, used or 0)
        if left < count:
            raise TmfError(
                409,
                f"the brand's range of {name} has {left} left, {count} are wanted",
                "extend the range in the brand's file",
            )


async def read(context: Context, batch: str) -> dict[str, Any]:
    """How far a batch is. Raises TmfError."""
    row = await context.pool.fetchrow("SELECT * FROM batch WHERE id = $1", batch)
    if row is None:
        raise TmfError(404, "there is no such batch")
    owed = await context.pool.fetchval("SELECT count(*) FROM product WHERE batch = $1 AND status = 'created'", batch)
    return {
        "id": batch,
        "href": f"{BASE}/{batch}",
        "@type": "SubscriberBatch",
        "plan": row["plan"],
        "count": row["wanted"],
        "made": row["made"],
        "waitingForCharging": owed,
        "startedAt": row["created_at"],
        "finishedAt": row["finished_at"],
    }


async def lines(context: Context, batch: str) -> AsyncIterator[dict[str, Any]]:
    """Every line of the batch in its order, {index, productId, msisdn, iccid, imsi, activationCode}, made where it is not yet.

    No keys: they are read one by one, and every reading is noted. Raises TmfError.
    """
    after, whole = 0, False
    # The next chunk's keys are made while the database works on this one's rows.
    ahead = asyncio.ensure_future(asyncio.to_thread(_keys, context, CHUNK))
    try:
        while True:
            rows = await context.pool.fetch(
                """SELECT p.batch_index AS index, p.id::text AS "productId", p.msisdn, p.iccid, s.imsi, s.matching_id
                   FROM product p JOIN sim s ON s.iccid = p.iccid
                   WHERE p.batch = $1 AND p.batch_index > $2 ORDER BY p.batch_index LIMIT $3""",
                batch,
                after,
                CHUNK,
            )
            for row in rows:
                made = dict(row)
                made["activationCode"] = sims.activation_code(context.brand, made.pop("matching_id"))
                yield made
                after = row["index"]
            if rows:
                continue
            if whole:
                return
            keys = await ahead
            ahead = asyncio.ensure_future(asyncio.to_thread(_keys, context, CHUNK))
            # Whoever else worked on the batch may have made lines that are not told yet.
            whole = not await _chunk(context, batch, keys)
    finally:
        ahead.cancel()


async def json_lines(context: Context, batch: str) -> AsyncIterator[str]:
    """`lines` as NDJSON; an error that comes after the first line is the last one."""
    try:
        part: list[str] = []
        async for line in lines(context, batch):
            part.append(json.dumps(line) + "\n")
            if len(part) == CHUNK:
                yield "".join(part)
                part = []
        yield "".join(part)
    except TmfError as error:
        yield "".join(part) + json.dumps({"error": error.body()}) + "\n"


def _keys(context: Context, count: int) -> list[sims.Keys]:
    return [sims.Keys.make(context) for _ in range(count)]


async def _chunk(context: Context, batch: str, keys: list[sims.Keys]) -> bool:
    """Make the next lines of a batch in one transaction; False where nothing is left to make. Raises TmfError."""
    brand = context.brand
    async with context.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow("SELECT * FROM batch WHERE id = $1 FOR UPDATE", batch)
        assert row is not None  # batches are never deleted
        count = min(len(keys), row["wanted"] - row["made"])
        if count == 0:
            return False
        msins, numbers = brand.msin_range, brand.number_range
        msin = await sims.next_of(connection, sims.IDENTITIES, int(msins.first), int(msins.last), count)
        number = await sims.next_of(connection, sims.NUMBERS, int(numbers.first), int(numbers.last), count)
        plan = brand.plan(row["plan"])
        made = [
            (uuid.uuid4(), *sims.identity_of(brand, msin + n), str(number + n), row["made"] + n + 1, key)
            for n, key in enumerate(keys[:count])
        ]
        await _write(context, connection, batch, plan, made)
        await connection.execute(
            """UPDATE batch SET made = made + $2, finished_at = CASE WHEN made + $2 = wanted THEN now() END
               WHERE id = $1""",
            batch,
            count,
        )
    return True


async def _write(context: Context, connection: Any, batch: str, plan: Plan, made: list[tuple[Any, ...]]) -> None:
    zone = renewals.zone_of(context)
    anchor = periods.anchor_of(dt.datetime.now(dt.UTC), plan.period, zone)
    end = periods.begin(anchor, plan.period, zone, 1)

    async def copy(table: str, columns: str, records: list[tuple[Any, ...]]) -> None:
        await connection.copy_records_to_table(table, records=records, columns=columns.split())

    await copy(
        "product",
        "id plan status msisdn iccid batch batch_index anchor renews_at period_length",
        [
            (product, plan.id, "created", number, iccid, batch, index, anchor, end, plan.period)
            for product, iccid, _, number, index, _ in made
        ],
    )
    await copy(
        "sim",
        "iccid imsi keys sealed matching_id product state",
        [
            (
                iccid,
                imsi,
                sims.encrypt_keys(context.sim_key, iccid, key.plain),
                key.sealed,
                key.matching_id,
                product,
                "assigned",
            )
            for product, iccid, imsi, _, _, key in made
        ],
    )
    await copy("number", "msisdn product", [(number, product) for product, _, _, number, _, _ in made])
    document = json.dumps(fulfilment.subscriber_document(context.brand, plan))
    await fulfilment.provision(
        connection,
        """SELECT directory.put_subscriber(imsi, ARRAY[number], sealed, $4)
           FROM unnest($1::text[], $2::text[], $3::bytea[]) t(imsi, number, sealed)""",
        [imsi for _, _, imsi, _, _, _ in made],
        [number for _, _, _, number, _, _ in made],
        [key.sealed for _, _, _, _, _, key in made],
        document,
    )
    await copy(
        "outbox",
        "product method path body effect bulk",
        [
            call
            for product, _, imsi, number, _, _ in made
            for call in _calls(context, plan, product, imsi, number, anchor)
        ],
    )


def _calls(
    context: Context, plan: Plan, product: uuid.UUID, imsi: str, number: str, anchor: dt.date
) -> list[tuple[Any, ...]]:
    path = f"/ocs/v1/accounts/{product}"
    account = json.dumps(fulfilment.account(context, plan, imsi, number))
    grant = renewals.grant(context, product, plan, anchor, 0, first=True)
    last = json.dumps({"activate": True})
    if grant is None:
        return [(product, "PUT", path, account, last, True)]
    return [
        (product, "PUT", path, account, "{}", True),
        (product, "POST", f"{path}/grants", json.dumps(grant), last, True),
    ]
