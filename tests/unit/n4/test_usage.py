"""Usage reports count once, whatever their order; malformed PFCP is refused in one way only."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.n4.forwarding import Detour, Forwarding, NumberTaken, gate
from mvnobox.n4.rows import Pending, Session
from mvnobox.n4.rules import (
    CLOSED,
    OWN_URR,
    Limits,
    adapt,
    create_urr,
    limits,
    split_usage,
)
from mvnobox.n4.seen import Seen
from mvnobox.n4.store import Store
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, FORW, Ie, IeType, Message, PfcpError, Type
from mvnobox.service import database

from .replay import actions

DETOUR = Detour("127.0.0.1", 1)


@given(st.lists(st.integers(0, 120), max_size=300))
def test_every_report_is_taken_once_in_whatever_order(sequence: list[int]) -> None:
    seen = Seen({})
    # What crosses the database in between.
    taken = []
    for number in sequence:
        seen = Seen(json.loads(json.dumps(seen.numbers)))
        if seen.add(1, number):
            taken.append(number)
    assert len(taken) == len(set(taken))
    if len(set(sequence)) <= Seen.WINDOW:
        assert set(taken) == set(sequence)


@pytest.fixture
async def pool(pg_database: Any) -> AsyncIterator[asyncpg.Pool]:
    dsn = pg_database.dsn("ctf_alpha")
    await database.migrate(dsn, Path(database.__file__).parents[1] / "n4/migrations")
    made = await database.make_pool(dsn)
    yield made
    made.terminate()


@pytest.fixture
def store(pool: asyncpg.Pool) -> Store:
    return Store(pool)


async def session(store: Store, *, behind_gate: bool = False, ref: str | None = "x") -> int:
    """A session that the OCS and the UPF know; our SEID."""
    seid = await store.new_seid()
    made = Session(
        seid=seid, smf_seid=7, smf=("127.0.0.1", 8805), upf_seid=9, imsi="208930000000001", dnn="internet",
        own_urr=OWN_URR, open=True, limits=Limits(1000, 2000), nchf_ref=ref, nchf_sequence=0, octets=0, deleted=False,
        behind_gate=behind_gate,
    )  # fmt: skip
    await store.add(made)
    return seid


async def test_reports_that_overtake_each_other_are_all_owed(store: Store) -> None:
    seid = await session(store)
    for number in (0, 3, 1, 3, 2, 1):
        await store.take_usage(seid, [(1, number, (10, 4, 6))])
    total = 0
    while (pending := (await store.owing_session(seid))[1]) is not None:
        total += pending.used[0]
        await store.settled(pending)
    assert total == 40


async def test_usage_on_a_session_as_it_was_read_counts_once_whoever_else_has_it(
    pool: asyncpg.Pool, store: Store
) -> None:
    seid, other = await session(store), await session(store)
    read, beside = await store.session(seid), await store.session(other)
    # Three reports and a repetition on one reading, and another session's, at once.
    taken = await asyncio.gather(
        *(store.take_usage(seid, [(1, number, (10, 4, 6))], session=read) for number in (0, 1, 1, 2)),
        store.take_usage(other, [(1, 0, (7, 3, 4))], session=beside),
    )
    assert taken[-1] == Pending(other, 1, (7, 3, 4), False)
    assert sorted(one.sequence for one in taken[:-1] if one is not None) == [1, 2, 3]
    owed = await pool.fetch("SELECT seid, sum(used)::int AS used, count(*)::int AS requests FROM pending GROUP BY seid")
    assert sorted(map(tuple, owed)) == [(seid, 30, 3), (other, 7, 1)]
    # Another instance closes its gate: what the UPF dropped since is of no account, on an old reading as well.
    read = await store.session(seid)
    await store.update(seid, behind_gate=True)
    dropped = CLOSED.threshold + 1400
    assert await store.take_usage(seid, [(1, 3, (dropped, 0, dropped))], session=read) is None
    # And one that the OCS does not know any more is not charged at once.
    read = await store.session(other)
    await store.update(other, nchf_ref=None)
    assert await store.take_usage(other, [(1, 1, (7, 3, 4))], session=read) == Pending(other, 2, (7, 3, 4), False)


async def test_what_a_closed_gate_dropped_is_not_charged_but_what_passed_before_is(store: Store) -> None:
    seid = await session(store, behind_gate=True)

    async def owed(sequence: int, octets: int, *, release: bool = False) -> int | None:
        pending = await store.take_usage(seid, [(OWN_URR, sequence, (octets, 0, octets))], release=release)
        return None if pending is None else pending.used[0]

    assert await owed(0, 5_000_000) == 5_000_000
    assert await owed(1, CLOSED.threshold + 1400) is None
    assert await owed(1, CLOSED.threshold + 1400) is None
    assert await owed(3, 700, release=True) == 700
    # A report that was on its way for long.
    assert await owed(2, 5_000_000) == 5_000_000


async def test_use_is_kept_without_a_charging_session_but_not_of_a_gate_that_was_never_open(store: Store) -> None:
    closed = await session(store, behind_gate=True, ref=None)
    assert await store.take_usage(closed, [(OWN_URR, 0, (700, 0, 700))], release=True) is None
    assert (await store.owing_session(closed))[1] is None
    # The OCS has lost the charging session of this one.
    lost = await session(store, ref=None)
    for sequence, release in ((0, False), (1, True)):
        pending = await store.take_usage(lost, [(OWN_URR, sequence, (700, 0, 700))], release=release)
        assert pending is not None and (pending.used[0], pending.release) == (700, release)


def rules() -> list[Ie]:
    def pdr(identity: int, source: int, *more: Ie) -> Ie:
        pdi = codec.group(IeType.PDI, [codec.u8(IeType.SOURCE_INTERFACE, source)])
        return codec.group(IeType.CREATE_PDR, [codec.u16(IeType.PDR_ID, identity), pdi, *more])

    urr = codec.group(IeType.CREATE_URR, [codec.u32(IeType.URR_ID, 1), codec.volume_threshold(100 * 2**20)])
    far = codec.group(IeType.CREATE_FAR, [codec.u32(IeType.FAR_ID, 1), Ie(IeType.APPLY_ACTION, bytes([FORW, 0]))])
    unknown = Ie(0x8001, b"\x12\x34vendor")
    return [pdr(1, 1, codec.u32(IeType.URR_ID, 1)), pdr(2, 0), urr, far, unknown]


def test_every_flow_and_both_directions_count_on_one_rule_and_the_smfs_own_rules_stay() -> None:
    adapted = adapt(rules(), Forwarding(), own=OWN_URR, open_=True)
    assert adapted[2:] == rules()[2:]
    downlink, uplink = (
        [codec.number(ie, 4) for ie in pdr.children() if ie.type == IeType.URR_ID] for pdr in adapted[:2]
    )
    assert (downlink, uplink) == ([1, OWN_URR], [OWN_URR])
    urr = create_urr(OWN_URR, Limits(4000, 5000)).children()
    assert codec.parse_volume(codec.first(urr, IeType.VOLUME_THRESHOLD))[0] == 4000
    assert codec.parse_volume(codec.first(urr, IeType.VOLUME_QUOTA))[0] == 5000
    # A rule for the control plane's own traffic, and an update that leaves the rules alone, are not touched.
    control = codec.group(IeType.CREATE_PDR, [codec.group(IeType.PDI, [codec.u8(IeType.SOURCE_INTERFACE, 3)])])
    update = codec.group(IeType.UPDATE_PDR, [codec.u16(IeType.PDR_ID, 1), codec.u32(IeType.PRECEDENCE, 9)])
    assert adapt([control, update], Forwarding(), own=OWN_URR, open_=True) == [control, update]
    changed = codec.group(IeType.UPDATE_PDR, [codec.u16(IeType.PDR_ID, 1), codec.u32(IeType.URR_ID, 2)])
    assert codec.u32(IeType.URR_ID, OWN_URR) in adapt([changed], Forwarding(), own=OWN_URR, open_=True)[0].children()


def test_a_closed_gate_drops_and_an_open_one_gives_back_what_the_smf_wanted() -> None:
    adapted = adapt(rules(), Forwarding(), own=OWN_URR, open_=False)
    assert actions(adapted) == {1: bytes([DROP, 0])}
    # BUFF and all: a top-up must not forward to an idle UE.
    wanted = {1: bytes([codec.BUFF | codec.NOCP, 0]), 2: bytes([FORW])}
    assert actions(gate(Forwarding(wanted), open_=True)) == wanted
    assert actions(gate(Forwarding(wanted), open_=False)) == {1: bytes([DROP, 0]), 2: bytes([DROP])}


def test_an_smf_that_uses_the_ctfs_rule_number_is_refused() -> None:
    with pytest.raises(NumberTaken):
        taken = codec.group(IeType.CREATE_URR, [codec.u32(IeType.URR_ID, OWN_URR)])
        adapt([taken], Forwarding(), own=OWN_URR, open_=True)


@pytest.mark.parametrize(
    ("granted", "final", "expected"),
    [
        (20_000_000, False, Limits(5_000_000, 20_000_000)),
        (5_000_000, False, Limits(4_000_000, 5_000_000)),
        (15_000_000, True, Limits(5_000_000, 15_000_000)),
        (700_000, True, Limits(700_000, 700_000)),
        (100_000, True, Limits(CLOSED.threshold - 1, 100_000)),
        (0, False, CLOSED),
    ],
)
def test_quota_is_asked_for_before_it_ends_but_for_the_last(granted: int, final: bool, expected: Limits) -> None:
    assert limits(granted, quantum=5_000_000, final=final) == expected


def test_usage_of_the_smfs_rules_is_the_smfs() -> None:
    def usage(urr: int, total: int) -> Ie:
        volume = Ie(IeType.VOLUME_MEASUREMENT, b"\x01" + total.to_bytes(8, "big"))
        members = [codec.u32(IeType.URR_ID, urr), codec.u32(IeType.UR_SEQN, 3), volume]
        return codec.group(IeType.USAGE_REPORT_REPORT, members)

    kind = codec.u8(IeType.REPORT_TYPE, 2)
    own, rest = split_usage([kind, usage(1, 10), usage(OWN_URR, 99)], OWN_URR)
    assert own == [(OWN_URR, 3, (99, 0, 0))] and rest == [kind, usage(1, 10)]


@given(st.binary(max_size=200))
def test_octets_that_are_no_pfcp_are_refused_in_one_way(data: bytes) -> None:
    try:
        message = codec.decode(data)
        split_usage(message.ies, OWN_URR)
        adapt(message.ies, Forwarding().after(message.ies, ipv6=True), own=OWN_URR, open_=False, detour=DETOUR)
    except (PfcpError, NumberTaken):
        pass


def test_what_is_not_touched_goes_out_as_it_came_in() -> None:
    chance = random.Random(1)
    ies = [Ie(chance.randrange(1, 65536), chance.randbytes(chance.randrange(50))) for _ in range(50)]
    data = Message(Type.SESSION_MODIFICATION_REQUEST, 0xABCDEF, ies, seid=2**64 - 1, priority=3).encode()
    assert codec.decode(data).encode() == data


@pytest.mark.parametrize("imsi", ["208930000000001", "30299800000001"])
def test_user_id_carries_imsis_of_even_and_odd_length(imsi: str) -> None:
    assert codec.user_imsi(codec.user_id(imsi)) == imsi
