"""The ledger's functions against a model of a few lines, by any sequence of requests (Hypothesis state machine)."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mvnobox.charging.batches import Batches, make_pipeline, replies
from mvnobox.charging.ledger import Call, Ledger, Reply, Units, create_key, differences, make_pool, new_ref
from mvnobox.charging.settings import OcsSettings

STAMP = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class Session:
    """The model's session: what it holds, the newest number of each group, answers by number. `ended`: the groups that
    hold it in buckets whose validity has ended."""

    number: int
    ref: uuid.UUID
    held: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    newest: dict[int, int] = field(default_factory=dict)
    waits: dict[int, bool] = field(default_factory=dict)
    answers: dict[int, str | None] = field(default_factory=dict)
    next_number: int = 1
    released: bool = False
    dead: bool = False


class LedgerMachine(RuleBasedStateMachine):
    """One account, octets in one pool; buckets only matter in sum, and so they end all at once. Two replicas (pools) take
    turns, one of which charges as single requests do, the other as sets of requests do. `ended`: what nobody holds in
    buckets that have ended; the running replicas' sweepers, too, book it as lapsed."""

    loop: asyncio.AbstractEventLoop
    ledgers: list[Ledger]
    batches: Batches
    connection: asyncpg.Connection
    dsn: str

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.brand = f"m{uuid.uuid4().hex[:10]}"
        self.imsi = f"imsi-{uuid.uuid4().int % 10**15:015}"
        self.free = self.granted = self.used = self.overrun = self.made = self.turn = self.ended = 0
        self.all: list[Session] = []
        self.active = True
        self.aid = self.do(
            self.connection.fetchval(
                """WITH a AS (INSERT INTO account (brand, account_id, currency, timezone, status)
                              VALUES ($1, 'm', 'EUR', 'UTC', 'active') RETURNING aid)
                   INSERT INTO subscriber (subscriber_id, aid) SELECT $2, aid FROM a RETURNING aid""",
                self.brand,
                self.imsi,
            )
        )

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def together(self, calls: list[Call]) -> list[Reply]:
        async def charge() -> list[Reply]:
            return replies(await self.batches.together(calls))

        return self.do(charge())  # type: ignore[no-any-return]

    def charge(self, call: Call) -> Reply:
        self.turn += 1
        if self.turn % 2:
            return self.together([call])[0]
        return self.do(self.ledgers[0].charge(call))  # type: ignore[no-any-return]

    def call(self, session: Session, operation: Any, sequence: int, units: list[Units]) -> Call:
        if operation != "create":
            return Call(operation, self.brand, sequence, units, None, session.ref)
        key = create_key(self.brand, session.number)
        return Call(
            "create", self.brand, sequence, units, "http://no-such-host.invalid/", new_ref(), self.imsi, key, STAMP
        )

    # The model ------------------------------------------------------------------------------------------------------

    def expect(self, session: Session, sequence: int, units: list[Units]) -> list[tuple[int, str, int | None]]:
        """Debit, give back, hold again, group by group; what the answer has to say."""
        told: list[tuple[int, str, int | None]] = []
        for one in units:
            late = sequence < session.newest.get(one.rating, sequence)
            mine = session.held.get(one.rating, 0)
            first, second = (self.free, mine) if late else (mine, self.free)
            rest = one.used
            take_first = min(rest, first)
            take_second = min(rest - take_first, second)
            from_free, from_held = (take_first, take_second) if late else (take_second, take_first)
            self.free -= from_free
            mine -= from_held
            self.used += from_free + from_held
            self.overrun += rest - from_free - from_held
            if late:
                session.held[one.rating] = mine
                told.append((one.rating, "SUCCESS", None))
                continue
            session.held[one.rating] = mine
            self.give_back(session, one.rating)
            session.newest[one.rating] = sequence
            if one.wanted is None:
                told.append((one.rating, "SUCCESS", None))
            elif session.released:
                told.append((one.rating, "END_USER_SERVICE_DENIED", None))
            elif not self.active:
                told.append((one.rating, "END_USER_SERVICE_DENIED", None))
                session.waits[one.rating] = True
            else:
                got = min(one.wanted, self.free)
                self.free -= got
                session.held[one.rating] = got
                session.waits[one.rating] = got == 0
                told.append((one.rating, "SUCCESS", got) if got else (one.rating, "QUOTA_LIMIT_REACHED", None))
        return told

    def give_back(self, session: Session, rating: int) -> None:
        amount = session.held.pop(rating, 0)
        if rating in session.ended:
            self.ended += amount
        else:
            self.free += amount
        session.ended.discard(rating)

    def compare(self, reply: Reply, told: list[tuple[int, str, int | None]]) -> None:
        assert reply.body is not None
        informations = json.loads(reply.body)["multipleUnitInformation"]
        found = [(i["ratingGroup"], i["resultCode"], i.get("grantedUnit", {}).get("totalVolume")) for i in informations]
        assert found == told

    # What may happen ------------------------------------------------------------------------------------------------

    units = st.lists(
        st.builds(
            lambda rating, used, wanted: Units(rating, "octets", used, wanted),
            st.integers(1, 2),
            st.integers(0, 60),
            st.one_of(st.none(), st.integers(1, 50)),
        ),
        max_size=2,
        unique_by=lambda unit: unit.rating,
    )

    @rule(amounts=st.lists(st.integers(1, 200), min_size=1, max_size=3), priority=st.integers(0, 3))
    def grant(self, amounts: list[int], priority: int) -> None:
        buckets = [
            {"unit": "octets", "amount": amount, "validUntil": None, "priority": priority, "source": "plan:m"}
            for amount in amounts
        ]
        query, identity = "SELECT grant_buckets($1, 'm', $2, 'd', $3)", uuid.uuid4()
        for _ in range(2):
            self.do(self.connection.fetchval(query, self.brand, identity, json.dumps(buckets)))
        self.free += sum(amounts)
        self.granted += sum(amounts)

    @rule(target=sessions, units=units)
    def create(self, units: list[Units]) -> Any:
        self.made += 1
        session = Session(self.made, uuid.uuid4())
        reply = self.charge(self.call(session, "create", 0, units))
        assert reply.outcome == "done" and reply.ref is not None
        session.ref = reply.ref
        self.compare(reply, self.expect(session, 0, units))
        session.answers[0] = reply.body
        self.all.append(session)
        return session

    @rule(session=sessions, units=units, skip=st.integers(0, 2))
    def update(self, session: Session, units: list[Units], skip: int) -> None:
        sequence = session.next_number + skip
        session.next_number = sequence + 1
        self._further(session, sequence, units)

    @rule(session=sessions, units=units, number=st.integers(1, 12))
    def update_out_of_order(self, session: Session, units: list[Units], number: int) -> None:
        if number not in session.answers:
            session.next_number = max(session.next_number, number + 1)
            self._further(session, number, units)

    def _further(self, session: Session, sequence: int, units: list[Units]) -> None:
        session.dead = False
        reply = self.charge(self.call(session, "update", sequence, units))
        assert reply.outcome in ("done", "late")
        self.compare(reply, self.expect(session, sequence, units))
        session.answers[sequence] = reply.body

    @rule(session=sessions, units=units)
    def release(self, session: Session, units: list[Units]) -> None:
        sequence = session.next_number
        session.next_number += 1
        units = [Units(one.rating, one.unit, one.used, None) for one in units]
        reply = self.charge(self.call(session, "release", sequence, units))
        assert (reply.outcome, reply.body) == ("done", "")
        self.expect(session, sequence, units)
        self.end(session)
        session.waits = {}
        session.released = True
        session.answers[sequence] = ""

    def end(self, session: Session) -> None:
        for rating in list(session.held):
            self.give_back(session, rating)

    @rule(wishes=st.lists(st.tuples(sessions, units), min_size=2, max_size=6))
    def updates_together(self, wishes: list[tuple[Session, list[Units]]]) -> None:
        """A set of requests of one account, some of one session: charged as if they had come one after the other."""
        calls = []
        for session, units in wishes:
            calls.append(self.call(session, "update", session.next_number, units))
            session.next_number += 1
            session.dead = False
        answers = self.together(calls)
        for (session, units), call, reply in zip(wishes, calls, answers, strict=True):
            assert reply.outcome in ("done", "late")
            self.compare(reply, self.expect(session, call.sequence, units))
            session.answers[call.sequence] = reply.body

    @rule(count=st.integers(2, 5), units=units)
    def creates_and_twins_together(self, count: int, units: list[Units]) -> None:
        """Copies of a first request in one set are one request."""
        self.made += 1
        session = Session(self.made, uuid.uuid4())
        answers = self.together([self.call(session, "create", 0, units) for _ in range(count)])
        assert [reply.outcome for reply in answers] == ["done"] + ["repeated"] * (count - 1)
        assert len({(reply.ref, reply.body) for reply in answers}) == 1
        session.ref = answers[0].ref
        self.compare(answers[0], self.expect(session, 0, units))
        session.answers[0] = answers[0].body
        self.all.append(session)

    @rule()
    def buckets_end(self) -> None:
        """What was promised is still paid from them, what is free is not to be had any more."""
        past = "UPDATE bucket SET valid_until = now() - interval '1 s' WHERE aid = $1 AND NOT spent"
        self.do(self.connection.execute(past, self.aid))
        self.ended, self.free = self.ended + self.free, 0
        for session in self.all:
            session.ended |= {rating for rating, amount in session.held.items() if amount}

    @rule()
    def lapse(self) -> None:
        while self.do(self.connection.fetchval("SELECT lapse_ended()")):
            pass
        left = """SELECT coalesce(sum(granted - used - held - lapsed), 0) FROM bucket
                  WHERE aid = $1 AND valid_until IS NOT NULL"""
        assert self.do(self.connection.fetchval(left, self.aid)) == 0

    @rule(session=sessions, units=units, data=st.data())
    def repeat(self, session: Session, units: list[Units], data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(session.answers)))
        first = session.answers[sequence]
        operation = "create" if sequence == 0 else "release" if first == "" else "update"
        reply = self.charge(self.call(session, operation, sequence, units))
        assert (reply.outcome, reply.body, reply.ref) == ("repeated", first, session.ref)

    @rule(session=sessions)
    def other_operation(self, session: Session) -> None:
        sequence = max(session.answers)
        operation = "release" if session.answers[sequence] != "" else "update"
        assert self.charge(self.call(session, operation, sequence, [])).outcome == "mismatch"

    @rule(session=sessions)
    def expire(self, session: Session) -> None:
        if session.released or session.dead:
            return
        past = "UPDATE session SET check_at = '2000-01-01', expires_at = '2000-01-01' WHERE ref = $1"
        self.do(self.connection.execute(past, session.ref))
        while self.do(self.connection.fetchval("SELECT close_expired()")):
            pass
        self.end(session)
        session.dead = True

    @rule(active=st.booleans())
    def status(self, active: bool) -> None:
        self.active = active
        self.do(self.connection.execute("SELECT set_status($1, $2)", self.aid, "active" if active else "suspended"))

    @rule()
    def unknown(self) -> None:
        reply = self.charge(Call("update", self.brand, 1, [Units(1, "octets", 5, 5)], None, new_ref()))
        assert reply.outcome == "unknown"

    # What always holds ----------------------------------------------------------------------------------------------

    @invariant()
    def the_sums_are_the_models(self) -> None:
        row = self.do(
            self.connection.fetchrow(
                """SELECT coalesce(sum(granted), 0)::bigint, coalesce(sum(used), 0)::bigint,
                          coalesce(sum(held), 0)::bigint,
                          coalesce(sum(granted - used - held - lapsed) FILTER (WHERE valid_until IS NULL), 0)::bigint,
                          coalesce(sum(granted - used - held) FILTER (WHERE valid_until < now()), 0)::bigint,
                          (SELECT coalesce(sum(amount), 0)::bigint FROM entry WHERE aid = $1 AND debit = 'overrun')
                   FROM bucket WHERE aid = $1""",
                self.aid,
            )
        )
        held = sum(sum(session.held.values()) for session in self.all)
        assert tuple(row) == (self.granted, self.used, held, self.free, self.ended, self.overrun)
        assert self.granted == self.used + held + self.free + self.ended

    @invariant()
    def the_starved_are_marked(self) -> None:
        rows = self.do(self.connection.fetch("SELECT ref FROM session WHERE aid = $1 AND starved", self.aid))
        waiting = {session.ref for session in self.all if not session.released and any(session.waits.values())}
        assert {row["ref"] for row in rows} == waiting

    @invariant()
    def nobody_waits_unheard_while_there_is_credit(self) -> None:
        if self.free > 0 and self.active:
            unheard = self.do(
                self.connection.fetchval(
                    """SELECT count(*) FROM session s WHERE aid = $1 AND starved AND told_at IS NULL
                       AND NOT EXISTS (SELECT FROM outbox o WHERE o.ref = s.ref AND done_at IS NULL)""",
                    self.aid,
                )
            )
            assert unheard == 0

    def teardown(self) -> None:
        assert self.do(differences(self.dsn)) == []


@pytest.mark.slow
def test_the_ledger_is_the_model(shared: Any) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        async def prepare() -> None:
            LedgerMachine.connection = await asyncpg.connect(shared.dsn)
            pools = [await make_pool(shared.dsn, 1) for _ in range(2)]
            LedgerMachine.ledgers = [Ledger(pool, OcsSettings()) for pool in pools]
            LedgerMachine.batches = Batches(make_pipeline(shared.dsn), LedgerMachine.ledgers[1], OcsSettings())

        loop.run_until_complete(prepare())
        LedgerMachine.loop, LedgerMachine.dsn = loop, shared.dsn
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            LedgerMachine,
            settings=settings(
                max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        LedgerMachine.batches._pipeline.close()
        for ledger in LedgerMachine.ledgers:
            ledger._pool.terminate()
        loop.run_until_complete(LedgerMachine.connection.close())
