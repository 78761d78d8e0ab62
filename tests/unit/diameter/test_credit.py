"""Credit control end to end: a plain peer, the real OCS, the real ledger."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from diameter_peer import Peer, avp, mscc, octets

INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
DEBIT, REFUND, BALANCE, PRICE = 0, 1, 2, 3


def session(peer: Peer) -> str:
    return f"{peer.host};{uuid.uuid4().int % 2**32};{uuid.uuid4().int % 2**32}"


async def test_a_session_is_opened_renewed_and_ended(account: Any, peer: Peer) -> None:
    account.grant(2500)
    name = session(peer)
    one = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
    assert (one.result, one.flags, one.application) == (2001, 0x40, 4)
    assert one.avps[0] == (263, 0, name.encode())
    assert (one.number(416), one.number(415), one.number(258)) == (1, 0, 4)
    assert one.all(264) == [b"ocs0.test.realm"]
    assert (one.number(456, 268), one.number(456, 432)) == (2001, 1)
    assert (one.number(456, 431, 421), one.number(456, 448), one.number(456, 869)) == (1000, 3600, 200)
    assert account.totals() == (2500, 0, 1000, 1500)
    two = await peer.request(
        272, peer.ccr(UPDATE, 1, name, mscc(want=[octets(700)], used=[octets(900)]), imsi=account.imsi)
    )
    assert (two.result, two.number(456, 431, 421), two.all(456, 430)) == (2001, 700, [])
    assert account.totals() == (2500, 900, 700, 900)
    three = await peer.request(272, peer.ccr(TERMINATION, 2, name, mscc(used=[octets(100)]), imsi=account.imsi))
    assert three.result == 2001
    assert account.totals() == (2500, 1000, 0, 1500)


async def test_the_last_units_are_final_and_then_there_are_none(account: Any, peer: Peer) -> None:
    account.grant(600)
    name = session(peer)
    one = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
    assert (one.number(456, 431, 421), one.number(456, 430, 449)) == (600, 0)
    two = await peer.request(272, peer.ccr(UPDATE, 1, name, mscc(want=[], used=[octets(600)]), imsi=account.imsi))
    assert (two.result, two.number(456, 268), two.all(456, 431)) == (2001, 4012, [])
    assert account.totals() == (600, 600, 0, 0)


async def test_a_first_request_can_be_refused_as_a_whole(account: Any, ocs: Any) -> None:
    """For Open5GS's SMF, which aborts where only the service is refused (2.7.7): and nothing of it stays open."""
    replica = ocs.start(
        peers=[{"host": "whole.test", "brand": "alpha", "refusesWhole": True, "refusalDelaySeconds": 0.2}]
    )
    whole = await Peer.open(ocs.diameter[replica], "whole.test")
    name = session(whole)
    ask = whole.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi)
    for _ in range(2):
        before = asyncio.get_running_loop().time()
        refused = await whole.request(272, ask)
        assert asyncio.get_running_loop().time() - before >= 0.19
        assert (refused.result, refused.all(456)) == (4012, [])
    account.grant(600)
    late = await whole.request(272, whole.ccr(UPDATE, 2, name, mscc(want=[]), imsi=account.imsi))
    assert (late.result, late.number(456, 268), account.totals()) == (2001, 4010, (600, 0, 0, 600))
    name = session(whole)
    granted = await whole.request(272, whole.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
    assert (granted.result, granted.number(456, 268), granted.number(456, 431, 421)) == (2001, 2001, 600)
    # A later one says it of the service.
    used = await whole.request(272, whole.ccr(UPDATE, 1, name, mscc(want=[], used=[octets(600)]), imsi=account.imsi))
    assert (used.result, used.number(456, 268)) == (2001, 4012)
    await whole.close()


async def test_whatever_refuses_a_first_request_waits_as_the_peer_needs(serve: Any) -> None:
    """Open5GS's SMF aborts on a refusal that comes too early, of whatever kind."""
    peers = [{"host": "slow.test", "brand": "alpha", "refusesWhole": True, "refusalDelaySeconds": 0.2}]
    served = await serve(peers=peers, serviceContexts={"32251@3gpp.org": 1})
    slow = await Peer.open(served.port, "slow.test")

    async def trouble(call: Any) -> None:
        raise OSError

    served.engine.then = trouble
    for context, result in (("32251@3gpp.org", 3004), ("other@3gpp.org", 5003)):
        before = asyncio.get_running_loop().time()
        refused = await slow.request(272, slow.ccr(INITIAL, 0, "s;1;1", mscc(want=[]), context=context))
        assert (refused.result, asyncio.get_running_loop().time() - before >= 0.19) == (result, True)
    # Later ones are answered at once.
    before = asyncio.get_running_loop().time()
    assert (await slow.request(272, slow.ccr(UPDATE, 1, "s;1;1", mscc(want=[])))).result == 3004
    assert asyncio.get_running_loop().time() - before < 0.19
    await slow.close()


async def test_a_peer_can_get_whole_quotas(account: Any, ocs: Any) -> None:
    """For Open5GS's SMF, which always asks for 1 MB (2.7.7): few requests, and none for the rests of the last quota."""
    replica = ocs.start(
        peers=[{"host": "whole.test", "brand": "alpha", "wholeQuota": True, "finalUnits": False}],
    )
    whole = await Peer.open(ocs.diameter[replica], "whole.test")
    quota = 1000
    account.grant(quota + quota // 2)
    name = session(whole)

    def ask(kind: int, number: int, *used: bytes) -> Any:
        service = mscc(want=[octets(5)], used=list(used) if used else None)
        return whole.request(272, whole.ccr(kind, number, name, service, imsi=account.imsi))

    one = await ask(INITIAL, 0)
    assert one.number(456, 431, 421) == quota and one.number(456, 869) is not None
    two = await ask(UPDATE, 1, octets(quota))
    # The last one: no threshold, and nothing that says so.
    assert (two.number(456, 431, 421), two.all(456, 869), two.all(456, 430)) == (quota // 2, [], [])
    three = await ask(UPDATE, 2, octets(quota // 2))
    assert (three.number(456, 268), account.totals()[3]) == (4012, 0)
    await whole.close()


async def test_what_open5gs_sends(account: Any, peer: Peer) -> None:
    """No Rating-Group, input and output octets, time; 3GPP's charging information is read over (facts of 2.7.7)."""
    account.grant(5000)
    name = session(peer)
    information = avp(873, [avp(874, [avp(2, b"\0\0\0\1", vendor=10415)], vendor=10415)], vendor=10415)
    more = avp(436, 0) + avp(455, 0) + avp(55, 0xE0000000) + avp(278, 1) + information
    one = await peer.request(
        272, peer.ccr(INITIAL, 0, name, mscc(want=[octets(800)], group=None), imsi=account.imsi, more=more)
    )
    assert (one.result, one.number(456, 268), one.number(456, 431, 421), one.all(456, 432)) == (2001, 2001, 800, [])
    used = [avp(420, 17), avp(412, 300, wide=True), avp(414, 450, wide=True), avp(872, 4, vendor=10415)]
    two = await peer.request(
        272,
        peer.ccr(UPDATE, 1, name, mscc(want=[octets(800)], used=used, group=None), imsi=account.imsi, more=more),
    )
    assert (two.result, two.number(456, 431, 421)) == (2001, 800)
    assert account.totals()[1] == 750


async def test_a_repeat_gets_the_first_answer_from_any_replica(account: Any, peer: Peer, ocs: Any) -> None:
    account.grant(10_000)
    name = session(peer)
    other = await Peer.open(ocs.diameter[1], peer.host)
    steps = [
        peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi),
        peer.ccr(UPDATE, 1, name, mscc(want=[], used=[octets(1000)]), imsi=account.imsi),
        peer.ccr(TERMINATION, 2, name, mscc(used=[octets(10)]), imsi=account.imsi),
    ]
    for step in steps:
        first = await peer.request(272, step)
        answers = await asyncio.gather(*(p.request(272, step, flags=0xD0) for p in (peer, other) * 3))
        for again in answers:
            assert again.result == 2001
            assert again.all(456) == first.all(456)
    assert account.totals() == (10_000, 1010, 0, 8990)
    await other.close()


async def test_several_services_have_their_own_quota(account: Any, peer: Peer) -> None:
    account.grant(3000)
    account.grant(100, "seconds")
    name = session(peer)
    services = [
        mscc(want=[], group=1, more=avp(439, 7)),
        mscc(want=[avp(420, 30)], group=3),
        mscc(want=[], group=9),
        mscc(want=[], group=77),
        mscc(want=[], group=1, more=avp(439, 8)),
    ]
    one = await peer.request(272, peer.ccr(INITIAL, 0, name, *services, imsi=account.imsi))
    found = {}
    for group in one.all(456):
        from diameter_peer import avps

        members = avps(group)
        found[next(int.from_bytes(v) for c, _, v in members if c == 432)] = members
    assert set(found) == {1, 3, 9, 77}
    codes = {n: next(int.from_bytes(v) for c, _, v in m if c == 268) for n, m in found.items()}
    assert codes == {1: 2001, 3: 2001, 9: 4011, 77: 5031}
    assert [int.from_bytes(v) for c, _, v in found[1] if c == 439] == [7, 8]
    assert (3, 868) not in found[3]
    assert [c for c, vendor, _ in found[3] if vendor == 10415] == [868]
    await peer.request(272, peer.ccr(TERMINATION, 1, name, mscc(used=[avp(420, 12)], group=3), imsi=account.imsi))
    assert account.totals("seconds") == (100, 12, 0, 88)
    assert account.totals() == (3000, 0, 0, 3000)


async def test_units_at_the_level_of_the_command(account: Any, peer: Peer) -> None:
    account.grant(1500)
    name = session(peer)
    one = await peer.request(272, peer.ccr(INITIAL, 0, name, avp(437, [octets(1000)]), imsi=account.imsi))
    assert (one.result, one.number(431, 421), one.number(448), one.all(456)) == (2001, 1000, 3600, [])
    used = avp(446, [octets(400)]) + avp(446, [octets(600)])
    two = await peer.request(272, peer.ccr(UPDATE, 1, name, used, avp(437, []), imsi=account.imsi))
    assert (two.result, two.number(431, 421), two.number(430, 449)) == (2001, 500, 0)
    three = await peer.request(272, peer.ccr(UPDATE, 2, name, avp(446, [octets(500)]), avp(437, []), imsi=account.imsi))
    assert (three.result, three.all(431)) == (4012, [])


async def test_who_is_not_known(account: Any, peer: Peer) -> None:
    account.grant(1000)
    name = session(peer)
    unknown = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi="999999999999999"))
    assert (unknown.result, unknown.flags) == (5030, 0x40)
    orphan = await peer.request(272, peer.ccr(UPDATE, 1, name, mscc(want=[]), imsi=account.imsi))
    assert (orphan.result, orphan.all(263)) == (5002, [name.encode()])
    nobody = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=None))
    assert (nobody.result, len(nobody.all(279, 443))) == (5005, 1)
    number = avp(443, [avp(450, 0), avp(444, "+" + account.msisdn)])
    known = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=None, more=number))
    assert (known.result, known.number(456, 431, 421)) == (2001, 1000)
    # An update need not say again whose session it is.
    bare = await peer.request(272, peer.ccr(UPDATE, 1, name, mscc(want=[], used=[octets(1)]), imsi=None))
    assert (bare.result, account.totals()[1]) == (2001, 1)
    mixed = await peer.request(272, peer.ccr(TERMINATION, 1, name, imsi=account.imsi))
    assert (mixed.result, mixed.number(279, 415)) == (5004, 1)


async def test_a_suspended_account_is_denied_and_its_peer_is_told(account: Any, peer: Peer) -> None:
    account.grant(3000)
    name = session(peer)
    await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
    account.status("suspended")
    abort = await asyncio.wait_for(peer.requests.get(), 30)
    assert (abort.command, abort.application, abort.all(263), abort.all(293)) == (
        274, 4, [name.encode()], [peer.host.encode()]
    )  # fmt: skip
    peer.writer.write(answer_to(abort, 2001))
    denied = await peer.request(272, peer.ccr(UPDATE, 1, name, mscc(want=[], used=[octets(5)]), imsi=account.imsi))
    assert (denied.result, denied.number(456, 268)) == (2001, 4010)


async def test_a_slowed_quota_restricts_access(account: Any, peer: Peer) -> None:
    account.grant(5000, throttle="dl=512000;ul=256000")
    answer = await peer.request(272, peer.ccr(INITIAL, 0, session(peer), mscc(want=[]), imsi=account.imsi))
    assert (answer.number(456, 431, 421), answer.number(456, 430, 449)) == (1000, 2)
    assert b"throttle;dl=512000;ul=256000" in answer.all(456, 430, 11)


async def test_a_top_up_re_authorizes_who_waits(account: Any, peer: Peer) -> None:
    name = session(peer)
    starved = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
    assert (starved.result, starved.number(456, 268)) == (2001, 4012)
    account.grant(5000)
    told = await asyncio.wait_for(peer.requests.get(), 30)
    assert (told.command, told.number(285), told.number(432), told.all(263)) == (258, 0, 1, [name.encode()])
    peer.writer.write(answer_to(told, 2002))
    again = await peer.request(272, peer.ccr(UPDATE, 1, name, mscc(want=[]), imsi=account.imsi))
    assert again.number(456, 431, 421) == 1000


def answer_to(request: Any, result: int) -> bytes:
    from diameter_peer import message

    body = avp(263, request.all(263)[0]) + avp(268, result) + avp(264, "smf.test") + avp(296, "test")
    return message(request.command, body, flags=0x40, hop=request.hop, end=request.end)


async def test_direct_debit_is_all_or_nothing_and_once(account: Any, peer: Peer) -> None:
    account.grant(7, "messages")
    name = session(peer)

    def debit(number: int, amount: int | None, where: str) -> bytes:
        unit = avp(437, [] if amount is None else [avp(417, amount, wide=True)]) + avp(432, 4)
        return peer.ccr(EVENT, number, where, unit, imsi=account.imsi, more=avp(436, DEBIT))

    one = await peer.request(272, debit(0, 5, name))
    assert (one.result, one.number(431, 417)) == (2001, 5)
    again = await peer.request(272, debit(0, 5, name), flags=0xD0)
    assert (again.result, account.totals("messages")) == (2001, (7, 5, 0, 2))
    short = await peer.request(272, debit(0, 3, session(peer)))
    assert (short.result, short.all(431), account.totals("messages")) == (4012, [], (7, 5, 0, 2))
    single = await peer.request(272, debit(0, None, session(peer)))
    assert (single.result, account.totals("messages")) == (2001, (7, 6, 0, 1))


async def test_refund_balance_and_price(account: Any, peer: Peer) -> None:
    name = session(peer)
    ask = avp(437, [avp(417, 3, wide=True)]) + avp(432, 4)

    def event(action: int, where: str = name) -> bytes:
        return peer.ccr(EVENT, 0, where, ask, imsi=account.imsi, more=avp(436, action))

    assert (await peer.request(272, event(BALANCE))).number(422) == 1
    for _ in range(3):
        refunded = await peer.request(272, event(REFUND), flags=0xD0)
        assert (refunded.result, refunded.number(431, 417)) == (2001, 3)
    assert account.totals("messages") == (3, 0, 0, 3)
    assert (await peer.request(272, event(BALANCE))).number(422) == 0
    assert (await peer.request(272, event(PRICE))).result == 5031


@pytest.mark.parametrize(
    ("digits", "exponent", "currency", "result", "used"),
    [(150, -2, 978, 2001, 150), (2, 0, 978, 2001, 200), (1, -3, 978, 5004, 0), (150, -2, 826, 5004, 0)],
)
async def test_money_is_whole_cents_of_the_accounts_currency(
    account: Any, peer: Peer, digits: int, exponent: int, currency: int, result: int, used: int
) -> None:
    account.grant(500, "minor")
    value = avp(445, [avp(447, digits, wide=True), avp(429, exponent & 0xFFFFFFFF)])
    money = avp(437, [avp(413, [value, avp(425, currency)])])
    one = await peer.request(272, peer.ccr(EVENT, 0, session(peer), money, imsi=account.imsi, more=avp(436, DEBIT)))
    assert (one.result, account.totals("minor")[1]) == (result, used)
    if result == 2001:
        assert one.number(431, 413, 445, 447) == digits


async def test_concurrent_sessions_of_one_account_never_overspend(account: Any, peer: Peer) -> None:
    account.grant(20_000)

    async def walk() -> int:
        name, used = session(peer), 0
        one = await peer.request(272, peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
        for number in range(1, 6):
            got = one.number(456, 431, 421)
            if not got:
                break
            used += got
            one = await peer.request(
                272, peer.ccr(UPDATE, number, name, mscc(want=[], used=[octets(got)]), imsi=account.imsi)
            )
        await peer.request(272, peer.ccr(TERMINATION, 6, name, imsi=account.imsi))
        return used

    used = sum(await asyncio.gather(*(walk() for _ in range(8))))
    assert account.totals() == (20_000, used, 0, 20_000 - used)
    assert used >= 15_000


async def test_a_killed_replica_loses_and_doubles_nothing(account: Any, ocs: Any) -> None:
    """kill -9 with requests under way; what was not answered is sent again to another replica."""
    account.grant(10**7)
    victim = ocs.start()
    peer, other = await Peer.open(ocs.diameter[victim], "pgw.test"), await Peer.open(ocs.diameter[1], "pgw.test")
    used = 0
    repeated = 0

    async def ask(body: bytes) -> None:
        nonlocal repeated
        try:
            answer = await peer.request(272, body)
        except (asyncio.CancelledError, ConnectionError, TimeoutError):
            repeated += 1
            answer = await other.request(272, body, flags=0xD0)
        assert answer.result == 2001

    async def walk(worker: int) -> None:
        nonlocal used
        name = f"pgw.test;{uuid.uuid4().int % 2**32};{worker}"
        await ask(peer.ccr(INITIAL, 0, name, mscc(want=[]), imsi=account.imsi))
        for number in range(1, 31):
            used += 100 + worker
            await ask(peer.ccr(UPDATE, number, name, mscc(want=[], used=[octets(100 + worker)]), imsi=account.imsi))
            if (worker, number) == (3, 10):
                ocs.processes[victim].kill()
        await ask(peer.ccr(TERMINATION, 31, name, imsi=account.imsi))

    await asyncio.gather(*(walk(worker) for worker in range(8)))
    assert repeated >= 8
    assert account.totals() == (10**7, used, 0, 10**7 - used)
    await other.close()
