"""What Open5GS's SMF and UPF said to each other on N4, with the CTF in between."""

from __future__ import annotations

import random
import socket
from typing import Any

import pytest

from mvnobox.n4.rules import OWN_URR
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, IeType, Message, Type

from .conftest import CTF, QUANTUM, QUOTA, SMF, Bench, placed, until
from .replay import RECORDED, Replay, actions, imsi_in, messages

pytestmark = pytest.mark.timeout(120)


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
    opening = bench.upf.asked[Type.SESSION_MODIFICATION_REQUEST][0]
    own = next(
        ie.children() for ie in opening.ies if ie.type == IeType.UPDATE_URR and codec.u32(81, OWN_URR) in ie.children()
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
    closed = actions(modified[-1].ies)
    # Not the third, by which router solicitations go to the SMF.
    assert set(closed) == {1, 2} and {action[0] for action in closed.values()} == {DROP}
    # The UE goes idle behind the closed gate: the SMF's BUFF and NOCP wait for the gate.
    idle = next(m for where, m in messages("ipv4", "idle") if m.is_request)
    wanted = actions(idle.ies)
    upf = bench.upf
    answer = await bench.smf.ask(Message(idle.type, 0, placed(idle.ies, None, SMF), seid=replay.seid))
    assert codec.number(answer.first(IeType.CAUSE), 1) == 1
    assert {action[0] for action in actions(upf.asked[idle.type][-1].ies).values()} == {DROP}
    # What an Open5GS UPF counts while it drops is nobody's use.
    await replay.report(65_536 + 1400, 1)
    seen = len(modified)
    await bench.grant(50_000_000)
    assert await bench.ctf.gate.reauthorize(replay.seid)
    await until("the gate's opening", lambda: len(modified) > seen)
    opened = actions(modified[-1].ies)
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
