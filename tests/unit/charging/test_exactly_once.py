"""Repeats, overtaking, gaps, twins, ends: each request counts once, whatever the order and the replica."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import pytest

NCHF = "/nchf-convergedcharging/v3/chargingdata"


async def test_repeats_get_the_first_answer_to_the_letter_from_any_replica(tenant: Any) -> None:
    await tenant.put()
    both = (tenant.one, tenant.two)
    creates = await asyncio.gather(*(c.post(NCHF, json=tenant.body(0, chargingId=7)) for c in both * 8))
    assert len({(c.status_code, c.headers["location"], c.content) for c in creates}) == 1
    assert await tenant.totals() == (2500, 0, 1000, 1500)
    where = creates[0].headers["location"]
    updates = await asyncio.gather(*(c.post(f"{where}/update", json=tenant.body(1, 400)) for c in both * 16))
    assert len({(u.status_code, u.content) for u in updates}) == 1 and updates[0].status_code == 200
    assert await tenant.totals() == (2500, 400, 1000, 1100)
    releases = await asyncio.gather(*(c.post(f"{where}/release", json=tenant.body(2, 100, None)) for c in both * 8))
    assert {(r.status_code, r.content) for r in releases} == {(204, b"")}
    assert await tenant.totals() == (2500, 500, 0, 2000)
    # Long after, with another time stamp in the request: the stored answers still stand.
    for path, body, first in (
        (NCHF, tenant.body(0, chargingId=7), creates[0]),
        (f"{where}/update", tenant.body(1, 400), updates[0]),
    ):
        again = await tenant.two.post(path, json=body)
        assert (again.status_code, again.content) == (first.status_code, first.content)
    assert await tenant.totals() == (2500, 500, 0, 2000)


async def test_a_repeat_with_another_content_is_a_repeat(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    first = await tenant.one.post(f"{where}/update", json=tenant.body(1, 100))
    again = await tenant.one.post(f"{where}/update", json=tenant.body(1, 999))
    assert again.content == first.content and (await tenant.totals())[1] == 100


async def test_a_number_that_served_another_operation_is_refused(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    await tenant.update(where, 1, 100)
    for sequence in (0, 1):
        answer = await tenant.one.post(f"{where}/release", json=tenant.body(sequence, 50, None))
        assert answer.status_code == 400
        assert answer.json()["invalidParams"][0]["param"] == "invocationSequenceNumber"
    assert await tenant.totals() == (2500, 100, 1000, 1400)
    await tenant.release(where, 2, 50)
    assert await tenant.totals() == (2500, 150, 0, 2350)


async def test_an_overtaken_request_counts_and_leaves_the_newer_quota_alone(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    newer = await tenant.update(where, 3, 200)
    assert newer["grantedUnit"] == {"totalVolume": 1000}
    late = await tenant.update(where, 2, 300)
    assert late == {"ratingGroup": 1, "resultCode": "SUCCESS"}
    assert await tenant.totals() == (2500, 500, 1000, 1000)
    # The gap (1) may still come, and the one after the newest goes on as usual.
    await tenant.update(where, 1, 10)
    assert (await tenant.update(where, 4, 1000))["grantedUnit"] == {"totalVolume": 990}
    assert await tenant.totals() == (2500, 1510, 990, 0)


async def test_late_use_beyond_what_is_free_comes_out_of_the_own_quota(tenant: Any) -> None:
    await tenant.put(1200)
    where, _ = await tenant.create()
    await tenant.update(where, 2, 0)
    await tenant.update(where, 1, 700)
    assert await tenant.totals() == (1200, 700, 500, 0)


async def test_groups_that_overtake_each_other_are_each_in_order(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create(want=100)
    assert (await tenant.update(where, 2, 50, group=1, want=100))["grantedUnit"] == {"totalVolume": 100}
    assert (await tenant.update(where, 1, None, group=2, want=70))["grantedUnit"] == {"totalVolume": 70}
    assert await tenant.totals() == (2500, 50, 170, 2280)


async def test_use_that_comes_after_the_release_counts_and_gets_no_quota(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    await tenant.release(where, 2, 100)
    assert (await tenant.update(where, 1, 40))["resultCode"] in ("SUCCESS", "END_USER_SERVICE_DENIED")
    assert (await tenant.update(where, 3, 5))["resultCode"] == "END_USER_SERVICE_DENIED"
    assert await tenant.totals() == (2500, 145, 0, 2355)


@pytest.mark.parametrize("verb", ["update", "release"])
async def test_an_unknown_session_is_not_found(tenant: Any, verb: str) -> None:
    await tenant.put()
    answer = await tenant.one.post(f"{NCHF}/{uuid.uuid4()}/{verb}", json=tenant.body(1, 5, None))
    assert (answer.status_code, answer.json()["cause"]) == (404, "CONTEXT_NOT_FOUND")


async def test_a_charging_id_used_again_is_a_new_session(tenant: Any) -> None:
    await tenant.put()
    first, _ = await tenant.create(invocationTimeStamp="2026-01-01T00:00:00Z")
    # A retry with a new time stamp, before anything else happened: still the same session.
    assert (await tenant.create(invocationTimeStamp="2026-01-01T00:00:05Z"))[0] == first
    await tenant.update(first, 1, 100)
    # A copy that was long under way, and one that says of itself that it is one: the same.
    assert (await tenant.create(invocationTimeStamp="2025-12-31T23:59:59Z"))[0] == first
    marked = await tenant.create(invocationTimeStamp="2026-01-01T00:10:00Z", retransmissionIndicator=True)
    assert marked[0] == first
    # The consumer lost its memory and starts anew: the old session's quota comes back.
    second, _ = await tenant.create(invocationTimeStamp="2026-01-01T01:00:00Z")
    assert second != first
    assert await tenant.totals() == (2500, 100, 1000, 1400)
    await tenant.update(second, 1, 200)
    await tenant.release(second, 2)
    assert await tenant.totals() == (2500, 300, 0, 2200)
    third, _ = await tenant.create(invocationTimeStamp="2026-01-01T02:00:00Z")
    assert third not in (first, second)


async def test_without_a_charging_id_the_time_stamp_tells_sessions_apart(tenant: Any) -> None:
    await tenant.put()
    body = tenant.body(0, want=10)
    refs = [(await tenant.one.post(NCHF, json=body)).headers["location"] for _ in range(2)]
    other = await tenant.one.post(NCHF, json={**body, "invocationTimeStamp": "2026-01-01T00:00:01Z"})
    assert refs[0] == refs[1] != other.headers["location"]


async def test_a_dead_session_gives_back_and_comes_to_life_again(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    ref = uuid.UUID(where.rsplit("/", 1)[1])

    async def sweep() -> None:
        while await tenant.database.fetchval("SELECT close_expired()"):
            pass

    await tenant.database.execute("UPDATE session SET check_at = now() - interval '1 s' WHERE ref = $1", ref)
    await sweep()
    assert (await tenant.totals())[2] == 1000, "looked at early: it lives"
    await tenant.database.execute(
        "UPDATE session SET check_at = now() - interval '1 s', expires_at = now() - interval '1 s' WHERE ref = $1", ref
    )
    await sweep()
    assert await tenant.totals() == (2500, 0, 0, 2500)
    assert (await tenant.usage())["sessions"][0]["endedAt"] is not None
    # It was only quiet: what it used counts, and it goes on.
    assert (await tenant.update(where, 1, 70))["grantedUnit"] == {"totalVolume": 1000}
    assert (await tenant.usage())["sessions"][0]["endedAt"] is None
    assert await tenant.totals() == (2500, 70, 1000, 1430)


async def test_who_holds_quota_expires_after_its_validity_and_who_holds_none_much_later(tenant: Any) -> None:
    await tenant.put(1000)
    where, _ = await tenant.create()
    starved, _ = await tenant.create(8)
    seconds = "SELECT extract(epoch FROM expires_at - now()) FROM session WHERE ref = $1"
    holder = await tenant.database.fetchval(seconds, uuid.UUID(where.rsplit("/", 1)[1]))
    waiting = await tenant.database.fetchval(seconds, uuid.UUID(starved.rsplit("/", 1)[1]))
    assert 3600 < holder <= 3660 and 86_000 < waiting <= 86_400


async def test_forgotten_sessions_are_unknown_and_never_charged_again(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    await tenant.release(where, 1, 100)
    await tenant.database.execute(
        "UPDATE session SET ended_at = now() - interval '30 days' WHERE ref = $1", uuid.UUID(where.rsplit("/", 1)[1])
    )
    assert await tenant.database.fetchval("SELECT purge_ended(86400, 10)") >= 1
    again = await tenant.one.post(f"{where}/release", json=tenant.body(1, 100, None))
    assert again.status_code == 404 and (await tenant.totals())[1] == 100


async def test_entries_are_final(tenant: Any) -> None:
    await tenant.put()
    for statement in ("UPDATE entry SET amount = 1", "DELETE FROM entry", "TRUNCATE entry"):
        with pytest.raises(Exception, match="append-only"):
            await tenant.database.execute(statement)


async def test_shared_balance_under_many_sessions(tenant: Any) -> None:
    """A family on one account, reports of ten sessions mixed, repeated and from both replicas."""
    await tenant.put(1_000_000)
    order = random.Random(7)
    sessions = [(await tenant.create(n, want=500))[0] for n in range(10)]
    reports = [(where, sequence, order.randrange(1, 400)) for where in sessions for sequence in range(1, 9)]
    sent = reports + order.sample(reports, 20)
    order.shuffle(sent)
    gate = asyncio.Semaphore(30)

    async def report(where: str, sequence: int, used: int) -> None:
        async with gate:
            client = order.choice((tenant.one, tenant.two))
            assert (await client.post(f"{where}/update", json=tenant.body(sequence, used))).status_code == 200

    await asyncio.gather(*(report(*one) for one in sent))
    used = sum(used for _, _, used in reports)
    assert (await tenant.totals())[:2] == (1_000_000, used)
    await asyncio.gather(*(tenant.release(where, 9) for where in sessions))
    assert await tenant.totals() == (1_000_000, used, 0, 1_000_000 - used)
