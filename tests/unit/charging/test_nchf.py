"""Nchf_ConvergedCharging against a real process: quota, denial, repeats, isolation, bad input."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import httpx
import pytest

NCHF = "/nchf-convergedcharging/v3/chargingdata"
IMSI = "imsi-208930000000001"


def request(sequence: int, used: int | None = None, want: int | None = 0, **more: Any) -> dict[str, Any]:
    usage: dict[str, Any] = {"ratingGroup": 1}
    if want is not None:
        usage["requestedUnit"] = {"totalVolume": want} if want else {}
    if used is not None:
        usage["usedUnitContainer"] = [{"localSequenceNumber": sequence, "totalVolume": used}]
    return {
        "subscriberIdentifier": IMSI,
        "nfConsumerIdentification": {"nodeFunctionality": "SMF", "nFName": "smf-1"},
        "invocationTimeStamp": "2026-01-01T00:00:00Z",
        "invocationSequenceNumber": sequence,
        "multipleUnitUsage": [usage],
        **more,
    }


async def account(client: httpx.AsyncClient, name: str = "a1", amount: int = 2500, imsi: str = IMSI) -> None:
    made = await client.put(f"/ocs/v1/accounts/{name}", json={"subscriberIds": [imsi], "currency": "EUR"})
    assert made.status_code == 201, made.text
    if amount:
        await grant(client, name, amount)


async def grant(client: httpx.AsyncClient, name: str, amount: int, request_id: str | None = None) -> httpx.Response:
    body = {
        "requestId": request_id or str(uuid.uuid4()),
        "buckets": [{"unit": "octets", "amount": amount, "source": "plan:test"}],
    }
    return await client.post(f"/ocs/v1/accounts/{name}/grants", json=body)


async def totals(client: httpx.AsyncClient, name: str = "a1") -> dict[str, int]:
    found = await client.get(f"/ocs/v1/accounts/{name}/balances")
    return found.json()["totals"]["octets"]


async def test_quota_is_held_used_and_given_back(ocs: Any) -> None:
    async with ocs.client() as client:
        await account(client)
        created = await client.post(NCHF, json=request(0, chargingId=7))
        assert created.status_code == 201
        first = created.json()["multipleUnitInformation"][0]
        assert first["resultCode"] == "SUCCESS" and first["grantedUnit"] == {"totalVolume": 1000}
        assert await totals(client) == {"granted": 2500, "used": 0, "held": 1000, "available": 1500}
        where = created.headers["location"]
        await client.post(f"{where}/update", json=request(1, used=900))
        assert await totals(client) == {"granted": 2500, "used": 900, "held": 1000, "available": 600}
        last = (await client.post(f"{where}/update", json=request(2, used=1000))).json()["multipleUnitInformation"][0]
        assert last["grantedUnit"] == {"totalVolume": 600}
        assert last["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}
        denied = (await client.post(f"{where}/update", json=request(3, used=600))).json()["multipleUnitInformation"][0]
        assert denied["resultCode"] == "QUOTA_LIMIT_REACHED" and "grantedUnit" not in denied
        assert (await client.post(f"{where}/release", json=request(4, used=30, want=None))).status_code == 204
        # 30 octets slipped through after the end: told, but nobody's balance is below zero.
        assert await totals(client) == {"granted": 2500, "used": 2500, "held": 0, "available": 0}
        usage = (await client.get("/ocs/v1/accounts/a1/usage")).json()
        assert usage["totals"] == {"octets": 2530} and usage["sessions"][0]["used"] == 2530
    checked = ocs.run("check")
    assert checked.returncode == 0 and "0 differences" in checked.stdout


async def test_repeats_get_the_first_answer_also_from_another_replica(ocs: Any) -> None:
    await ocs.start()
    async with ocs.client() as one, ocs.client(replica=1) as two:
        await account(one)
        creates = await asyncio.gather(*(c.post(NCHF, json=request(0, chargingId=7)) for c in (one, two) * 8))
        assert {c.headers["location"] for c in creates} == {creates[0].headers["location"]}
        assert (await totals(one))["held"] == 1000
        where = creates[0].headers["location"]
        updates = await asyncio.gather(*(c.post(f"{where}/update", json=request(1, used=400)) for c in (one, two) * 16))
        assert len({str(u.json()["multipleUnitInformation"]) for u in updates}) == 1
        assert (await totals(two))["used"] == 400
        releases = await asyncio.gather(
            *(c.post(f"{where}/release", json=request(2, used=100, want=None)) for c in (one, two) * 8)
        )
        assert {r.status_code for r in releases} == {204}
        assert await totals(one) == {"granted": 2500, "used": 500, "held": 0, "available": 2000}


async def test_a_killed_replica_loses_nothing(ocs: Any) -> None:
    await ocs.start()
    async with ocs.client() as one, ocs.client(replica=1) as two:
        await account(one, amount=10_000_000)
        where = (await one.post(NCHF, json=request(0, chargingId=7))).headers["location"]

        async def report(sequence: int) -> None:
            body = request(sequence, used=100)
            try:
                assert (await one.post(f"{where}/update", json=body)).status_code == 200
            except httpx.TransportError:
                assert (await two.post(f"{where}/update", json=body)).status_code == 200

        tasks = [asyncio.create_task(report(sequence)) for sequence in range(1, 201)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ocs.processes[0].kill()
        await asyncio.gather(*tasks)
        assert (await totals(two))["used"] == 200 * 100
    assert "0 differences" in ocs.run("check").stdout


async def test_a_top_up_tells_the_starved_session(ocs: Any) -> None:
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def consumer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        told.put_nowait(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(consumer, "127.0.0.1", 0)
    uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/notify"
    async with ocs.client() as client:
        await account(client, amount=0)
        created = await client.post(NCHF, json=request(0, chargingId=1, notifyUri=uri))
        assert created.json()["multipleUnitInformation"][0]["resultCode"] == "QUOTA_LIMIT_REACHED"
        await grant(client, "a1", 500)
        assert b"REAUTHORIZATION" in await asyncio.wait_for(told.get(), 10)
        again = await client.post(f"{created.headers['location']}/update", json=request(1))
        assert again.json()["multipleUnitInformation"][0]["grantedUnit"] == {"totalVolume": 500}
        await client.patch("/ocs/v1/accounts/a1", json={"status": "suspended"})
        assert b"ABORT_CHARGING" in await asyncio.wait_for(told.get(), 10)
        refused = await client.post(f"{created.headers['location']}/update", json=request(2))
        assert refused.json()["multipleUnitInformation"][0]["resultCode"] == "END_USER_SERVICE_DENIED"
    server.close()


async def test_grants_are_once_a_request(ocs: Any) -> None:
    async with ocs.client() as client:
        await account(client, amount=0)
        identity = str(uuid.uuid4())
        answers = await asyncio.gather(*(grant(client, "a1", 500, identity) for _ in range(10)))
        assert {a.status_code for a in answers} == {200} and len({a.text for a in answers}) == 1
        assert (await totals(client))["granted"] == 500
        assert (await grant(client, "a1", 501, identity)).status_code == 409


async def test_brands_do_not_see_each_other(ocs: Any) -> None:
    async with ocs.client("alpha") as alpha, ocs.client("beta") as beta:
        await account(alpha)
        where = (await alpha.post(NCHF, json=request(0, chargingId=7))).headers["location"]
        assert (await beta.get("/ocs/v1/accounts/a1/balances")).status_code == 404
        assert (await beta.post(NCHF, json=request(0))).json()["cause"] == "USER_UNKNOWN"
        assert (await beta.post(f"{where}/update", json=request(1, used=5))).status_code == 404
        taken = await beta.put("/ocs/v1/accounts/b1", json={"subscriberIds": [IMSI], "currency": "CAD"})
        assert taken.status_code == 409
        assert (await beta.get("/ocs/v1/accounts/b1/balances")).status_code == 404


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer alpha.00", "Basic eDp5", "Bearer .", "Bearer é.é"])
async def test_without_a_token_nothing_works(ocs: Any, authorization: str) -> None:
    async with ocs.client() as client:
        headers = {"Authorization": authorization.encode()}
        assert (await client.post(NCHF, json=request(0), headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"multipleUnitUsage": [{"ratingGroup": 1, "usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": -5}]}]},
        {"multipleUnitUsage": [{"ratingGroup": 1, "usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": 2**63}]}]},
        {"multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {"totalVolume": "5"}}]},
        {"invocationSequenceNumber": -1},
        {"invocationSequenceNumber": None},
        {"subscriberIdentifier": "imsi-1; DROP TABLE account"},
        {"notifyUri": "file:///etc/passwd"},
    ],
)  # fmt: skip
async def test_bad_input_is_refused_in_the_protocols_own_words(ocs: Any, change: dict[str, Any]) -> None:
    async with ocs.client() as client:
        await account(client)
        answer = await client.post(NCHF, json={**request(0), **change})
        assert answer.status_code == 400 and answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["invalidParams"]
        assert (await totals(client))["held"] == 0
        garbage = await client.post(NCHF, content=b"{" * 100, headers={"content-type": "application/json"})
        assert garbage.status_code == 400
        large = await client.post(NCHF, content=b" " * 70_000, headers={"content-type": "application/json"})
        assert large.status_code == 413


async def test_an_unknown_rating_group_fails_alone(ocs: Any) -> None:
    async with ocs.client() as client:
        await account(client)
        body = request(0)
        body["multipleUnitUsage"].append({"ratingGroup": 99, "requestedUnit": {}})
        results = {
            i["ratingGroup"]: i["resultCode"]
            for i in (await client.post(NCHF, json=body)).json()["multipleUnitInformation"]
        }
        assert results == {1: "SUCCESS", 99: "RATING_FAILED"}


async def test_expired_sessions_give_back_what_they_hold(ocs: Any, pg_database: Any) -> None:
    async with ocs.client() as client:
        await account(client)
        where = (await client.post(NCHF, json=request(0, chargingId=7))).headers["location"]
        connection = await asyncpg.connect(pg_database.dsn("ocs"))
        await connection.execute("UPDATE session SET expires_at = now() - interval '1 second'")
        assert await connection.fetchval("SELECT close_expired(10)") == 1
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute("UPDATE entry SET amount = 1")
        await connection.close()
        assert (await totals(client))["held"] == 0
        # The late report of the closed session is still charged, and gets no quota.
        late = await client.post(f"{where}/update", json=request(1, used=70))
        assert late.status_code == 200 and "grantedUnit" not in late.json()["multipleUnitInformation"][0]
        assert await totals(client) == {"granted": 2500, "used": 70, "held": 0, "available": 2430}


async def test_http2_with_prior_knowledge(ocs: Any) -> None:
    async with ocs.client(http1=False, http2=True) as client:
        answer = await client.get("/healthz")
        assert answer.http_version == "HTTP/2" and answer.text == "ok"
