"""Peers' state machine, limits and bad behaviour (RFC 6733 section 5, RFC 3539)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from diameter_peer import Answer, Peer, avp, message, mscc


async def gone(peer: Peer) -> None:
    """The node has closed the connection."""
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(peer.reader.read(1 << 20), 10) == b""


async def test_capabilities(serve: Any) -> None:
    peer = await Peer.connect((await serve()).port)
    cea = await peer.exchange(message(257, peer.cer(), flags=0x80, application=0, hop=77, end=88))
    assert (cea.command, cea.flags, cea.application, cea.hop, cea.end) == (257, 0, 0, 77, 88)
    assert (cea.result, cea.all(264), cea.all(296)) == (2001, [b"ocs.test.realm"], [b"test.realm"])
    assert cea.all(257) == [b"\0\x01\x7f\0\0\x01"] and cea.number(258) == 4
    assert cea.number(265) == 10415 and cea.number(266) == 0 and cea.all(269) and cea.number(278)


@pytest.mark.parametrize(
    ("application", "result"),
    [
        (avp(258, 16777238), 5010),
        (b"", 5010),
        (avp(258, 0xFFFFFFFF), 2001),
        (avp(260, [avp(266, 10415), avp(258, 4)]), 2001),
        (avp(260, [avp(266, 10415), avp(258, 16777238)]), 5010),
        (avp(258, 4) + avp(299, 1), 5017),
        (avp(258, 4) + avp(299, 1) + avp(299, 0), 2001),
        (avp(258, b"\4"), 5014),
    ],
)
async def test_applications_and_security_in_common(serve: Any, application: bytes, result: int) -> None:
    peer = await Peer.connect((await serve()).port)
    assert (await peer.exchange(message(257, peer.cer(application), flags=0x80, application=0))).result == result
    if result != 2001:
        await gone(peer)


async def test_only_known_peers_may_connect(serve: Any) -> None:
    served = await serve(peers=[{"host": "SMF.test", "brand": "beta", "finalUnits": False}])
    stranger = await Peer.connect(served.port, "other.test")
    refused = await stranger.exchange(message(257, stranger.cer(), flags=0x80, application=0))
    assert (refused.result, refused.flags) == (3010, 0x20)
    await gone(stranger)
    known = await Peer.open(served.port, "smf.test")
    assert (await known.request(272, known.ccr(1, 0, "s;1;1", mscc(want=[])))).result == 2001
    assert served.engine.calls[0].brand == "beta"


async def test_nothing_before_the_capabilities(serve: Any) -> None:
    served = await serve(handshakeSeconds=0.2)
    hasty, silent = await Peer.connect(served.port), await Peer.connect(served.port)
    hasty.writer.write(message(272, hasty.ccr(1, 0, "s;1;1")))
    await gone(hasty)
    await gone(silent)
    assert served.engine.calls == []


async def test_watchdog_and_disconnect_of_the_peer(serve: Any) -> None:
    served = await serve()
    peer = await Peer.open(served.port)
    dwa = await peer.request(280, avp(264, "smf.test") + avp(296, "test"), flags=0x80, application=0)
    assert (dwa.command, dwa.result, dwa.flags) == (280, 2001, 0)
    served.engine.gate.clear()
    late = peer.send(272, peer.ccr(1, 0, "s;1;1", mscc(want=[])))
    dpa = await peer.request(282, avp(264, "smf.test") + avp(296, "test") + avp(273, 0), flags=0x80, application=0)
    assert dpa.result == 2001
    served.engine.gate.set()
    assert (await asyncio.wait_for(late, 5)).result == 2001  # what was asked before is answered
    await peer.close()


async def test_a_silent_peer_is_probed_and_given_up(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve()
    served.node.settings.__dict__["watchdog_seconds"] = 0.15
    peer = await Peer.connect(served.port)
    await peer.exchange(message(257, peer.cer(), flags=0x80, application=0))
    for _ in range(2):
        probe = await asyncio.wait_for(peer.receive(), 5)
        assert (probe.command, probe.flags, probe.application) == (280, 0x80, 0)
        answer = avp(268, 2001) + avp(264, "smf.test") + avp(296, "test")
        peer.writer.write(message(280, answer, flags=0, application=0, hop=probe.hop, end=probe.end))
    assert (await asyncio.wait_for(peer.receive(), 5)).command == 280
    await gone(peer)


async def test_shutdown_tells_the_peers(serve: Any) -> None:
    served = await serve()
    peer = await Peer.open(served.port)
    stopping = asyncio.create_task(served.stop())
    dpr = await asyncio.wait_for(peer.requests.get(), 5)
    assert (dpr.command, dpr.number(273), dpr.all(264)) == (282, 0, [b"ocs.test.realm"])
    peer.writer.write(message(282, avp(268, 2001), flags=0, application=0, hop=dpr.hop, end=dpr.end))
    await asyncio.wait_for(stopping, 2)
    await peer.close()


async def test_shutdown_answers_what_is_under_way(serve: Any) -> None:
    served = await serve()
    peer = await Peer.open(served.port)
    served.engine.gate.clear()
    held = peer.send(272, peer.ccr(1, 0, "s;1;1", mscc(want=[])))
    await peer.request(280, b"", flags=0x80, application=0)
    stopping = asyncio.create_task(served.stop())
    dpr = await asyncio.wait_for(peer.requests.get(), 5)
    crossed = peer.send(272, peer.ccr(2, 1, "s;1;1", mscc(want=[])))
    peer.writer.write(message(282, avp(268, 2001), flags=0, application=0, hop=dpr.hop, end=dpr.end))
    served.engine.gate.set()
    assert {(await asyncio.wait_for(one, 5)).result for one in (held, crossed)} == {2001}
    await asyncio.wait_for(stopping, 5)
    await peer.close()


async def test_a_peer_that_connects_again_takes_its_place(serve: Any) -> None:
    served = await serve()
    first = await Peer.open(served.port)
    second = await Peer.open(served.port)
    assert (await asyncio.wait_for(first.requests.get(), 5)).command == 282
    assert (await second.request(272, second.ccr(1, 0, "s;1;1", mscc(want=[])))).result == 2001
    assert served.node.open["smf.test"].host == "smf.test" and len(served.node.open) == 1


async def test_answers_overtake_each_other(serve: Any) -> None:
    served = await serve()
    gates = [asyncio.Event() for _ in range(3)]

    async def wait(call: Any) -> None:
        await gates[call.sequence].wait()

    served.engine.then = wait
    peer = await Peer.open(served.port)
    answers = [peer.send(272, peer.ccr(2, n, "s;1;1", mscc(want=[]))) for n in range(3)]
    for n in (2, 0, 1):
        gates[n].set()
        got = await asyncio.wait_for(answers[n], 5)
        assert got.number(415) == n
    assert [hop - 1 for hop in peer.order] == [2, 0, 1]


@pytest.mark.parametrize(
    ("flags", "command", "application", "result", "error"),
    [
        (0xC0, 316, 4, 3001, True),
        (0xC0, 272, 16777238, 3007, True),
        (0xE0, 272, 4, 3008, True),
        (0x80, 257, 0, 5012, False),
    ],
)
async def test_headers_that_are_refused(
    serve: Any, flags: int, command: int, application: int, result: int, error: bool
) -> None:
    peer = await Peer.open((await serve()).port)
    got = await peer.request(command, peer.ccr(1, 0, "s;1;1"), flags=flags, application=application)
    assert (got.result, bool(got.flags & 0x20), got.flags & 0x80) == (result, error, 0)
    assert (await peer.request(272, peer.ccr(1, 0, "s;1;1", mscc(want=[])))).result == 2001


@pytest.mark.parametrize(
    ("head", "result"),
    [(b"\x02\0\0\x14", 5011), (b"\x01\0\0\x16", 5015), (b"\x01\0\0\x08", 5015), (b"\x01\x02\0\0", 5015)],
)
async def test_a_stream_that_cannot_be_followed_is_answered_and_closed(serve: Any, head: bytes, result: int) -> None:
    peer = await Peer.connect((await serve()).port)
    await peer.exchange(message(257, peer.cer(), flags=0x80, application=0))
    got = await peer.exchange(head + message(272, b"")[4:])
    assert (got.result, got.hop) == (result, 1)
    await gone(peer)


async def test_realms_hosts_and_contexts(serve: Any) -> None:
    served = await serve(servedRealms=["brand.realm"], serviceContexts={"32251@3gpp.org": 1, "32260@3gpp.org": 3})
    peer = await Peer.open(served.port)

    async def ask(**more: Any) -> Answer:
        return await peer.request(272, peer.ccr(1, 0, "s;1;1", mscc(want=[], group=None), **more))

    assert (await ask(realm="other.realm")).result == 3003
    assert (await ask(realm="Brand.Realm")).result == 2001
    assert (await ask(realm="test.realm", more=avp(293, "another.test.realm"))).result == 3002
    assert (await ask(realm="test.realm", more=avp(293, "OCS.test.realm"))).result == 2001
    refused = await ask(realm="test.realm", context="32274@3gpp.org")
    assert (refused.result, refused.all(279, 461)) == (5003, [b"32274@3gpp.org"])
    assert (await ask(realm="test.realm", context="ext.01.208.15.32260@3gpp.org")).result == 2001
    assert [one.rating for one in served.engine.calls[-1].units] == [3]


async def test_proxies_get_their_state_back(serve: Any) -> None:
    peer = await Peer.open((await serve()).port)
    proxies = avp(284, [avp(280, "p1"), avp(33, b"x")]) + avp(284, [avp(280, "p2"), avp(33, b"yz")])
    got = await peer.request(272, peer.ccr(1, 0, "s;1;1", mscc(want=[]), more=proxies + avp(282, "r1")))
    assert (got.result, got.all(284, 280), got.all(284, 33)) == (2001, [b"p1", b"p2"], [b"x", b"yz"])


async def test_a_flood_waits_and_disturbs_nobody(serve: Any) -> None:
    served = await serve(outstanding=8)
    served.engine.gate.clear()
    flood, other = await Peer.open(served.port, "flood.test"), await Peer.open(served.port, "other.test")
    futures = [flood.send(272, flood.ccr(1, 0, f"f;1;{n}", mscc(want=[]))) for n in range(5000)]
    await flood.writer.drain()
    one = other.send(272, other.ccr(1, 0, "o;1;1", mscc(want=[])))
    async with asyncio.timeout(10):
        while not any(call.notify.startswith("aaa://other") for call in served.engine.calls):
            await asyncio.sleep(0.01)
    assert len(served.engine.calls) == 9  # eight of the flood, one of the other
    served.engine.gate.set()
    assert (await asyncio.wait_for(one, 5)).result == 2001
    assert {(await asyncio.wait_for(f, 30)).result for f in futures} == {2001}


async def test_a_flood_of_refused_requests_is_answered_in_turns(serve: Any) -> None:
    served = await serve()
    flood, other = await Peer.open(served.port, "flood.test"), await Peer.open(served.port, "other.test")
    futures = [flood.send(316, b"") for _ in range(5000)]
    assert (await other.request(280, b"", flags=0x80, application=0)).result == 2001
    assert {(await asyncio.wait_for(f, 30)).result for f in futures} == {3001}


async def test_who_leaves_answers_unread_is_dropped(serve: Any) -> None:
    served = await serve(stalledSeconds=0.3)
    stalled, other = await Peer.connect(served.port, "stalled.test"), await Peer.open(served.port, "other.test")
    await stalled.exchange(message(257, stalled.cer(), flags=0x80, application=0))
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
    big = message(272, stalled.ccr(1, 0, "s;1;1") + avp(284, [avp(33, bytes(60_000))]) * 1)

    async def write() -> None:
        with contextlib.suppress(ConnectionError):
            while not stalled.writer.is_closing() and "stalled.test" in served.node.open:
                stalled.writer.write(big)
                await stalled.writer.drain()

    writing = asyncio.create_task(write())
    assert (await other.request(272, other.ccr(1, 0, "o;1;1", mscc(want=[])))).result == 2001
    async with asyncio.timeout(20):
        while "stalled.test" in served.node.open:
            await asyncio.sleep(0.02)
    assert (await other.request(280, b"", flags=0x80, application=0)).result == 2001
    writing.cancel()


async def test_too_many_at_once_are_told_to_come_again(serve: Any) -> None:
    served = await serve(requestsAtOnce=4)
    served.engine.gate.clear()
    peer = await Peer.open(served.port)
    held = [peer.send(272, peer.ccr(1, 0, f"s;1;{n}", mscc(want=[]))) for n in range(4)]
    busy = await peer.request(272, peer.ccr(1, 0, "s;1;9", mscc(want=[])))
    assert (busy.result, busy.flags & 0x20, busy.all(263)) == (3004, 0x20, [b"s;1;9"])
    served.engine.gate.set()
    assert {(await asyncio.wait_for(f, 5)).result for f in held} == {2001}


async def test_too_many_connections(serve: Any) -> None:
    served = await serve(connections=2)
    peers = [await Peer.open(served.port, f"p{n}.test") for n in range(2)]
    await gone(await Peer.connect(served.port))
    assert (await peers[0].request(280, b"", flags=0x80, application=0)).result == 2001


@pytest.mark.parametrize(("error", "result"), [(OSError(), 3004), (TimeoutError(), 3004), (KeyError("x"), 5012)])
async def test_trouble_of_the_ledger_is_an_answer(serve: Any, error: Exception, result: int) -> None:
    served = await serve()

    async def fail(call: Any) -> None:
        raise error

    served.engine.then = fail
    peer = await Peer.open(served.port)
    got = await peer.request(272, peer.ccr(1, 0, "s;1;1", mscc(want=[])))
    assert (got.result, got.all(263)) == (result, [b"s;1;1"])


async def test_messages_in_pieces(serve: Any) -> None:
    peer = await Peer.open((await serve()).port)
    future = peer.send(280, b"", flags=0x80, application=0)
    data = message(272, peer.ccr(1, 0, "s;1;1", mscc(want=[])), hop=900)
    peer.waiting[900] = asyncio.get_running_loop().create_future()
    for at in range(0, len(data), 7):
        peer.writer.write(data[at : at + 7])
        await peer.writer.drain()
    assert (await asyncio.wait_for(peer.waiting[900], 5)).result == 2001
    assert (await future).result == 2001
