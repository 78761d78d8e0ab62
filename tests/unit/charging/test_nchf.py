"""Nchf_ConvergedCharging against real processes: quota, denial, isolation, bad input."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
import uuid
from typing import Any

import httpx
import pytest

from mvnobox.charging.schemas import ChargingDataResponse, ProblemDetails

NCHF = "/nchf-convergedcharging/v3/chargingdata"


async def test_quota_is_held_used_and_given_back(tenant: Any) -> None:
    await tenant.put(2500)
    where, first = await tenant.create()
    assert first == {
        "ratingGroup": 1,
        "resultCode": "SUCCESS",
        "grantedUnit": {"totalVolume": 1000},
        "validityTime": 3600,
        "volumeQuotaThreshold": 200,
    }
    assert await tenant.totals() == (2500, 0, 1000, 1500)
    await tenant.update(where, 1, 900)
    assert await tenant.totals() == (2500, 900, 1000, 600)
    last = await tenant.update(where, 2, 1000)
    assert last["grantedUnit"] == {"totalVolume": 600}
    assert last["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}
    denied = await tenant.update(where, 3, 600)
    assert denied == {"ratingGroup": 1, "resultCode": "QUOTA_LIMIT_REACHED"}
    await tenant.release(where, 4, 30)
    # 30 octets slipped through after the end: told, but nobody's balance is below zero.
    assert await tenant.totals() == (2500, 2500, 0, 0)
    usage = await tenant.usage()
    assert usage["totals"] == {"octets": 2530} and usage["sessions"][0]["used"] == 2530
    assert usage["sessions"][0]["denied"] == 1 and usage["sessions"][0]["endedAt"]
    overrun = await tenant.database.fetch(
        "SELECT e.amount FROM entry e JOIN account USING (aid) WHERE brand = $1 AND debit = 'overrun'", tenant.brand
    )
    assert [row["amount"] for row in overrun] == [30]


async def test_fair_use_slows_and_a_top_up_is_quick_again(tenant: Any) -> None:
    slow = {"finalUnitAction": "RESTRICT_ACCESS", "filterIdList": ["throttle;dl=512000;ul=256000"]}
    await tenant.put(1500, status="active")
    await tenant.grant(10**15, priority=900, throttle="dl=512000;ul=256000", source="plan:test:slowed")
    # A port that nobody listens on: what is owed stays.
    where, first = await tenant.create(notifyUri="http://127.0.0.1:9/told")
    assert first["grantedUnit"] == {"totalVolume": 1000} and "finalUnitIndication" not in first
    # What is left at full speed comes by itself, and is not the last.
    rest = await tenant.update(where, 1, 1000)
    assert rest["grantedUnit"] == {"totalVolume": 500} and "finalUnitIndication" not in rest
    slowed = await tenant.update(where, 2, 500)
    assert slowed["grantedUnit"] == {"totalVolume": 1000} and slowed["finalUnitIndication"] == slow
    # A top-up comes before it in the order, and what is held of the slowed bucket is given back.
    await tenant.grant(50, throttle="dl=1;ul=1", priority=901)
    owed = "SELECT body ->> 'notificationType' FROM outbox WHERE ref = $1"
    ref = uuid.UUID(where.rsplit("/", 1)[1])
    assert await tenant.database.fetchval(owed, ref) is None
    await tenant.grant(700, source="topup:test", priority=20)
    assert await tenant.database.fetchval(owed, ref) == "REAUTHORIZATION"
    quick = await tenant.update(where, 3, 100)
    assert quick["grantedUnit"] == {"totalVolume": 700} and "finalUnitIndication" not in quick
    # What was used before the top-up was paid by the slowed bucket that it was promised from.
    paid = {
        b["source"]: (b["used"], b["held"])
        for b in (await tenant.one.get("/ocs/v1/accounts/a1/balances")).json()["buckets"]
    }
    paid = {source: paid[source] for source in ("plan:test:slowed", "topup:test")}
    assert paid == {"plan:test:slowed": (100, 0), "topup:test": (0, 700)}
    await tenant.release(where, 4, 700)
    for wrong in ("fast", "dl=0;ul=1", "dl=1"):
        assert (await tenant.grant(1, throttle=wrong)).status_code == 400


async def test_the_answers_are_those_of_ts_32291(tenant: Any) -> None:
    await tenant.put()
    created = await tenant.one.post(NCHF, json=tenant.body(5, chargingId=1))
    parsed = ChargingDataResponse.model_validate_json(created.content)
    assert parsed.invocation_sequence_number == 5
    assert abs(parsed.invocation_time_stamp - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert created.headers["content-type"] == "application/json"
    assert uuid.UUID(created.headers["location"].removeprefix(NCHF + "/")).version == 7
    problem = await tenant.one.post(f"{NCHF}/{uuid.uuid4()}/update", json=tenant.body(1))
    assert problem.headers["content-type"] == "application/problem+json"
    assert ProblemDetails.model_validate_json(problem.content).cause == "CONTEXT_NOT_FOUND"


async def test_overshoot_is_debited_from_what_is_free(tenant: Any) -> None:
    await tenant.put(2500)
    where, _ = await tenant.create()
    await tenant.update(where, 1, 1700, want=None)
    assert await tenant.totals() == (2500, 1700, 0, 800)


async def test_what_is_asked_is_given_up_to_the_slice(tenant: Any) -> None:
    await tenant.put(5000)
    where, small = await tenant.create(want=300)
    assert small["grantedUnit"] == {"totalVolume": 300} and small["volumeQuotaThreshold"] == 60
    large = await tenant.update(where, 1, want=10**9)
    assert large["grantedUnit"] == {"totalVolume": 1000}


async def test_buckets_pay_by_priority_then_by_earliest_end(tenant: Any) -> None:
    await tenant.put(0)
    soon, later = (dt.datetime.now(dt.UTC) + dt.timedelta(days=n) for n in (1, 2))
    for source, priority, until in (
        ("plan:c", 10, None),
        ("plan:b", 10, later),
        ("plan:a", 10, soon),
        ("topup:z", 20, soon),
    ):
        await tenant.grant(
            400, source=source, priority=priority, validUntil=until.isoformat() if until is not None else None
        )
    where, _ = await tenant.create()
    await tenant.update(where, 1, 900, want=None)
    found = (await tenant.one.get("/ocs/v1/accounts/a1/balances")).json()["buckets"]
    assert [(b["source"], b["used"], b["held"]) for b in found] == [
        ("plan:a", 400, 0), ("plan:b", 400, 0), ("plan:c", 100, 0), ("topup:z", 0, 0),
    ]  # fmt: skip


async def test_time_and_several_rating_groups(tenant: Any) -> None:
    await tenant.put(2500)
    await tenant.grant(90, unit="seconds")
    body = tenant.body(0, chargingId=1)
    body["multipleUnitUsage"] += [
        {"ratingGroup": 2, "requestedUnit": {}},
        {"ratingGroup": 3, "requestedUnit": {"time": 60}},
        {"ratingGroup": 4294967295, "requestedUnit": {}},
        {"ratingGroup": 1, "requestedUnit": {}},
    ]
    answer = await tenant.one.post(NCHF, json=body)
    told = answer.json()["multipleUnitInformation"]
    assert [(i["ratingGroup"], i["resultCode"], i.get("grantedUnit")) for i in told] == [
        (1, "SUCCESS", {"totalVolume": 1000}),
        (2, "SUCCESS", {"totalVolume": 1000}),
        (3, "SUCCESS", {"time": 60}),
        (4294967295, "RATING_FAILED", None),
    ]
    assert told[2]["timeQuotaThreshold"] == 12
    # A release gives back what the other groups hold, too.
    last = tenant.body(1, 10, want=None)
    last["multipleUnitUsage"].append({"ratingGroup": 3, "usedUnitContainer": [{"localSequenceNumber": 1, "time": 45}]})
    assert (await tenant.one.post(answer.headers["location"] + "/release", json=last)).status_code == 204
    assert await tenant.totals() == (2500, 10, 0, 2490)
    assert await tenant.totals("seconds") == (90, 45, 0, 45)
    usage = await tenant.usage()
    assert usage["totals"] == {"octets": 10, "seconds": 45}
    assert {(s["unit"], s["used"]) for s in usage["sessions"]} == {("octets", 10), ("seconds", 45)}


async def test_who_has_no_account_is_unknown_and_who_has_no_credit_is_not(tenant: Any) -> None:
    unknown = await tenant.one.post(NCHF, json=tenant.body(0))
    assert (unknown.status_code, unknown.json()["cause"]) == (404, "USER_UNKNOWN")
    await tenant.put(0)
    _, information = await tenant.create()
    assert information == {"ratingGroup": 1, "resultCode": "QUOTA_LIMIT_REACHED"}


async def test_ended_buckets_pay_nothing_and_lapse(tenant: Any) -> None:
    await tenant.put(0)
    await tenant.grant(700, validUntil=(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat())
    where, held = await tenant.create(want=200)
    assert held["grantedUnit"] == {"totalVolume": 200}
    await tenant.database.execute(
        "UPDATE bucket SET valid_until = now() - interval '1 s' FROM account a WHERE a.aid = bucket.aid AND brand = $1",
        tenant.brand,
    )
    assert await tenant.totals() == (700, 0, 200, 0)
    # What was promised while it was valid is paid from it; nothing new is.
    assert (await tenant.update(where, 1, 150))["resultCode"] == "QUOTA_LIMIT_REACHED"
    while await tenant.database.fetchval("SELECT lapse_ended()"):
        pass
    bucket = (await tenant.one.get("/ocs/v1/accounts/a1/balances")).json()["buckets"][0]
    assert (bucket["used"], bucket["held"], bucket["available"], bucket["expired"]) == (150, 0, 0, 550)
    row = await tenant.database.fetchrow("SELECT lapsed, spent FROM bucket WHERE id = $1", bucket["id"])
    assert tuple(row) == (550, True)


async def test_suspended_accounts_get_nothing(tenant: Any) -> None:
    await tenant.put(2500)
    where, _ = await tenant.create()
    assert (await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "suspended"})).status_code == 200
    assert (await tenant.update(where, 1, 100))["resultCode"] == "END_USER_SERVICE_DENIED"
    assert await tenant.totals() == (2500, 100, 0, 2400)
    await tenant.one.patch("/ocs/v1/accounts/a1", json={"status": "active"})
    assert (await tenant.update(where, 2))["resultCode"] == "SUCCESS"


async def test_brands_do_not_see_each_other(tenant: Any, shared: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    async with shared.client("beta") as beta:
        assert (await beta.get("/ocs/v1/accounts/a1/balances")).status_code == 404
        assert (await beta.get("/ocs/v1/accounts/a1/usage")).status_code == 404
        assert (await beta.patch("/ocs/v1/accounts/a1", json={"status": "terminated"})).status_code == 404
        grant = {"requestId": str(uuid.uuid4()), "buckets": [{"unit": "octets", "amount": 1, "source": "plan:x"}]}
        assert (await beta.post("/ocs/v1/accounts/a1/grants", json=grant)).status_code == 404
        assert (await beta.post(NCHF, json=tenant.body(0))).json()["cause"] == "USER_UNKNOWN"
        for verb in ("update", "release"):
            assert (await beta.post(f"{where}/{verb}", json=tenant.body(1, used=5))).status_code == 404
        taken = await beta.put("/ocs/v1/accounts/b1", json={"subscriberIds": [tenant.imsi], "currency": "CAD"})
        assert taken.status_code == 409
        assert (await beta.get("/ocs/v1/accounts/b1/balances")).status_code == 404
    assert await tenant.totals() == (2500, 0, 1000, 1500)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer alpha.00", "Basic eDp5", "Bearer .", "Bearer é.é", "Bearer \xff.\xff"]
)
async def test_without_a_token_nothing_works(tenant: Any, authorization: str) -> None:
    headers = {"Authorization": authorization.encode("latin-1")}
    for answer in (
        await tenant.one.post(NCHF, json=tenant.body(0), headers=headers),
        await tenant.one.get("/ocs/v1/accounts/a1/balances", headers=headers),
    ):
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"multipleUnitUsage": [{"ratingGroup": 1, "usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": -5}]}]}, "multipleUnitUsage.0.usedUnitContainer.0.totalVolume"),
        ({"multipleUnitUsage": [{"ratingGroup": 1, "usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": 2**63}]}]}, "multipleUnitUsage.0.usedUnitContainer.0.totalVolume"),
        ({"multipleUnitUsage": [{"ratingGroup": 1, "usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": 2**53}] * 2}]}, "multipleUnitUsage"),
        ({"multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {"totalVolume": "5"}}]}, "multipleUnitUsage.0.requestedUnit.totalVolume"),
        ({"multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {"totalVolume": 5.5}}]}, "multipleUnitUsage.0.requestedUnit.totalVolume"),
        ({"multipleUnitUsage": [{"ratingGroup": 2**32}]}, "multipleUnitUsage.0.ratingGroup"),
        ({"multipleUnitUsage": [{"ratingGroup": 1}] * 51}, "multipleUnitUsage"),
        ({"invocationSequenceNumber": -1}, "invocationSequenceNumber"),
        ({"invocationSequenceNumber": None}, "invocationSequenceNumber"),
        ({"invocationTimeStamp": "yesterday"}, "invocationTimeStamp"),
        ({"subscriberIdentifier": "imsi-1; DROP TABLE account"}, "subscriberIdentifier"),
        ({"subscriberIdentifier": "nai-a\x00b"}, "subscriberIdentifier"),
        ({"subscriberIdentifier": None}, "subscriberIdentifier"),
        ({"nfConsumerIdentification": {"nodeFunctionality": "SM\x00F"}}, "nfConsumerIdentification.nodeFunctionality"),
        ({"notifyUri": "file:///etc/passwd"}, "notifyUri"),
        ({"notifyUri": "http://["}, "notifyUri"),
        ({"notifyUri": "http://a b/\r\nX: y"}, "notifyUri"),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_in_the_protocols_own_words(tenant: Any, change: dict[str, Any], param: str) -> None:
    await tenant.put()
    answer = await tenant.one.post(NCHF, json={**tenant.body(0), **change})
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/problem+json"
    assert param in [one["param"] for one in answer.json()["invalidParams"]]
    assert tenant.imsi not in answer.text
    assert await tenant.totals() == (2500, 0, 0, 2500)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"{" * 5000, b"[" * 60_000, b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"\x00"],
)
async def test_what_is_no_request_is_refused(tenant: Any, content: bytes) -> None:
    answer = await tenant.one.post(NCHF, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["cause"], answer.text


async def test_large_bodies_are_refused_announced_or_not(tenant: Any) -> None:
    async def pieces() -> Any:
        for _ in range(20):
            yield b" " * 5000

    headers = {"content-type": "application/json"}
    for path in (NCHF, "/ocs/v1/accounts/a1/grants"):
        assert (await tenant.one.post(path, content=b" " * 70_000, headers=headers)).status_code == 413
        assert (await tenant.one.post(path, content=pieces(), headers=headers)).status_code == 413
    assert (await tenant.one.get("/healthz")).status_code == 200


async def test_other_methods_paths_and_types(tenant: Any) -> None:
    await tenant.put()
    where, _ = await tenant.create()
    assert (await tenant.one.get(NCHF)).status_code == 405
    assert (await tenant.one.post(f"{where}/renew", json=tenant.body(1))).status_code == 404
    assert (await tenant.one.post(f"{NCHF}/not-a-ref/update", json=tenant.body(1))).status_code == 404
    assert (await tenant.one.post(f"{NCHF}sX", json=tenant.body(1))).status_code == 404
    text = await tenant.one.post(NCHF, content=json.dumps(tenant.body(1)), headers={"content-type": "text/plain"})
    assert text.status_code == 415
    typed = await tenant.one.post(
        NCHF, content=json.dumps(tenant.body(1)), headers={"content-type": "application/json; charset=utf-8"}
    )
    assert typed.status_code == 201


async def test_unknown_attributes_of_later_releases_are_ignored(tenant: Any) -> None:
    await tenant.put()
    answer = await tenant.one.post(NCHF, json=tenant.body(0, futureThing={"a": [1]}, tenantIdentifier="x"))
    assert answer.status_code == 201


async def test_http2_with_prior_knowledge(shared: Any, tenant: Any) -> None:
    await tenant.put(10_000)
    async with shared.client(tenant.brand, http1=False, http2=True) as client:
        answers = await asyncio.gather(
            *(client.post(NCHF, json=tenant.body(0, chargingId=n, want=10)) for n in range(40))
        )
    assert {a.http_version for a in answers} == {"HTTP/2"} and {a.status_code for a in answers} == {201}
    assert (await tenant.totals())[2] == 400


async def test_garbage_on_the_port_harms_nobody(shared: Any, tenant: Any) -> None:
    await tenant.put()
    for garbage in (
        b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 50,
        b"POST / HTTP/9\r\n\r\n",
        b"GET",
    ):
        with socket.create_connection(("127.0.0.1", shared.ports[0])) as raw:
            raw.sendall(garbage)
    where, _ = await tenant.create()
    assert (await tenant.update(where, 1, 5))["resultCode"] == "SUCCESS"


async def test_logs_name_no_subscriber_and_no_secret(shared: Any, tenant: Any) -> None:
    await tenant.put()
    await tenant.create()
    await tenant.one.post(NCHF, json=tenant.body(-1))
    log = "".join((shared.folder / f"ocs-{port}.log").read_text() for port in shared.ports)
    assert tenant.imsi.removeprefix("imsi-") not in log and "11111111" not in log and "shared" not in log


async def test_metrics_and_health(tenant: Any) -> None:
    await tenant.put()
    await tenant.create()
    async with httpx.AsyncClient(base_url=tenant.one.base_url) as anybody:
        assert (await anybody.get("/healthz")).text == "ok"
        assert (await anybody.get("/readyz")).text == "ready"
        metrics = (await anybody.get("/metrics")).text
        assert 'ocs_charging_requests_total{operation="create",result="done"}' in metrics
        document = (await anybody.get("/openapi.json")).json()
    assert {NCHF, NCHF + "/{ChargingDataRef}/update", "/ocs/v1/accounts/{account_id}/grants"} <= set(document["paths"])
    assert "422" not in json.dumps(list(document["paths"].values()))
