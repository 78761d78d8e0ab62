"""Both transports: repetition, repeated requests, watchdogs, and peers that send anything."""

from __future__ import annotations

import asyncio
import random
import struct
from pathlib import Path

import pytest
from hostnetwork_lab import Lab, lab_of
from hostnetwork_peers import SIM, Pgw, avp, diameter, gtp, ie, pick

from mvnobox.core.sim import gtpu
from mvnobox.core.sim.ue_tunnel import Tunnel, Tunnels


async def test_a_request_is_repeated_until_it_is_answered(lab: Lab) -> None:
    lab.pgw.deaf = 2
    assert (await lab.ask("register", sim=SIM))["ok"]
    # The same message each time, so that the packet gateway can tell (TS 29.274 clause 7.6).
    assert len(lab.pgw.heard) == 3 and len(set(lab.pgw.heard)) == 1


async def test_a_packet_gateway_that_is_not_there(lab: Lab) -> None:
    lab.pgw.deaf = 1000
    answer = await lab.ask("register", sim=SIM)
    assert answer["cause"] == "the packet gateway: 127.0.0.1 does not answer after 3 requests"
    assert lab.pgw.kinds() == [32] * 3


async def test_answers_that_cannot_be_used(lab: Lab) -> None:
    def number(data: bytes) -> int:
        return int.from_bytes(data[8:11])

    for change, words in (
        # A header that is wrong is read over (TS 29.274 clause 7.7.3), as are answers to what nobody asked.
        (lambda data: data[:-3], "does not answer"),
        (lambda data: gtp(33, 1, number(data) ^ 1, ie(2, b"\x10\0")), "does not answer"),
        (lambda data: gtp(37, 1, number(data), ie(2, b"\x10\0")), "does not answer"),
        (lambda data: gtp(33, 1, number(data), b"\2\0\x09\0"), "answer is malformed"),
        (lambda data: gtp(33, 1, number(data), ie(2, b"\x10\0")), "element 93, instance 0, is missing"),
        (lambda data: data.replace(b"\x57\0\x09\2\x85", b"\x57\0\x09\2\x05"), "without an IPv4 address"),
        (lambda data: b"\x40\3\0\4" + data[8:12], "another version of GTP-C"),
    ):
        lab.pgw.change = change
        answer = await lab.ask("register", sim=SIM)
        assert not answer["ok"] and words in answer["cause"], answer
    lab.pgw.change = Pgw().change
    assert (await lab.ask("register", sim=SIM))["ok"]


async def test_a_repeated_request_gets_the_first_answer(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    for _ in range(3):
        lab.pgw.send(gtp(99, lab.pgw.sgw_teid, 9, ie(73, b"\5")))
    answers = [await lab.pgw.answers.get() for _ in range(3)]
    # Only the first found the session; what the others got says accepted as well.
    assert len(set(answers)) == 1 and pick(answers[0][3], 2) == b"\x10\0"


async def test_echo_both_ways_and_other_versions(lab: Lab) -> None:
    assert (await lab.ask("echo"))["ok"]
    lab.pgw.send(gtp(1, None, 5, ie(3, b"\7")))
    kind, _, sequence, body = await lab.pgw.answers.get()
    assert (kind, sequence) == (2, 5) and len(pick(body, 3) or b"") == 1
    lab.pgw.send(b"\x32\x01\0\4" + bytes(8))
    assert (await lab.pgw.answers.get())[0] == 3
    # An indication is not answered with another: the next answer is the echo's.
    lab.pgw.send(b"\x32\x03\0\4" + bytes(8))
    lab.pgw.send(gtp(1, None, 6))
    assert (await lab.pgw.answers.get())[:1] == (2,)


@pytest.mark.parametrize("how", ["started anew", "path failure"])
async def test_a_packet_gateway_that_has_lost_its_sessions(tmp_path: Path, how: str) -> None:
    """Its user plane may hold on to them: what carries on there is charged to nobody, so the connection is given up."""
    async with lab_of(tmp_path, echo_seconds=0.05) as lab:
        await lab.ask("register", sim=SIM)
        await lab.until(lambda: lab.pgw.kinds().count(1) >= 2)
        assert (await lab.ask("status"))["recoveries"] == 0
        if how == "started anew":
            lab.pgw.restarts += 1
        else:
            lab.pgw.deaf = 3
        await lab.until(lambda: lab.tubes.opened == 2)
        status = await lab.ask("status")
        assert status["registered"] and lab.pgw.kinds().count(32) == 2 and 36 not in lab.pgw.kinds()


async def test_any_datagram_leaves_the_peer_working(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    chance, mine = random.Random(1), lab.pgw.sgw_teid
    for _ in range(1_500):
        good = gtp(chance.choice((1, 2, 3, 33, 37, 95, 97, 99)), mine, chance.getrandbits(24), ie(93, ie(73, b"\6")))
        data = bytearray(good if chance.random() < 0.7 else chance.randbytes(chance.randrange(60)))
        for _ in range(chance.randrange(5)):
            if data:
                data[chance.randrange(len(data))] = chance.getrandbits(8)
        lab.pgw.send(bytes(data))
    assert (await lab.ask("register", sim=SIM))["ok"]


async def test_watchdog_and_strange_requests_of_the_hss(lab: Lab) -> None:
    lab.hss.tell(280, b"", application=0)
    command, _, body = await lab.hss.acknowledged.get()
    assert command == 280 and avp(268, 2001) in body
    for number, application, result in ((272, 4, 3007), (320, 16777251, 5005), (319, 16777251, 5005)):
        lab.hss.tell(number, b"", application=application)
        assert avp(268, result) in (await lab.hss.acknowledged.get())[2]
    lab.hss.tell(320, avp(1, "1"))
    assert avp(268, 3001) in (await lab.hss.acknowledged.get())[2]
    # An AVP that is longer than its message is answered, not followed.
    lab.hss.raw(diameter(0xC0, 319, 16777251, 9, 9, struct.pack(">II", 1, 0x40000FFF)))
    assert avp(268, 5014) in (await lab.hss.acknowledged.get())[2]
    assert (await lab.ask("register", sim=SIM))["ok"]


async def test_our_own_watchdog(lab: Lab) -> None:
    lab.agent.mme.s6a._watchdog = 0.05
    lab.hss.hang_up()
    await lab.until(lambda: [command for command, _ in lab.hss.asked].count(280) >= 2)


async def test_the_connection_comes_back(lab: Lab) -> None:
    lab.hss.hang_up()
    await lab.until(lambda: lab.hss.connections == 2 and lab.agent.mme.s6a.problem is None)
    assert (await lab.ask("register", sim=SIM))["ok"]
    lab.hss.raw(b"GET / HTTP/1.1\r\n\r\n    ")
    await lab.until(lambda: lab.hss.connections == 3 and lab.agent.mme.s6a.problem is None)
    # Who disconnects is let go, and sought again.
    lab.hss.tell(282, avp(273, 0), application=0)
    await lab.until(lambda: lab.hss.connections == 4 and lab.agent.mme.s6a.problem is None)


async def test_an_answer_that_never_comes_ends_with_the_connection(lab: Lab) -> None:
    lab.hss.refuse[318] = b"\0\0\0"
    answer = await lab.ask("register", sim=SIM)
    assert not answer["ok"] and "no S6a" in answer["cause"]


def test_a_plain_header_has_no_extension() -> None:
    buffer = bytearray(gtpu.HEADROOM)
    gtpu.write_plain_header(buffer, 0xA1B2C3D4, 84)
    assert bytes(buffer[gtpu.HEADROOM - gtpu.PLAIN :]) == bytes.fromhex("30ff0054a1b2c3d4")
    assert gtpu.payload(bytes(buffer[gtpu.HEADROOM - gtpu.PLAIN :])) == (gtpu.G_PDU, 0xA1B2C3D4, 8)


async def test_an_error_indication_is_known_by_either_address() -> None:
    import socket

    lost: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gtp_socket:
        tunnels = Tunnels(gtp_socket, plain=True)
        tunnel = Tunnel(0, "none0", "10.0.0.2", -1, 7, lambda: lost.append("lost"), ("192.0.2.1", 2152), 9)
        tunnels._by_teid[7] = tunnel
        # Another TEID, another user plane: not ours.
        tunnels._lost((8, "192.0.2.1"), "192.0.2.1")
        tunnels._lost((9, "192.0.2.9"), "192.0.2.8")
        tunnels._lost(None, "192.0.2.1")
        assert not lost
        # The address in it is the pod's, the packet comes from the Service's.
        tunnels._lost((9, "10.1.0.5"), "192.0.2.1")
        tunnels._lost((9, "10.1.0.5"), "192.0.2.1")
        assert lost == ["lost"]
        asyncio.get_running_loop().remove_reader(gtp_socket.fileno())
