"""A phone's life at the test peer: attach, what it says to HSS and packet gateway, what they take away."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hostnetwork_lab import Lab, lab_of
from hostnetwork_peers import IMSI, PLMN, SIM, Hss, at, avp, elements, fteid, gtp, ie, pick, subscription

T = 10415
USER_UNKNOWN = avp(297, [avp(266, T), avp(298, 5001)])


async def test_an_attach_and_a_detach(lab: Lab) -> None:
    answer = await lab.ask("register", sim=SIM)
    assert answer["ok"] and answer["registered"] and answer["testPeer"], answer
    assert (answer["address"], answer["mtu"], answer["dns"]) == ("10.45.128.2", 1380, ["9.9.9.9"])
    assert [step["step"] for step in answer["steps"]] == ["authentication", "location update", "PDN connection"]
    assert [command for command, _ in lab.hss.asked] == [257, 318, 316] and lab.pgw.kinds() == [32]
    (tunnel,) = lab.tubes.now
    assert (tunnel.upf, tunnel.uplink_teid) == (("127.0.0.1", 2152), 0x7001)
    assert tunnel.downlink_teid == lab.pgw.downlink_teid
    assert (await lab.ask("status"))["address"] == "10.45.128.2"
    assert (await lab.ask("deregister"))["ok"]
    assert lab.pgw.kinds() == [32, 36] and lab.hss.asked[-1][0] == 321 and not lab.tubes.now
    # At the packet gateway's own TEID, with the linked bearer's identity.
    assert lab.pgw.heard[-1][1] == 0x7000 and pick(lab.pgw.heard[-1][3], 73) == b"\5"
    assert not (await lab.ask("status"))["registered"]


async def test_what_the_hss_is_asked(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    (_, cer), (_, air), (_, ulr) = lab.hss.asked
    assert at(cer, 264) == b"mme.alpha.hostnetwork.test" and at(cer, 260, 258) == struct.pack(">I", 16777251)
    assert at(cer, 257) == b"\0\1\x7f\0\0\1"
    for body in (air, ulr):
        assert at(body, 1) == IMSI.encode() and at(body, 277) == b"\0\0\0\1" and at(body, 1407) == PLMN
        assert at(body, 283) == b"test" and at(body, 293) == b"hss.test" and at(body, 260, 266) == struct.pack(">I", T)
    assert at(air, 1408, 1410) == b"\0\0\0\1" and at(air, 1408, 1411) is None
    # RAT type E-UTRAN; S6a indicator and initial attach (TS 29.272 clauses 7.3.13, 7.3.7).
    assert at(ulr, 1032) == struct.pack(">I", 1004) and at(ulr, 1405) == struct.pack(">I", 34)
    assert at(air, 263) != at(ulr, 263)


async def test_what_the_packet_gateway_is_asked(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    ((_, teid, _, body),) = lab.pgw.heard
    assert teid == 0
    assert pick(body, 1) == bytes.fromhex("00010100000000f1") and pick(body, 76) == bytes.fromhex("330700000010")
    assert pick(body, 82) == b"\6" and pick(body, 83) == PLMN and pick(body, 99) == b"\1" and pick(body, 128) == b"\0"
    assert pick(body, 71) == b"\x08internet" and pick(body, 79) == b"\1\0\0\0\0"
    assert pick(body, 86) == b"\x18" + PLMN + b"\0\1" + PLMN + b"\0\0\0\1"
    assert pick(body, 72) == struct.pack(">II", 1000, 2000) and pick(body, 95) == bytes.fromhex("0400")
    control, bearer = pick(body, 87) or b"", pick(body, 93) or b""
    assert control[0] == 0x86 and control[5:] == socket.inet_aton("127.0.0.1")
    assert pick(bearer, 73) == b"\5" and pick(bearer, 80) == bytes.fromhex("6009") + bytes(20)
    assert (pick(bearer, 87, 2) or b"")[0] == 0x84


async def test_a_wrong_key_is_refused_by_the_sim(lab: Lab) -> None:
    answer = await lab.ask("register", sim={**SIM, "ki": "00" * 16})
    assert not answer["ok"] and not answer["registered"] and "MAC failure" in answer["cause"]
    assert [command for command, _ in lab.hss.asked] == [257, 318] and not lab.pgw.heard


async def test_a_network_that_derived_another_key_is_refused(lab: Lab) -> None:
    lab.hss.network = b"\x02\xf8\x39"
    assert "K_ASME" in (await lab.ask("register", sim=SIM))["cause"]


async def test_the_sims_numbers_are_caught_up_with(lab: Lab) -> None:
    lab.hss.sqn = 1 << 20
    assert (await lab.ask("register", sim=SIM))["ok"]
    lab.hss.sqn = 32
    assert (await lab.ask("register", sim=SIM))["ok"]
    airs = [body for command, body in lab.hss.asked if command == 318]
    assert [len(at(body, 1408, 1411) or b"") for body in airs] == [0, 0, 30]


@pytest.mark.parametrize(
    ("command", "words"), [(318, "AIR refused by the HSS: USER_UNKNOWN"), (316, "ULR refused by the HSS: USER_UNKNOWN")]
)
async def test_an_unknown_subscriber(lab: Lab, command: int, words: str) -> None:
    lab.hss.refuse[command] = USER_UNKNOWN
    answer = await lab.ask("register", sim=SIM)
    assert not answer["ok"] and words in answer["cause"] and not lab.tubes.now


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (subscription(status=1), "barred"),
        (subscription(apn="other"), "internet is not subscribed, other is"),
        (avp(1400, b"\0\0\0", vendor=T), "no S6a: the subscription: octets left that are no AVP"),
    ],
)
async def test_a_subscription_that_gives_no_session(lab: Lab, data: bytes, words: str) -> None:
    lab.hss.subscription = data
    answer = await lab.ask("register", sim=SIM)
    assert not answer["ok"] and words in answer["cause"] and not lab.pgw.heard


async def test_no_credit_and_credit_again(lab: Lab) -> None:
    """What prepaid looks like from a host network: an error indication, refusals, and a session after a top-up."""
    assert (await lab.ask("register", sim=SIM))["ok"]
    lab.pgw.cause = 125
    lab.tubes.now[0].on_lost()
    await lab.until(lambda: lab.pgw.kinds().count(32) >= 2)
    status = await lab.ask("status")
    # The former device's octets are still the phone's.
    assert not status["registered"] and (status["receivedOctets"], status["sentOctets"]) == (1000, 100)
    lab.pgw.cause = 16
    await lab.until(lambda: lab.tubes.now)
    status = await lab.ask("status")
    assert status["registered"] and status["recoveries"] == 1 and status["address"] == "10.45.128.3"
    # Nobody deletes at the packet gateway what it holds no more; nor is the HSS asked again.
    assert 36 not in lab.pgw.kinds() and [command for command, _ in lab.hss.asked] == [257, 318, 316]


async def test_a_refusal_is_told_in_words(lab: Lab) -> None:
    lab.pgw.cause = 125
    answer = await lab.ask("register", sim=SIM)
    assert answer["cause"] == "Create Session: UE not authorised by OCS or external AAA Server (GTP cause 125)"
    assert answer["steps"][-1]["ok"] is False and lab.hss.asked[-1][0] == 321


async def test_the_packet_gateway_ends_a_session(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    lab.pgw.send(gtp(99, lab.pgw.sgw_teid, 77, ie(73, b"\5")))
    kind, teid, sequence, body = await lab.pgw.answers.get()
    assert (kind, teid, sequence, pick(body, 2), pick(body, 73)) == (100, 0x7000, 77, b"\x10\0", b"\5")
    # It is asked for again at once, as by a phone with an always-on connection.
    await lab.until(lambda: lab.tubes.opened == 2)


async def test_requests_for_a_bearer(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    mine = lab.pgw.sgw_teid
    lab.pgw.send(gtp(97, mine, 1, ie(72, bytes(8)) + ie(93, ie(73, b"\5"))))
    kind, teid, _, body = await lab.pgw.answers.get()
    assert (kind, teid, pick(body, 2)) == (98, 0x7000, b"\x10\0") and pick(pick(body, 93) or b"", 2) == b"\x10\0"
    for request, cause in (
        (gtp(97, mine, 2, ie(93, ie(73, b"\6"))), 64),
        (gtp(99, mine, 3, ie(73, b"\6", 1)), 64),
        (gtp(99, mine, 4), 70),
        (gtp(99, mine ^ 1, 5, ie(73, b"\5")), 64),
        (gtp(95, mine, 6, ie(73, b"\5") + ie(93, ie(73, b"\0"))), 68),
        (gtp(97, mine, 7, ie(93, b"\x49\0\5\0\5")), 67),
    ):
        lab.pgw.send(request)
        assert (pick((await lab.pgw.answers.get())[3], 2) or b"\0")[0] == cause
    assert (await lab.ask("status"))["registered"]


async def test_the_hss_changes_the_subscription(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    rate = avp(1435, [avp(516, 7_000_000, vendor=T), avp(515, 8_000_000, vendor=T)], vendor=T)
    lab.hss.tell(319, avp(1, IMSI) + avp(1490, 0, vendor=T) + avp(1400, [rate], vendor=T))
    command, _, body = await lab.hss.acknowledged.get()
    assert command == 319 and at(body, 268) == struct.pack(">I", 2001) and at(body, 263) == b"hss.test;1;2"
    known = lab.agent.mme.subscription(IMSI)
    assert known is not None and known.ambr is not None and known.ambr.downlink == 8_000_000
    assert known.apn("INTERNET") is not None and (await lab.ask("status"))["registered"]


async def test_barring_detaches(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    lab.hss.tell(319, avp(1, IMSI) + avp(1400, [avp(1424, 1, vendor=T)], vendor=T))
    await lab.hss.acknowledged.get()
    await lab.until(lambda: 36 in lab.pgw.kinds())
    status = await lab.ask("status")
    assert not status["registered"] and "barred" in status["released"]


async def test_cancel_location_detaches(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    lab.hss.tell(317, avp(1, IMSI) + avp(1420, 2, vendor=T))
    command, _, body = await lab.hss.acknowledged.get()
    assert command == 317 and at(body, 268) == struct.pack(">I", 2001)
    await lab.until(lambda: 36 in lab.pgw.kinds())
    assert "withdrawn" in (await lab.ask("status"))["released"]
    # A phone that is not known is not there to be cancelled; it is no error (TS 29.272 clause 5.2.1.2.1).
    lab.hss.tell(317, avp(1, "001010000000009") + avp(1420, 2, vendor=T))
    assert at((await lab.hss.acknowledged.get())[2], 268) == struct.pack(">I", 2001)
    lab.hss.tell(319, avp(1, "001010000000009"))
    assert at((await lab.hss.acknowledged.get())[2], 297, 298) == struct.pack(">I", 5001)


async def test_another_sim_takes_the_place_of_the_first(lab: Lab) -> None:
    await lab.ask("register", sim=SIM)
    assert (await lab.ask("register", sim={**SIM, "imsi": "001010000000002"}))["ok"]
    assert lab.pgw.kinds() == [32, 36, 32] and len(lab.tubes.now) == 1


async def test_a_new_session_on_the_attachment(lab: Lab) -> None:
    assert (await lab.ask("session"))["cause"] == "not registered"
    await lab.ask("register", sim=SIM)
    answer = await lab.ask("session")
    assert answer["ok"] and answer["address"] == "10.45.128.3" and lab.pgw.kinds() == [32, 36, 32]


@pytest.mark.parametrize("command", ["fly", 7])
async def test_commands_that_there_are_not(lab: Lab, command: Any) -> None:
    assert "no such command" in (await lab.ask(command))["cause"]
    assert "a SIM needs" in (await lab.ask("register", sim={}))["cause"]


async def test_a_peer_that_the_hss_does_not_know(tmp_path: Path) -> None:
    hss = Hss()
    hss.cea = avp(268, 3010)
    async with lab_of(tmp_path, hss, ready=False) as lab:
        await lab.until(lambda: hss.connections >= 2)
        assert "refuses this peer (Diameter result 3010)" in str(await lab.agent.ready())
        assert "no S6a" in (await lab.ask("register", sim=SIM))["cause"]


def test_elements_of_the_scripted_gateway_are_elements() -> None:
    assert elements(ie(87, fteid(5, 1), 2)) == [(87, 2, bytes.fromhex("85000000017f000001"))]
