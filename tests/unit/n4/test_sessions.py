"""What a session meets in its life with Open5GS: flows, handovers, a second session beside it, repeats, a restarted SMF."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from typing import Any

import pytest
from tests.chf import Chf

from mvnobox.core.sim.upf_rules import Session as UpfSession
from mvnobox.core.sim.upf_rules import apply
from mvnobox.n4.rules import OWN_URR
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import BUFF, DROP, FORW, NOCP, Ie, IeType, Message, Type

from .conftest import CTF, QUANTUM, SMF, UPF, Bench, placed, until
from .replay import Replay, imsi_in, messages
from .replay import actions as far_actions

pytestmark = pytest.mark.timeout(90)
CHANGE = Type.SESSION_MODIFICATION_REQUEST
DENIED = {"resultCode": "QUOTA_LIMIT_REACHED"}
OLD_GNB, NEW_GNB = ("10.211.1.20", 1), ("10.211.1.77", 0x4D)


async def established(bench: Bench) -> Replay:
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    return replay


def user_plane(bench: Bench) -> UpfSession:
    """What a user plane makes of all that it was told: the simulated core's own rules."""
    made = UpfSession(1, 2, SMF)
    teids = itertools.count(100)
    for message in (*bench.upf.asked[Type.SESSION_ESTABLISHMENT_REQUEST], *bench.upf.asked[CHANGE]):
        apply(made, message.ies, lambda: next(teids))
    return made


def gates(bench: Bench) -> dict[int, int]:
    """FAR ID → action of those that carry the customer's traffic; the third is for the control plane's own."""
    return {number: far.action for number, far in user_plane(bench).fars.items() if number in (1, 2, 4, 5)}


async def change(bench: Bench, seid: int, *ies: Ie) -> None:
    """The SMF changes a session."""
    answer = await bench.smf.ask(Message(CHANGE, 0, list(ies), seid=seid))
    assert codec.number(answer.first(IeType.CAUSE), 1) == 1


async def starve(bench: Bench, chf: Chf, replay: Replay, sequence: int) -> dict[str, Any]:
    """The credit ends; what the OCS said before."""
    granting, chf.unit = chf.unit, DENIED
    asked = bench.upf.asked[CHANGE]
    before = len(asked)
    await replay.report(QUANTUM, sequence)
    await until("the gate's closing", lambda: len(asked) > before)
    return granting


async def top_up(bench: Bench, chf: Chf, seid: int, granting: dict[str, Any]) -> None:
    chf.unit = granting
    before = len(bench.upf.asked[CHANGE])
    assert await bench.notify(bench.addresses.path(seid), "REAUTHORIZATION") == 204
    await until("the gate's opening", lambda: len(bench.upf.asked[CHANGE]) > before)


def forwarding(address: str, teid: int) -> Ie:
    """Update FAR of a handover, as Open5GS's SMF sends it: where the downlink goes from now on."""
    outer = Ie(IeType.OUTER_HEADER_CREATION, struct.pack(">HI", 0x0100, teid) + socket.inet_aton(address))
    parameters = [codec.u8(IeType.DESTINATION_INTERFACE, 0), outer]
    members = [
        codec.u32(IeType.FAR_ID, 1),
        Ie(IeType.APPLY_ACTION, bytes([FORW, 0])),
        codec.group(IeType.UPDATE_FORWARDING_PARAMETERS, parameters),
    ]
    return codec.group(IeType.UPDATE_FAR, members)


async def test_a_handover_behind_a_closed_gate_leads_to_the_new_gnb_when_there_is_credit_again(
    scripted: tuple[Bench, Chf],
) -> None:
    bench, chf = scripted
    replay = await established(bench)
    assert user_plane(bench).fars[1].peer == OLD_GNB
    granting = await starve(bench, chf, replay, 0)
    await change(bench, replay.seid, forwarding(*NEW_GNB))
    assert set(gates(bench).values()) == {DROP}
    await top_up(bench, chf, replay.seid, granting)
    assert set(gates(bench).values()) == {FORW}
    assert user_plane(bench).fars[1].peer == NEW_GNB


async def test_idle_behind_a_closed_gate_pages_when_there_is_credit_again(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    granting = await starve(bench, chf, replay, 0)
    idle = next(message for where, message in messages("ipv4", "idle") if message.is_request)
    await change(bench, replay.seid, *idle.ies)
    assert set(gates(bench).values()) == {DROP}
    await top_up(bench, chf, replay.seid, granting)
    assert gates(bench) == {1: BUFF | NOCP, 2: FORW}
    # The phone answers the page.
    await change(bench, replay.seid, forwarding(*OLD_GNB))
    assert user_plane(bench).fars[1].action == FORW


def second_flow() -> list[Ie]:
    """A QoS flow beside the default one, as Open5GS's SMF adds it: two PDRs, two FARs, a URR of its own, a QER."""

    def pdr(identity: int, source: int, far: int, *more: Ie) -> Ie:
        pdi = [codec.u8(IeType.SOURCE_INTERFACE, source), Ie(IeType.NETWORK_INSTANCE, b"\x08internet")]
        rest = [codec.u32(IeType.FAR_ID, far), *more, codec.u32(IeType.QER_ID, 2)]
        start = [codec.u16(IeType.PDR_ID, identity), codec.u32(IeType.PRECEDENCE, 9)]
        return codec.group(IeType.CREATE_PDR, [*start, codec.group(IeType.PDI, pdi), *rest])

    def far(identity: int, interface: int) -> Ie:
        parameters = codec.group(IeType.FORWARDING_PARAMETERS, [codec.u8(IeType.DESTINATION_INTERFACE, interface)])
        action = Ie(IeType.APPLY_ACTION, bytes([FORW, 0]))
        return codec.group(IeType.CREATE_FAR, [codec.u32(IeType.FAR_ID, identity), action, parameters])

    urr = [
        codec.u32(IeType.URR_ID, 2),
        codec.u8(IeType.MEASUREMENT_METHOD, 2),
        Ie(IeType.REPORTING_TRIGGERS, b"\2\0\0"),
    ]
    qer = [codec.u32(IeType.QER_ID, 2), codec.u8(IeType.GATE_STATUS, 0), codec.u8(IeType.QFI, 2)]
    return [
        pdr(5, 1, 4, codec.u32(IeType.URR_ID, 2)),
        pdr(6, 0, 5),
        far(4, 0),
        far(5, 1),
        codec.group(IeType.CREATE_URR, [*urr, codec.volume_threshold(100 * 2**20)]),
        codec.group(IeType.CREATE_QER, qer),
    ]


@pytest.mark.parametrize("closed", [False, True])
async def test_a_second_flow_is_counted_and_cut_like_the_first(scripted: tuple[Bench, Chf], closed: bool) -> None:
    bench, chf = scripted
    replay = await established(bench)
    granting = chf.unit
    if closed:
        granting = await starve(bench, chf, replay, 0)
    await change(bench, replay.seid, *second_flow())
    upf = user_plane(bench)
    # Every PDR of the customer's traffic counts on the one rule; the SMF's own rules are as it made them.
    assert {number: pdr.urrs for number, pdr in upf.pdrs.items() if number in (1, 2, 5, 6)} == {
        1: [1, OWN_URR], 2: [OWN_URR], 5: [2, OWN_URR], 6: [OWN_URR],
    }  # fmt: skip
    if not closed:
        assert {upf.fars[4].action, upf.fars[5].action} == {FORW}
        granting = await starve(bench, chf, replay, 0)
    assert gates(bench) == dict.fromkeys((1, 2, 4, 5), DROP)
    await top_up(bench, chf, replay.seid, granting)
    assert set(gates(bench).values()) == {FORW}
    # The flow goes again: its FARs are not told any more.
    gone = [codec.group(IeType.REMOVE_FAR, [codec.u32(IeType.FAR_ID, far)]) for far in (4, 5)]
    await change(bench, replay.seid, *gone)
    await starve(bench, chf, replay, 1)
    assert set(far_actions(bench.upf.asked[CHANGE][-1].ies)) - {3} == {1, 2}
    assert chf.used() == [QUANTUM, QUANTUM]


async def test_two_sessions_of_a_ue_have_a_counter_and_a_gate_each(bench: Bench) -> None:
    imsi = imsi_in("ipv4")
    await bench.account(imsi, 1_000_000_000)
    first = await established(bench)
    second = Replay(bench)
    again = [
        (where, Message(m.type, m.sequence, [codec.user_id(imsi) if ie.type == IeType.USER_ID else ie for ie in m.ies], m.seid))
        for where, m in messages("ipv4v6", "establishment-ipv4v6")
    ]  # fmt: skip
    await second.all(again)
    assert first.seid != second.seid
    await first.report(QUANTUM, 0)
    await second.report(2 * QUANTUM, 0)

    async def both() -> bool:
        return await bench.used() == 3 * QUANTUM

    await until("both sessions' use", both)
    # One of them ends; the other goes on and is charged.
    upf = bench.upf
    recorded = messages("ipv4", "session-release")[1][1]
    upf.answers[Type.SESSION_DELETION_REQUEST].append(Message(recorded.type, 0, recorded.ies, seid=first.seid))
    answer = await bench.smf.ask(Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=first.seid))
    assert answer.seid == first.smf_seid and upf.asked[Type.SESSION_DELETION_REQUEST][-1].seid == first.upf_seid
    await second.report(QUANTUM, 1)

    async def all_three() -> bool:
        return await bench.used() == 4 * QUANTUM

    await until("the other session's use", all_three)
    # The account is suspended: whatever is left is cut.
    changes = upf.asked[CHANGE]
    (await bench.http.patch("/ocs/v1/accounts/a1", json={"status": "suspended"})).raise_for_status()
    assert await bench.ctf.gate.abort(second.seid)
    await until("the gate's closing", lambda: DROP in {a[0] for a in far_actions(changes[-1].ies).values()})
    assert changes[-1].seid == second.upf_seid
    assert not await bench.ctf.gate.abort(first.seid)


async def exchange(address: str, data: bytes, times: int) -> list[bytes]:
    """The answers to a datagram that is sent so many times from one socket."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((address, 0))
        answers = []
        for _ in range(times):
            await loop.sock_sendto(sock, data, (CTF, 8805))
            async with asyncio.timeout(10):
                answers.append(await loop.sock_recv(sock, 4096))
        return answers


async def test_a_repeated_request_is_answered_from_memory_and_passed_once(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    request = messages("ipv4", "establishment")[0][1]
    answer = messages("ipv4", "establishment")[1][1]
    bench.upf.answers[request.type].append(Message(answer.type, 0, placed(answer.ies, None, UPF), seid=0))
    made = len(bench.upf.asked[request.type])
    sessions, changes = len(chf.asked), len(bench.upf.asked[CHANGE])
    data = Message(request.type, 77, placed(request.ies, None, "127.0.9.4"), seid=0).encode()
    answers = await exchange("127.0.9.4", data, 3)
    assert len(set(answers)) == 1 and codec.decode(answers[0]).sequence == 77
    await until("the gate's opening", lambda: len(bench.upf.asked[CHANGE]) > changes)
    assert len(bench.upf.asked[request.type]) == made + 1 and len(chf.asked) == sessions + 1
    idle = next(message for where, message in messages("ipv4", "idle") if message.is_request)
    changes = len(bench.upf.asked[CHANGE])
    answers = await exchange("127.0.9.4", Message(CHANGE, 78, idle.ies, seid=replay.seid).encode(), 3)
    assert len(set(answers)) == 1 and len(bench.upf.asked[CHANGE]) == changes + 1
    # The UPF's side: a page passes to the SMF once, use is charged once.
    page = messages("ipv4", "downlink-while-idle")[0][1]
    report = Type.SESSION_REPORT_REQUEST
    answers = await exchange("127.0.9.5", Message(page.type, 79, page.ies, seid=replay.seid).encode(), 3)
    assert len(set(answers)) == 1 and len(bench.smf.asked[report]) == 1
    usage = [
        codec.u32(IeType.URR_ID, OWN_URR),
        codec.u32(IeType.UR_SEQN, 0),
        Ie(IeType.VOLUME_MEASUREMENT, b"\x01" + QUANTUM.to_bytes(8, "big")),
    ]
    body = [codec.u8(IeType.REPORT_TYPE, 2), codec.group(IeType.USAGE_REPORT_REPORT, usage)]
    answers = await exchange("127.0.9.5", Message(report, 80, body, seid=replay.seid).encode(), 3)
    assert len(set(answers)) == 1 and len(bench.smf.asked[report]) == 1
    await until("the report", lambda: chf.used() == [QUANTUM])


async def test_a_restarted_smf_is_answered_at_once_and_its_sessions_end(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    setup = Type.ASSOCIATION_SETUP_REQUEST

    async def associate(stamp: int) -> None:
        again = [codec.node_id(SMF), codec.recovery(stamp)]
        answer = await asyncio.wait_for(bench.smf.ask(Message(setup, 0, again)), 3)
        assert codec.number(answer.first(IeType.CAUSE), 1) == 1

    # A UPF that does not answer yet: the SMF need not wait for it.
    deletion = Type.SESSION_DELETION_REQUEST
    bench.upf.silent.add(deletion)
    await associate(1_800_000_000)
    await until("the end on the UPF", lambda: bench.upf.asked[deletion])
    assert bench.upf.asked[deletion][-1].seid == replay.upf_seid
    # The SMF knows nothing of it: neither is it asked, nor can it change it.
    page = messages("ipv4", "downlink-while-idle")[0][1]
    answer = await bench.upf.ask(Message(page.type, 0, page.ies, seid=replay.seid))
    assert answer.ies == [codec.u8(IeType.CAUSE, 1)] and not bench.smf.asked[page.type]
    answer = await bench.smf.ask(Message(CHANGE, 0, [], seid=replay.seid))
    assert codec.number(answer.first(IeType.CAUSE), 1) == 65
    # The CTF dies in the middle; the next one ends what is left.
    await bench.stop()
    bench.upf.silent.clear()
    usage = codec.group(
        IeType.USAGE_REPORT_DELETION,
        [
            codec.u32(IeType.URR_ID, OWN_URR),
            codec.u32(IeType.UR_SEQN, 0),
            Ie(IeType.VOLUME_MEASUREMENT, b"\x01" + (555).to_bytes(8, "big")),
        ],
    )
    bench.upf.answers[deletion].append(Message(deletion + 1, 0, [codec.u8(IeType.CAUSE, 1), usage], seid=replay.seid))
    await bench.start(bench.settings, bench.store)
    await until("the release", lambda: chf.asked[-1][0].endswith("/release"))
    assert chf.used() == [555]
    # The same stamp again is no restart.
    later = Replay(bench)
    await later.all(messages("ipv4", "establishment"))
    await associate(1_800_000_000)
    session = await bench.store.session(later.seid)
    assert session is not None and not session.ending and not session.deleted
