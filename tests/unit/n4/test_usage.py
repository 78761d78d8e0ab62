"""Usage reports count once, whatever their order; malformed PFCP is refused in one way only."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.n4.rules import adapt, far_actions, gate, usage_reports
from mvnobox.n4.store import Seen, Store
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, FORW, Ie, IeType, Message, PfcpError, Type
from mvnobox.service import database


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


async def test_reports_that_overtake_each_other_are_all_owed(pg_database: Any) -> None:
    dsn = pg_database.dsn("ctf_alpha")
    await database.migrate(dsn, Path(database.__file__).parents[1] / "n4/migrations")
    pool = await database.make_pool(dsn)
    store = Store(pool)
    seid = await store.new_session(7, ("127.0.0.1", 8805), "208930000000001", "internet")
    await store.update(seid, nchf_ref="x")
    for number in (0, 3, 1, 3, 2, 1):
        await store.take_usage(seid, [(1, number, (10, 4, 6))])
    total = 0
    while (pending := await store.next_pending(seid)) is not None:
        total += pending.used[0]
        await store.settled(pending)
    assert total == 40
    pool.terminate()


def rules() -> list[Ie]:
    def pdr(identity: int, source: int, *more: Ie) -> Ie:
        pdi = codec.group(IeType.PDI, [codec.u8(IeType.SOURCE_INTERFACE, source)])
        return codec.group(IeType.CREATE_PDR, [codec.u16(IeType.PDR_ID, identity), pdi, *more])

    urr = codec.group(IeType.CREATE_URR, [codec.u32(IeType.URR_ID, 1), codec.volume_threshold(100 * 2**20)])
    far = codec.group(IeType.CREATE_FAR, [codec.u32(IeType.FAR_ID, 1), Ie(IeType.APPLY_ACTION, bytes([FORW, 0]))])
    unknown = Ie(0x8001, b"\x12\x34vendor")
    return [pdr(1, 1, codec.u32(IeType.URR_ID, 1)), pdr(2, 0), urr, far, unknown]


def test_both_directions_count_and_a_closed_gate_drops() -> None:
    adapted, counting = adapt(rules(), threshold=5000, open_=False)
    assert counting == [1] and adapted[-1] == rules()[-1]
    uplink = adapted[1].children()
    assert codec.first(uplink, IeType.URR_ID) == codec.u32(IeType.URR_ID, 1)
    assert codec.parse_volume(codec.first(adapted[2].children(), IeType.VOLUME_THRESHOLD))[0] == 5000
    assert far_actions(adapted) == {1: bytes([DROP])}
    # What the SMF wanted is what an open gate gives back, BUFF and all.
    wanted = {1: bytes([codec.BUFF | codec.NOCP, 0]), 2: bytes([FORW, 0])}
    assert far_actions(gate(wanted, open_=True)) == wanted
    assert set(far_actions(gate(wanted, open_=False)).values()) == {bytes([DROP])}


@given(st.binary(max_size=200))
def test_octets_that_are_no_pfcp_are_refused_in_one_way(data: bytes) -> None:
    try:
        message = codec.decode(data)
        usage_reports(message.ies)
        far_actions(message.ies)
    except PfcpError:
        pass


def test_what_is_not_touched_goes_out_as_it_came_in() -> None:
    chance = random.Random(1)
    ies = [Ie(chance.randrange(1, 65536), chance.randbytes(chance.randrange(50))) for _ in range(50)]
    data = Message(Type.SESSION_MODIFICATION_REQUEST, 0xABCDEF, ies, seid=2**64 - 1, priority=3).encode()
    assert codec.decode(data).encode() == data


@pytest.mark.parametrize("imsi", ["208930000000001", "30299800000001"])
def test_user_id_carries_imsis_of_even_and_odd_length(imsi: str) -> None:
    assert codec.user_imsi(codec.user_id(imsi)) == imsi
