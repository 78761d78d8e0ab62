"""Units that a rating group is not rated in: never free, over sessions and events (RFC 8506 section 9.2, 5031)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from diameter_peer import Peer, avp, avps, mscc, octets

INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
SECONDS = avp(420, 60)
MESSAGES = avp(417, 3, wide=True)


def money(currency: int = 978) -> bytes:
    return avp(413, [avp(445, [avp(447, 5, wide=True), avp(429, 0)]), avp(425, currency)])


def session(peer: Peer) -> str:
    return f"{peer.host};{uuid.uuid4().int % 2**32};{uuid.uuid4().int % 2**32}"


@pytest.mark.parametrize("wrong", [[SECONDS], [MESSAGES], [money()], [octets(5), money()], [money(826)]])
async def test_use_in_a_wrong_unit_is_refused_and_gets_no_quota(account: Any, peer: Peer, wrong: list[bytes]) -> None:
    account.grant(5000)
    name = session(peer)
    await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
    update = peer.ccr(UPDATE, 1, name, mscc(want=[], used=wrong), imsi=account.imsi)
    for _ in range(2):
        refused = await peer.request(272, update)
        assert (refused.result, refused.number(456, 268), refused.all(456, 431)) == (2001, 5031, [])
        # Failed-AVP shows what was not understood, to the letter.
        assert refused.all(456, 279) == [avp(446, wrong)]
        assert account.totals() == (5000, 0, 1000, 4000)
    last = await peer.request(272, peer.ccr(TERMINATION, 2, name, mscc(used=[octets(70)]), imsi=account.imsi))
    assert (last.result, account.totals()) == (2001, (5000, 70, 0, 4930))


async def test_a_wish_in_a_wrong_unit_is_refused(account: Any, peer: Peer) -> None:
    account.grant(5000)
    one = await peer.request(272, peer.ccr(INITIAL, 0, session(peer), mscc(want=[SECONDS]), imsi=account.imsi))
    assert (one.result, one.number(456, 268), one.all(456, 279)) == (2001, 5031, [avp(437, [SECONDS])])
    # At the level of the command it is the command's result.
    plain = await peer.request(272, peer.ccr(INITIAL, 0, session(peer), avp(437, [SECONDS]), imsi=account.imsi))
    assert (plain.result, plain.all(279), account.totals()) == (5031, [avp(437, [SECONDS])], (5000, 0, 0, 5000))


async def test_the_other_services_of_the_request_are_served(account: Any, peer: Peer) -> None:
    account.grant(5000)
    account.grant(100, "seconds")
    services = [mscc(want=[], used=[SECONDS]), mscc(want=[SECONDS], used=[octets(0), avp(420, 20)], group=3)]
    name = session(peer)
    answer = await peer.request(272, peer.ccr(INITIAL, 0, name, *services, imsi=account.imsi))
    codes = {}
    for members in map(avps, answer.all(456)):
        values = {code: int.from_bytes(value) for code, _, value in members if code in (432, 268)}
        codes[values[432]] = values[268]
    assert (answer.result, codes) == (2001, {1: 5031, 3: 2001})
    assert (account.totals()[1], account.totals("seconds")[:3]) == (0, (100, 20, 60))


async def test_further_units_beside_the_right_one_are_read_over(account: Any, peer: Peer) -> None:
    account.grant(5000)
    name = session(peer)
    await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[SECONDS, octets(0)]), imsi=account.imsi))
    used = [SECONDS, avp(412, 300, wide=True), MESSAGES]
    answer = await peer.request(272, peer.ccr(UPDATE, 1, name, mscc(want=[], used=used), imsi=account.imsi))
    assert (answer.number(456, 268), account.totals()[:3]) == (2001, (5000, 300, 1000))
    # An empty container says that nothing was used.
    empty = await peer.request(272, peer.ccr(UPDATE, 2, name, mscc(want=[], used=[]), imsi=account.imsi))
    assert (empty.number(456, 268), account.totals()[1]) == (2001, 300)


@pytest.mark.parametrize("action", [0, 1, 2, 3])
async def test_events_are_no_exception(account: Any, peer: Peer, action: int) -> None:
    account.grant(7, "messages")
    unit = avp(437, [SECONDS]) + avp(432, 4)
    event = await peer.request(272, peer.ccr(EVENT, 0, session(peer), unit, imsi=account.imsi, more=avp(436, action)))
    assert (event.result, event.all(279), account.totals("messages")) == (5031, [avp(437, [SECONDS])], (7, 0, 0, 7))
