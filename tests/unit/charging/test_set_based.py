"""Charging set by set against charging one by one: the same requests in two worlds leave the same replies and rows."""

from __future__ import annotations

import datetime as dt
import random
import re
import uuid
from typing import Any

import asyncpg

from mvnobox.charging.batches import Batches, make_pipeline, replies
from mvnobox.charging.ledger import Call, Ledger, Reply, Units, create_key, differences, make_pool
from mvnobox.charging.settings import OcsSettings

ACCOUNTS, STEPS = 6, 120
STAMP = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
UNITS = {1: "octets", 2: "seconds", 3: "octets", 4: None}


class World:
    """A brand of its own with the same accounts, buckets and sessions as every other world."""

    def __init__(self, name: str, connection: asyncpg.Connection) -> None:
        self.brand, self._connection = f"{name}{uuid.uuid4().hex[:8]}", connection

    def imsi(self, account: int) -> str:
        return f"{self.brand}-{account}"

    def ref(self, session: int) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.brand} {session}")

    async def fill(self, accounts: int, order: random.Random) -> None:
        for number in range(accounts):
            aid = await self._connection.fetchval(
                """INSERT INTO account (brand, account_id, currency, timezone, status)
                   VALUES ($1, $2, 'EUR', 'UTC', 'active') RETURNING aid""",
                self.brand,
                f"a{number}",
            )
            await self._connection.execute("INSERT INTO subscriber VALUES ($1, $2)", self.imsi(number), aid)
            await self.grant(number, order)

    async def grant(self, account: int, order: random.Random) -> None:
        for unit in ("octets", "seconds"):
            for _ in range(order.randrange(1, 4)):
                # One in four has ended already.
                end = dt.datetime(2020 if order.random() < 0.25 else 2200, 1, 1, tzinfo=dt.UTC)
                amount, priority = order.randrange(1, 900), order.randrange(3)
                pace = order.choice([None, None, "dl=1;ul=2", "dl=3;ul=4"])
                await self.add(account, unit, amount, priority, order.choice([None, end]), pace)

    async def add(
        self, account: int, unit: str, amount: int, priority: int, end: dt.datetime | None, pace: str | None = None
    ) -> None:
        await self._connection.execute(
            """WITH b AS (INSERT INTO bucket (aid, unit, granted, priority, valid_until, source, throttle)
                          SELECT aid, $3, $4, $5, $6, 'plan:x', $7 FROM account WHERE brand = $1 AND account_id = $2
                          RETURNING *)
               INSERT INTO entry (aid, bucket, unit, debit, credit, amount)
               SELECT aid, id, unit, 'source', 'available', granted FROM b""",
            self.brand, f"a{account}", unit, amount, priority, end, pace,
        )  # fmt: skip

    async def do(self, what: str, account: int, session: int) -> None:
        """What happens to a ledger besides charging."""
        if what == "status":
            await self._connection.execute(
                """SELECT set_status(aid, CASE status WHEN 'active' THEN 'suspended' ELSE 'active' END)
                   FROM account WHERE brand = $1 AND account_id = $2""",
                self.brand,
                f"a{account}",
            )
        elif what == "expire":
            await self._connection.execute(
                """UPDATE session SET check_at = '2000-01-01', expires_at = '2000-01-01'
                   WHERE ref = $1 AND ended_at IS NULL""",
                self.ref(session),
            )
            while await self._connection.fetchval("SELECT close_expired()"):
                pass

    def call(self, said: tuple[Any, ...]) -> Call:
        operation, account, session, sequence, units, again, notify = said
        new = operation == "create"
        return Call(
            operation, self.brand, sequence, units, notify,
            self.ref(session) if not again or not new else uuid.uuid4(), self.imsi(account),
            create_key(self.brand, session) if new else None, STAMP if new else None, again,
        )  # fmt: skip

    async def state(self) -> list[list[Any]]:
        """Every row of the brand, without what differs between worlds and runs."""
        names = {str(self.ref(number)): number for number in range(1000)}
        found = []
        for query in (
            """SELECT account_id, unit, granted, used, held, lapsed, spent FROM bucket JOIN account USING (aid)
               WHERE brand = $1 ORDER BY account_id, id""",
            """SELECT account_id, (SELECT count(*) FROM bucket k WHERE k.aid = a.aid AND k.id < e.bucket), e.ref,
                      sequence, rating, unit, debit, credit, amount FROM entry e JOIN account a USING (aid)
               WHERE brand = $1 ORDER BY account_id, e.id""",
            """SELECT account_id, ref, subscriber_id = $1 || '-' || substr(account_id, 2), created_stamp, notify_uri,
                      last_sequence, starved, used::text, denied, ended_by, ended_at IS NULL, ratings::text,
                      told_at IS NULL, round(extract(epoch FROM expires_at - now()) / 2000),
                      round(extract(epoch FROM check_at - now()) / 2000)
               FROM session s JOIN account a USING (aid) WHERE a.brand = $1 AND s.brand = $1 ORDER BY account_id, ref""",
            """SELECT account_id, r.ref, rating, amount,
                      (SELECT count(*) FROM bucket k WHERE k.aid = a.aid AND k.id < r.bucket)
               FROM reservation r JOIN session s USING (ref) JOIN account a USING (aid) WHERE a.brand = $1
               ORDER BY account_id, r.ref, rating, r.bucket""",
            """SELECT x.ref, x.sequence, x.operation, regexp_replace(x.body, '20[0-9T:.-]*Z', '') FROM answer x
               JOIN session s USING (ref) WHERE s.brand = $1 ORDER BY x.ref, x.sequence""",
            """SELECT o.ref, count(*), min(o.body::text) FROM outbox o JOIN session s USING (ref) WHERE s.brand = $1
               GROUP BY o.ref, o.body ORDER BY o.ref""",
        ):
            rows = await self._connection.fetch(query, self.brand)
            found.append(
                sorted(
                    (tuple(names.get(str(value), value) if isinstance(value, uuid.UUID) else value for value in row)
                     for row in rows),
                    key=str,
                )
            )  # fmt: skip
        return found


def _said(order: random.Random, made: list[tuple[int, int]], next_numbers: list[int]) -> tuple[Any, ...]:
    """Any request, mostly the usual next one of a session."""
    groups = [1] if order.random() < 0.75 else order.sample(sorted(UNITS), order.randrange(0, 4))
    units = [
        Units(group, UNITS[group], order.choice([0, 0, order.randrange(1, 90), 300]),
              order.choice([order.randrange(1, 120), 100, 100, None if order.random() < 0.5 else 700]))
        for group in groups
    ]  # fmt: skip
    notify = order.choice([None, "http://127.0.0.1:1/"])
    if not made or order.random() < 0.25:
        made.append((order.randrange(ACCOUNTS), len(made)))
        next_numbers.append(1)
        return ("create", *made[-1], 0, units, False, notify)
    session = order.randrange(max(0, len(made) - 8), len(made))
    account = made[session][0]
    dice = order.random()
    if dice < 0.08:
        return ("create", account, session, 0, units, True, notify)
    operation = "release" if order.random() < 0.2 else "update"
    if operation == "release":
        units = [Units(one.rating, one.unit, one.used, None) for one in units]
    if dice < 0.25:
        sequence = order.randrange(0, next_numbers[session] + 2)
        next_numbers[session] = max(next_numbers[session], sequence + 1)
    else:
        sequence = next_numbers[session]
        next_numbers[session] += 1
    return (operation, account, session, sequence, units, False, notify)


def _told(reply: Reply) -> tuple[Any, ...]:
    body = reply.body and re.sub(r'"invocationTimeStamp":"[^"]*"', "", reply.body)
    return (reply.outcome, body, reply.overrun, reply.denied)


async def _walk(ocs: Any, connection: asyncpg.Connection, seed: int) -> set[str]:
    """One random history in both worlds; the outcomes that it met."""
    pool, pipeline = await make_pool(ocs.dsn, 1), make_pipeline(ocs.dsn)
    order = random.Random(seed)
    ledger = Ledger(pool, OcsSettings())
    batches = Batches(pipeline, ledger, OcsSettings())
    sets, singles = World("set", connection), World("one", connection)
    for world in (sets, singles):
        await world.fill(ACCOUNTS, random.Random(seed))
    made: list[tuple[int, int]] = []
    next_numbers: list[int] = []
    outcomes = set()
    for step in range(STEPS):
        said = [_said(order, made, next_numbers) for _ in range(order.choice([1, 2, 5, 12]))]
        together = replies(await batches.together([sets.call(one) for one in said]))
        apart = [await ledger.charge(singles.call(one)) for one in said]
        assert list(map(_told, together)) == list(map(_told, apart)), (seed, step, said)
        outcomes |= {reply.outcome for reply in apart}
        account, session, dice = order.randrange(ACCOUNTS), order.randrange(len(made)), order.random()
        what = "status" if dice < 0.05 else "expire" if dice < 0.15 else "grant" if dice < 0.3 else ""
        again = order.randrange(10**9)
        for world in (sets, singles):
            if what == "grant":
                await world.grant(account, random.Random(again))
            else:
                await world.do(what, account, session)
        if step % 20 == 19:
            assert await sets.state() == await singles.state(), (seed, step)
    assert await differences(ocs.dsn) == []
    pipeline.close()
    await pool.close()
    return outcomes


async def test_sets_and_single_requests_leave_the_same_ledger(ocs: Any) -> None:
    connection = await asyncpg.connect(ocs.dsn)
    outcomes = [await _walk(ocs, connection, seed) for seed in range(5)]
    assert set.union(*outcomes) == {"done", "late", "repeated", "mismatch"}
    await connection.close()


async def test_usual_requests_of_different_accounts_are_charged_as_a_set(ocs: Any) -> None:
    """What makes it quick: where nothing is out of the ordinary, the function for single requests is not needed."""
    connection = await asyncpg.connect(ocs.dsn)
    pool, pipeline = await make_pool(ocs.dsn, 1), make_pipeline(ocs.dsn)
    world = World("set", connection)
    await world.fill(4, random.Random(3))
    for number in range(4):
        await world.add(number, "octets", 10_000, -1, None)
    await connection.execute("DROP FUNCTION ocs.charge")
    batches = Batches(pipeline, Ledger(pool, OcsSettings()), OcsSettings())
    for operation, sequence, wanted in (("create", 0, 100), ("update", 1, 100), ("release", 2, None)):
        units = [Units(1, "octets", 30, wanted)]
        calls = [world.call((operation, number, number, sequence, units, False, None)) for number in range(4)]
        assert [reply.outcome for reply in replies(await batches.together(calls))] == ["done"] * 4
    pipeline.close()
    await pool.close()
    await connection.close()


async def test_usual_requests_of_one_account_are_charged_as_a_set(ocs: Any) -> None:
    """A family's balance: what comes together is one set, until the first bucket no longer suffices."""
    connection = await asyncpg.connect(ocs.dsn)
    pool, pipeline = await make_pool(ocs.dsn, 1), make_pipeline(ocs.dsn)
    world = World("set", connection)
    await world.fill(1, random.Random(3))
    await world.add(0, "octets", 1000, -1, None)
    batches = Batches(pipeline, Ledger(pool, OcsSettings()), OcsSettings())

    def calls(operation: str, sequence: int, used: int, wanted: int | None) -> list[Call]:
        units = [Units(1, "octets", used, wanted)]
        return [world.call((operation, 0, number, sequence, units, False, None)) for number in range(10)]

    await connection.execute("ALTER FUNCTION ocs.charge RENAME TO not_now")
    for one in (calls("create", 0, 0, 60), calls("update", 1, 50, 50)):
        assert [reply.outcome for reply in replies(await batches.together(one))] == ["done"] * 10
    await connection.execute("ALTER FUNCTION ocs.not_now RENAME TO charge")
    # Half of it is used, half is held; who wants more has to look into the next bucket, and those after it with it.
    assert tuple(await connection.fetchrow("SELECT used, held FROM bucket WHERE priority = -1")) == (500, 500)
    assert [reply.outcome for reply in replies(await batches.together(calls("update", 2, 40, 60)))] == ["done"] * 10
    assert await differences(ocs.dsn) == []
    pipeline.close()
    await pool.close()
    await connection.close()


async def test_twins_in_one_batch_are_one_request(ocs: Any) -> None:
    connection = await asyncpg.connect(ocs.dsn)
    pool, pipeline = await make_pool(ocs.dsn, 1), make_pipeline(ocs.dsn)
    ledger = Ledger(pool, OcsSettings())
    world = World("set", connection)
    await world.fill(1, random.Random(3))
    await world.add(0, "octets", 1000, -1, None)
    batches = Batches(pipeline, ledger, OcsSettings())
    for operation, sequence, used in (("create", 0, 0), ("update", 1, 30), ("release", 2, 10)):
        units = [Units(1, "octets", used, None if operation == "release" else 100)]
        # The twins of a create carry references of their own: the first one's stands.
        calls = [world.call((operation, 0, 1, sequence, units, n > 0, None)) for n in range(4)]
        answers = replies(await batches.together(calls))
        assert [reply.outcome for reply in answers] == ["done", "repeated", "repeated", "repeated"]
        assert {(reply.ref, reply.body) for reply in answers} == {(world.ref(1), answers[0].body)}
    assert await connection.fetchval("SELECT used FROM bucket WHERE priority = -1") == 40
    assert await differences(ocs.dsn) == []
    pipeline.close()
    await pool.close()
    await connection.close()
