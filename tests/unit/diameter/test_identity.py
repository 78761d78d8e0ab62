"""A Session-Id stands for one session for ever; what a balance check and a refund say of a line."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest
from diameter_peer import Peer, avp, mscc, octets

INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
DEBIT, REFUND, BALANCE = 0, 1, 2
MINOR = 1_000_000


def session(peer: Peer) -> str:
    return f"{peer.host};{uuid.uuid4().int % 2**32};{uuid.uuid4().int % 2**32}"


@pytest.mark.parametrize("peer", ["any brand"], indirect=True)
async def test_a_session_id_is_never_used_twice(account: Any, peer: Peer, ocs: Any) -> None:
    """Another CC-Request-Number, another account, after the end, and after all was forgotten: for good, not 3004."""
    account.grant(5000)
    name = session(peer)
    first = peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi)
    assert (await peer.request(272, first)).result == 2001

    async def refused(body: bytes) -> None:
        for _ in range(2):
            answer = await peer.request(272, body)
            assert (answer.result, answer.all(279, 263)) == (5004, [name.encode()])

    second = peer.ccr(INITIAL, 7, name, mscc(want=[]), imsi=account.imsi)
    await refused(second)
    other = {"subscriberIds": [f"imsi-{uuid.uuid4().int % 10**15:015}"], "currency": "EUR"}
    ocs.call("PUT", "other-" + account.imsi, other, brand="beta")
    await refused(peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=other["subscriberIds"][0].removeprefix("imsi-")))
    debit = avp(437, [octets(3)]) + avp(432, 1)
    await refused(peer.ccr(EVENT, 8, name, debit, imsi=account.imsi, more=avp(436, DEBIT)))
    # The session itself goes on.
    assert account.totals() == (5000, 0, 1000, 4000)
    update = peer.ccr(UPDATE, 1, name, mscc(want=[], used=[octets(10)]), imsi=account.imsi)
    assert (await peer.request(272, update)).result == 2001
    assert (await peer.request(272, first)).number(456, 431, 421) == 1000, "a repeat is a repeat"
    await peer.request(272, peer.ccr(TERMINATION, 2, name, mscc(used=[octets(5)]), imsi=account.imsi))
    await refused(second)
    connection = await asyncpg.connect(ocs.dsn)
    from mvnobox.charging.diameter.calls import session_ref

    ref = session_ref(name.encode())
    await connection.execute("UPDATE session SET ended_at = now() - interval '30 days' WHERE ref = $1", ref)
    assert await connection.fetchval("SELECT purge_ended(86400, 10)") >= 1
    await connection.close()
    await refused(first)
    await refused(second)
    assert account.totals() == (5000, 15, 0, 4985)


def event(peer: Peer, imsi: str, action: int, *unit: bytes, group: int = 1, more: bytes = b"") -> bytes:
    asked = avp(437, list(unit)) + avp(432, group)
    return peer.ccr(EVENT, 0, session(peer), asked, imsi=imsi, more=avp(436, action) + more)


RATING = {
    "country": "FR",
    "timezone": "Europe/Paris",
    "currency": "EUR",
    "home": ["208"],
    "emergency": ["112"],
    "tariffs": {
        "pay": [
            {"service": "data", "zones": ["home"], "price": 2 * MINOR, "per": 100},
            {"service": "data", "included": False},
        ]
    },
}


@pytest.fixture
def priced(ocs: Any) -> Any:
    """A line of a brand of its own that sells data at 2 cents for 100 octets, and nothing abroad."""
    brand, imsi = f"p{uuid.uuid4().hex[:8]}", f"{uuid.uuid4().int % 10**15:015}"
    ocs.call("PUT", "rating", RATING, brand=brand)
    body = {"subscriberIds": [f"imsi-{imsi}"], "currency": "EUR", "tariff": "pay"}
    ocs.call("PUT", imsi, body, brand=brand)

    def grant(unit: str, amount: int) -> None:
        bucket = {"unit": unit, "amount": amount, "source": "plan:test"}
        ocs.call("POST", f"{imsi}/grants", {"requestId": str(uuid.uuid4()), "buckets": [bucket]}, brand=brand)

    return imsi, grant, lambda status: ocs.call("PATCH", imsi, {"status": status}, brand=brand)


@pytest.mark.parametrize("peer", ["any brand"], indirect=True)
async def test_a_balance_check_says_what_a_first_request_would_get(priced: Any, peer: Peer) -> None:
    imsi, grant, status = priced

    async def check(*unit: bytes, more: bytes = b"") -> tuple[int | None, int | None]:
        answer = await peer.request(272, event(peer, imsi, BALANCE, *unit, more=more))
        return answer.result, answer.number(422)

    def at(network: str) -> bytes:
        return avp(873, [avp(874, [avp(18, network, vendor=10415)], vendor=10415)], vendor=10415)

    assert await check() == (2001, 1)
    grant("minor", 20)
    # Money alone: 1000 octets' worth.
    assert [await check(octets(n)) for n in (0, 1000, 1001)] == [(2001, 0), (2001, 0), (2001, 1)]
    first = await peer.request(272, peer.ccr(INITIAL, 0, session(peer), mscc(want=[octets(100)]), imsi=imsi))
    assert first.number(456, 268) == 2001
    # What is held for that session is no more there; the allowance comes before the money.
    assert [await check(octets(n)) for n in (900, 901)] == [(2001, 0), (2001, 1)]
    grant("octets", 500)
    assert [await check(octets(n)) for n in (1400, 1401)] == [(2001, 0), (2001, 1)]
    assert await check(more=at("31026")) == (4010, None), "not sold there"
    status("suspended")
    assert await check(octets(5)) == (4010, None)
    refused = await peer.request(272, peer.ccr(INITIAL, 0, session(peer), mscc(want=[]), imsi=imsi))
    assert refused.number(456, 268) == 4010


async def test_a_refund_is_booked_for_a_suspended_line_and_not_for_a_terminated_one(account: Any, peer: Peer) -> None:
    account.status("suspended")
    ask = event(peer, account.imsi, REFUND, octets(30))
    assert (await peer.request(272, ask)).result == 2001
    assert account.totals() == (30, 0, 0, 30)
    account.status("terminated")
    # A repeat of what was refunded gets the first answer, a new one none.
    assert (await peer.request(272, ask)).result == 2001
    assert (await peer.request(272, event(peer, account.imsi, REFUND, octets(30)))).result == 4010
    assert account.totals() == (30, 0, 0, 30)


async def test_a_first_answer_says_what_to_do_without_one(account: Any, peer: Peer) -> None:
    account.grant(1000)
    name = session(peer)
    first = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
    # RETRY_AND_TERMINATE, FAILOVER_SUPPORTED
    assert (first.number(427), first.number(418)) == (2, 1)
    more = await peer.request(272, peer.ccr(UPDATE, 1, name, mscc(want=[]), imsi=account.imsi))
    assert (more.all(427), more.all(418)) == ([], [])
