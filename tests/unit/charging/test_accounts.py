"""The management of accounts: idempotent, bounded, closed to unknown attributes."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest


async def test_an_account_is_made_once_and_replaced(tenant: Any) -> None:
    body = {"subscriberIds": [tenant.imsi], "currency": "EUR", "timezone": "Europe/Paris", "status": "active"}
    answers = await asyncio.gather(*(c.put("/ocs/v1/accounts/a1", json=body) for c in (tenant.one, tenant.two) * 4))
    assert sorted(a.status_code for a in answers) == [200] * 7 + [201]
    assert answers[0].json() == {"accountId": "a1", **body}
    other = {**body, "subscriberIds": [tenant.imsi + "9"[: 20 - len(tenant.imsi)]]}
    assert (await tenant.one.put("/ocs/v1/accounts/a1", json=other)).status_code in (200, 400)
    assert (await tenant.one.put("/ocs/v1/accounts/a1", json={**body, "currency": "CAD"})).status_code == 409


async def test_accounts_that_want_the_same_subscribers_do_not_lock_up(tenant: Any) -> None:
    ids = [f"{tenant.imsi[:-2]}{n:02}" for n in range(15)]
    bodies = [{"subscriberIds": order, "currency": "EUR"} for order in (ids, ids[::-1])]
    answers = await asyncio.gather(
        *(c.put(f"/ocs/v1/accounts/l{n}", json=bodies[n % 2]) for n in range(8) for c in (tenant.one, tenant.two))
    )
    assert sorted({a.status_code for a in answers}) in ([201, 409], [200, 201, 409])
    assert [a.status_code for a in answers].count(201) == 1


async def test_grants_are_once_a_request(tenant: Any) -> None:
    await tenant.put(0)
    identity = str(uuid.uuid4())
    answers = await asyncio.gather(*(tenant.grant(500, identity) for _ in range(10)))
    assert {a.status_code for a in answers} == {200} and len({a.content for a in answers}) == 1
    assert await tenant.totals() == (500, 0, 0, 500)
    assert (await tenant.grant(501, identity)).status_code == 409
    assert (await tenant.grant(500, identity)).content == answers[0].content


@pytest.mark.parametrize(
    "bucket",
    [
        {"amount": 0},
        {"amount": -1},
        {"amount": 2**53 + 1},
        {"amount": 1.5},
        {"amount": "5"},
        {"unit": "gallons"},
        {"validUntil": "2030-01-01T00:00:00"},
        {"validUntil": "soon"},
        {"priority": -1},
        {"source": ""},
        {"source": "a\x00b"},
        {"colour": "red"},
    ],
)
async def test_unfit_grants_change_nothing(tenant: Any, bucket: dict[str, Any]) -> None:
    await tenant.put(100)
    whole = {"unit": "octets", "amount": 5, "source": "topup:x", **bucket}
    body = {"requestId": str(uuid.uuid4()), "buckets": [{"unit": "octets", "amount": 7, "source": "topup:y"}, whole]}
    answer = await tenant.one.post("/ocs/v1/accounts/a1/grants", json=body)
    assert answer.status_code == 400 and answer.json()["invalidParams"][0]["param"].startswith("buckets.1.")
    assert await tenant.totals() == (100, 0, 0, 100)


async def test_more_than_the_ledger_can_count_is_refused(tenant: Any) -> None:
    await tenant.put(0)
    body = {"buckets": [{"unit": "octets", "amount": 2**53, "source": "topup:x"}] * 20}
    codes = [
        (await tenant.one.post("/ocs/v1/accounts/a1/grants", json={**body, "requestId": str(uuid.uuid4())})).status_code
        for _ in range(27)
    ]
    assert codes[:25] == [200] * 25 and codes[-1] == 400
    assert (await tenant.totals())[0] <= 2**62


@pytest.mark.parametrize(
    "change",
    [
        {"subscriberIds": []},
        {"subscriberIds": ["imsi-x"]},
        {"currency": "euro"},
        {"timezone": "Mars/Olympus"},
        {"status": "sleepy"},
        {"extra": 1},
    ],
)
async def test_unfit_accounts_are_refused(tenant: Any, change: dict[str, Any]) -> None:
    body = {"subscriberIds": [tenant.imsi], "currency": "EUR", **change}
    answer = await tenant.one.put("/ocs/v1/accounts/a1", json=body)
    assert answer.status_code == 400 and answer.json()["invalidParams"], answer.text
    assert (await tenant.one.get("/ocs/v1/accounts/a1/balances")).status_code == 404


@pytest.mark.parametrize("name", ["%00", "a%2Fb", "a" * 101, "%F0%9F%98%80", "a%20b"])
async def test_unfit_account_names_are_refused(tenant: Any, name: str) -> None:
    answer = await tenant.one.get(f"/ocs/v1/accounts/{name}/balances")
    assert answer.status_code in (400, 404) and answer.headers["content-type"] == "application/problem+json"


async def test_a_subscriber_that_left_is_unknown_and_may_come_back_elsewhere(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    second = tenant.imsi[:-1] + str((int(tenant.imsi[-1]) + 1) % 10)
    assert (await tenant.one.put("/ocs/v1/accounts/a1", json={"subscriberIds": [second], "currency": "EUR"})).is_success
    unknown = await tenant.one.post("/nchf-convergedcharging/v3/chargingdata", json=tenant.body(0, chargingId=9))
    assert unknown.status_code == 404
    tenant.account = "a2"
    await tenant.put(10)
    # The running session still belongs to the account that it began on.
    await tenant.update(where, 1, 100)
    assert (await tenant.totals())[1] == 0
    tenant.account = "a1"
    assert (await tenant.totals())[1] == 100


async def test_an_account_that_ends_leaves_its_subscribers_to_others(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    for _ in range(2):
        ended = await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "terminated"})
        assert ended.status_code == 200
    tenant.account = "a2"
    await tenant.put(10)
    # What the old line had under way is its own to the end.
    await tenant.update(where, 1, 100)
    await tenant.release(where, 2, 50)
    assert (await tenant.totals())[1] == 0
    tenant.account = "a1"
    assert (await tenant.totals())[1] == 150
    # Nothing but a new PUT brings an account back, and not with what is another's now.
    assert (await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "active"})).status_code == 409
    body = {"subscriberIds": [tenant.imsi], "currency": "EUR"}
    assert (await tenant.one.put("/ocs/v1/accounts/a1", json={**body, "status": "terminated"})).status_code == 200
    assert (await tenant.one.put("/ocs/v1/accounts/a1", json=body)).status_code == 409
    _, information = await tenant.create(9)
    assert information["resultCode"] == "SUCCESS"
