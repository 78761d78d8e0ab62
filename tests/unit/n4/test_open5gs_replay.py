"""What Open5GS's SMF and UPF said to each other on N4, with the CTF in between."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from mvnobox.n4.rules import OWN_URR, far_actions
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, Ie, IeType, Message, Type

from .conftest import CTF, QUANTUM, QUOTA, SMF, UPF, Bench, placed, until

pytestmark = pytest.mark.timeout(120)
RECORDED = json.loads((Path(__file__).parent / "data/open5gs_2_7_7.json").read_text())


def messages(part: str, *phases: str) -> list[tuple[str, Message]]:
    """(direction, message) of a recording; all phases where none is named."""
    chosen = [one for one in RECORDED[part] if not phases or one["phase"] in phases]
    return [(one["direction"], codec.decode(bytes.fromhex(one["hex"]))) for one in chosen]


def imsi_in(part: str) -> str:
    first = next(m for _, m in messages(part) if m.type == Type.SESSION_ESTABLISHMENT_REQUEST)
    found = codec.user_imsi(first.first(IeType.USER_ID))
    assert found is not None
    return found


class Replay:
    """Lets both sides say again what they said, the SEIDs being those of this run."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.smf_seid = self.upf_seid = 0
        # The CTF's SEID, one for both sides.
        self.seid = 0

    async def all(self, recorded: list[tuple[str, Message]]) -> None:
        for index, (direction, message) in enumerate(recorded):
            if not message.is_request or message.type == Type.HEARTBEAT_REQUEST:
                continue
            back = next(
                other for where, other in recorded[index:]
                if where != direction and other.type == message.type + 1 and other.sequence == message.sequence
            )  # fmt: skip
            await (self.from_smf if direction == "smf-to-upf" else self.from_upf)(message, back)

    async def from_smf(self, request: Message, recorded: Message) -> None:
        upf = self.bench.upf
        if request.type == Type.SESSION_ESTABLISHMENT_REQUEST:
            self.smf_seid = codec.parse_f_seid(request.need(IeType.F_SEID))[0]
            self.upf_seid = codec.parse_f_seid(recorded.need(IeType.F_SEID))[0]
        if request.type == Type.ASSOCIATION_SETUP_REQUEST:
            answer = await self.bench.smf.ask(Message(request.type, 0, placed(request.ies, None, SMF)))
            assert codec.number(answer.first(IeType.CAUSE), 1) == 1
            return
        upf.answers[request.type].append(Message(recorded.type, 0, placed(recorded.ies, None, UPF), seid=self.seid))
        header = 0 if request.type == Type.SESSION_ESTABLISHMENT_REQUEST else self.seid
        answer = await self.bench.smf.ask(Message(request.type, 0, placed(request.ies, None, SMF), seid=header))
        # The SMF sees the UPF's answer: the addresses are the CTF's, nothing else differs.
        assert answer.seid == self.smf_seid
        if request.type == Type.SESSION_ESTABLISHMENT_REQUEST:
            self.seid = codec.parse_f_seid(answer.need(IeType.F_SEID))[0]
        assert answer.ies == placed(recorded.ies, self.seid, CTF)
        seen = upf.asked[request.type][-1]
        assert seen.seid == (0 if request.type == Type.SESSION_ESTABLISHMENT_REQUEST else self.upf_seid)
        assert without_own(seen.ies) == placed(request.ies, self.seid, CTF)

    async def from_upf(self, request: Message, recorded: Message) -> None:
        smf = self.bench.smf
        smf.answers[request.type].append(Message(recorded.type, 0, recorded.ies, seid=self.seid))
        answer = await self.bench.upf.ask(Message(request.type, 0, request.ies, seid=self.seid))
        assert answer.seid == self.upf_seid and answer.ies == recorded.ies
        seen = smf.asked[request.type][-1]
        assert seen.seid == self.smf_seid and seen.ies == request.ies

    async def report(self, octets: int, sequence: int) -> None:
        """The UPF reports use by the CTF's own rule."""
        usage = codec.group(
            IeType.USAGE_REPORT_REPORT,
            [
                codec.u32(IeType.URR_ID, OWN_URR),
                codec.u32(IeType.UR_SEQN, sequence),
                Ie(IeType.USAGE_REPORT_TRIGGER, b"\x02\0\0"),
                Ie(IeType.VOLUME_MEASUREMENT, b"\x01" + octets.to_bytes(8, "big")),
            ],
        )
        body = [codec.u8(IeType.REPORT_TYPE, 2), usage]
        answer = await self.bench.upf.ask(Message(Type.SESSION_REPORT_REQUEST, 0, body, seid=self.seid))
        assert answer.ies == [codec.u8(IeType.CAUSE, 1)] and answer.seid == self.upf_seid


def without_own(ies: list[Ie]) -> list[Ie]:
    """The SMF's elements: without the CTF's own rule and the references to it."""
    own = codec.u32(IeType.URR_ID, OWN_URR)
    out = []
    for ie in ies:
        if ie.type == IeType.CREATE_URR and own in ie.children():
            continue
        if ie.type in (IeType.CREATE_PDR, IeType.UPDATE_PDR):
            ie = codec.group(ie.type, [member for member in ie.children() if member != own])
        out.append(ie)
    return out


@pytest.mark.parametrize("part", ["ipv4", "ipv4v6"])
async def test_a_recorded_day_passes_as_if_nobody_were_between(bench: Bench, part: str) -> None:
    await bench.account(imsi_in(part), 1_000_000_000)
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association") if part == "ipv4v6" else [])
    await replay.all(messages(part))
    # Usage by the SMF's own rules is the SMF's: none of it was charged here.
    assert await bench.used() == 0


async def test_use_is_charged_once_and_asked_for_before_it_ends(bench: Bench) -> None:
    await bench.account(imsi_in("ipv4"), 1_000_000_000)
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    made = bench.upf.asked[Type.SESSION_ESTABLISHMENT_REQUEST][-1]
    own = next(
        ie.children() for ie in made.ies if ie.type == IeType.CREATE_URR and codec.u32(81, OWN_URR) in ie.children()
    )
    assert codec.first(own, IeType.VOLUME_THRESHOLD) == codec.volume_threshold(QUANTUM)
    assert codec.first(own, IeType.VOLUME_QUOTA) == codec.volume_quota(QUOTA)
    for sequence in (0, 1, 1, 0, 2):
        await replay.report(QUANTUM, sequence)

    async def three() -> bool:
        return await bench.used() == 3 * QUANTUM

    await until("three reports charged", three)


async def test_a_top_up_while_the_ue_is_idle_does_not_forward_to_it(bench: Bench) -> None:
    await bench.account(imsi_in("ipv4"), QUANTUM)
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    modified = bench.upf.asked[Type.SESSION_MODIFICATION_REQUEST]
    before = len(modified)
    await replay.report(QUANTUM, 0)
    await until("the gate's closing", lambda: len(modified) > before)
    closed = far_actions(modified[-1].ies)
    assert set(closed) == {1, 2, 3} and {action[0] for action in closed.values()} == {DROP}
    # The UE goes idle behind the closed gate: the SMF's BUFF and NOCP wait for the gate.
    idle = next(m for where, m in messages("ipv4", "idle") if m.is_request)
    wanted = far_actions(idle.ies)
    upf = bench.upf
    answer = await bench.smf.ask(Message(idle.type, 0, placed(idle.ies, None, SMF), seid=replay.seid))
    assert codec.number(answer.first(IeType.CAUSE), 1) == 1
    assert {action[0] for action in far_actions(upf.asked[idle.type][-1].ies).values()} == {DROP}
    # What an Open5GS UPF counts while it drops is nobody's use.
    await replay.report(65_536 + 1400, 1)
    seen = len(modified)
    await bench.grant(50_000_000)
    assert await bench.ctf.gate.reauthorize(replay.seid)
    await until("the gate's opening", lambda: len(modified) > seen)
    opened = far_actions(modified[-1].ies)
    assert {far: opened[far] for far in wanted} == wanted and opened[2] == b"\x02\0"
    assert await bench.used() == QUANTUM


async def test_rubbish_from_either_side_stops_nothing(bench: Bench) -> None:
    await bench.account(imsi_in("ipv4"), 1_000_000_000)
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    chance = random.Random(29244)
    known = [bytes.fromhex(one["hex"]) for one in RECORDED["ipv4"]]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rogue:
        rogue.bind(("127.0.9.4", 0))
        for round_ in range(4000):
            data = bytearray(chance.choice(known))
            for _ in range(chance.randrange(1, 6)):
                match chance.randrange(3):
                    case 0:
                        data[chance.randrange(len(data))] = chance.randrange(256)
                    case 1:
                        del data[chance.randrange(1, len(data) + 1) :]
                        data += chance.randbytes(chance.randrange(8))
                    case _:
                        at = chance.randrange(len(data))
                        data[at:at] = chance.randbytes(chance.randrange(1, 5))
            rogue.sendto(bytes(data), (CTF, 8805))
            if round_ % 200 == 0:
                answer = await bench.smf.ask(Message(Type.HEARTBEAT_REQUEST, 0, [codec.recovery(1)]))
                assert answer.type == Type.HEARTBEAT_RESPONSE
    await replay.report(QUANTUM, 0)

    async def charged() -> Any:
        return await bench.used()

    assert await until("a report after all that", charged) == QUANTUM
