"""Fair use: a session goes on at a lower rate, whatever the SMF does meanwhile, until the OCS says otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chf import Chf

from mvnobox.n4.rules import Throttle, addresses, qer_rates, rates
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType, Message, Type

from .conftest import QUANTUM, Bench, until
from .replay import Replay, messages

pytestmark = pytest.mark.timeout(60)


def mbr(uplink: int, downlink: int) -> Ie:
    """MBR in kbit/s (clause 8.2.8)."""
    return Ie(IeType.MBR, uplink.to_bytes(5, "big") + downlink.to_bytes(5, "big"))


def told(ies: list[Ie]) -> dict[int, bytes]:
    """QER ID → MBR octets in a request's QERs."""
    return {qer: rate for qer, rate in qer_rates(ies, {}).items() if rate}


def update_qer(identity: int, *more: Ie) -> Ie:
    return codec.group(IeType.UPDATE_QER, [codec.u32(IeType.QER_ID, identity), *more])


async def test_a_session_is_slowed_down_and_a_top_up_lets_it_go(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    wanted = told(bench.upf.asked[Type.SESSION_ESTABLISHMENT_REQUEST][-1].ies)
    assert wanted
    modified = bench.upf.asked[Type.SESSION_MODIFICATION_REQUEST]

    async def next_change(sequence: int) -> list[Ie]:
        seen = len(modified)
        await replay.report(QUANTUM, sequence)
        await until("the next quota", lambda: len(modified) > seen)
        return modified[-1].ies

    assert not told(await next_change(0))
    chf.slow(512_000, 128_000)
    slow = mbr(128, 512).data
    assert told(await next_change(1)) == {qer: slow for qer in wanted}
    # Said once; and what the session may use goes on being granted in time.
    again = await next_change(2)
    assert not told(again)
    limits = next(ie.children() for ie in again if ie.type == IeType.UPDATE_URR)
    assert codec.parse_volume(codec.first(limits, IeType.VOLUME_THRESHOLD))[0] == QUANTUM

    # The SMF raises one direction and lowers the other: the customer gets neither more than the throttle nor than that.
    identity = min(wanted)
    later = mbr(50, 900_000)
    change = [update_qer(identity, codec.u8(IeType.GATE_STATUS, 0), later)]
    await bench.smf.ask(Message(Type.SESSION_MODIFICATION_REQUEST, 0, change, seid=replay.seid))
    assert modified[-1].ies == [update_qer(identity, codec.u8(IeType.GATE_STATUS, 0), mbr(50, 512))]
    untouched = [update_qer(identity, codec.u8(IeType.GATE_STATUS, 0))]
    await bench.smf.ask(Message(Type.SESSION_MODIFICATION_REQUEST, 0, untouched, seid=replay.seid))
    assert modified[-1].ies == untouched

    kept = await bench.store.session(replay.seid)
    assert kept is not None and kept.throttle == Throttle(128_000, 512_000)
    assert await bench.store.throttled() == [(list(kept.addresses), kept.throttle)] and kept.addresses
    chf.free()
    assert told(await next_change(3)) == {**wanted, identity: later.data}
    assert await bench.store.throttled() == []


async def test_a_session_may_begin_slow_and_stays_so_behind_the_gate(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    chf.slow(1_000_000, 1_000_000)
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    wanted = qer_rates(messages("ipv4", "establishment")[0][1].ies, {})
    modified = bench.upf.asked[Type.SESSION_MODIFICATION_REQUEST]
    assert told(modified[0].ies) == {qer: mbr(1000, 1000).data for qer in wanted}
    so_far = len(modified)
    kept = await bench.store.session(replay.seid)
    assert kept is not None and kept.throttle == Throttle(1_000_000, 1_000_000)
    chf.unit, before = {}, chf.unit
    await replay.report(QUANTUM, 0)
    await until("the gate's closing", lambda: len(modified) > so_far)
    assert not told(modified[-1].ies)
    chf.unit = before
    chf.free()
    assert await bench.ctf.gate.reauthorize(replay.seid)
    await until("the gate's opening", lambda: len(modified) > so_far + 1)
    assert told(modified[-1].ies) == {qer: rate or mbr(2**40 - 1, 2**40 - 1).data for qer, rate in wanted.items()}


async def test_a_change_that_the_upf_refuses_is_made_again(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    kind = Type.SESSION_MODIFICATION_REQUEST
    chf.slow(64_000, 64_000)
    seen = len(bench.upf.asked[kind])
    bench.upf.answers[kind].append(Message(kind + 1, 0, [codec.u8(IeType.CAUSE, 64)], seid=replay.seid))
    for sequence in (0, 1):
        await replay.report(QUANTUM, sequence)
        await until("a change", lambda so_far=seen + sequence: len(bench.upf.asked[kind]) > so_far)
        assert set(told(bench.upf.asked[kind][-1].ies).values()) == {mbr(64, 64).data}


@pytest.mark.parametrize(
    ("filters", "throttle", "final"),
    [
        (["throttle;dl=512000;ul=64000"], Throttle(64_000, 512_000), False),
        (["another", "throttle;ul=64000;dl=512000;burst=9"], Throttle(64_000, 512_000), False),
        (["another"], None, True),
        (["throttle;dl=0;ul=0"], None, True),
    ],
)
async def test_what_the_ocs_says_of_rates(
    scripted: tuple[Bench, Chf], filters: list[str], throttle: Throttle | None, final: bool
) -> None:
    bench, chf = scripted
    chf.unit["finalUnitIndication"] = {"finalUnitAction": "RESTRICT_ACCESS", "filterIdList": filters}
    verdict = await bench.ctf.gate.first_quota("208930000000001", 1, "internet")
    assert (verdict.throttle, verdict.final) == (throttle, final) and verdict.granted > 0


async def test_a_rate_that_is_none_is_no_answer(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    chf.unit["finalUnitIndication"] = {"finalUnitAction": "RESTRICT_ACCESS", "filterIdList": ["throttle;dl=fast"]}
    assert (await bench.ctf.gate.first_quota("208930000000001", 1, "internet")).granted == 0


def test_qers_come_and_go() -> None:
    create = codec.group(IeType.CREATE_QER, [codec.u32(IeType.QER_ID, 1), codec.u8(IeType.GATE_STATUS, 0), mbr(5, 6)])
    bare = codec.group(IeType.CREATE_QER, [codec.u32(IeType.QER_ID, 2), codec.u8(IeType.GATE_STATUS, 0)])
    known = qer_rates([create, bare], {})
    assert known == {1: mbr(5, 6).data, 2: b""}
    assert rates(known, Throttle(1_000_000, 4_000)) == [update_qer(1, mbr(5, 4)), update_qer(2, mbr(1000, 4))]
    remove = codec.group(IeType.REMOVE_QER, [codec.u32(IeType.QER_ID, 1)])
    assert qer_rates([remove, update_qer(2, mbr(7, 7))], known) == {2: mbr(7, 7).data}


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        ("020a2d0002", {"10.45.0.2"}),
        ("0320" + "01" + "0db8" + "00" * 3 + "07" + "00" * 4, None),
        ("0120010db8000000070000000000000001", {"2001:db8:0:7::/64"}),
        ("070a2d000220010db8000000070000000000000001", {"10.45.0.2", "2001:db8:0:7::/64"}),
        ("0920010db800000700000000000000000008", {"2001:db8:0:700::/56"}),
        ("10", set()),
        ("12", set()),
    ],
)
def test_the_ues_addresses(octets: str, expected: Any) -> None:
    pdi = codec.group(IeType.PDI, [Ie(IeType.UE_IP_ADDRESS, bytes.fromhex(octets))])
    pdr = codec.group(IeType.CREATE_PDR, [codec.u16(IeType.PDR_ID, 1), pdi])
    if expected is None:
        with pytest.raises(codec.PfcpError):
            addresses([pdr])
    else:
        assert addresses([pdr]) == expected
