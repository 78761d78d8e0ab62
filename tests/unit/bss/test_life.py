"""Suspend, resume, SIM swap, terminate: the directory, the OCS and the event move together."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from .conftest import BALANCE, ORDERS, PRODUCTS, Bss, completed, line, order, roam, until

EVENTS = "/subscriber-event/v1/event"
NCHF = "/nchf-convergedcharging/v3/chargingdata"


async def change(client: httpx.AsyncClient, product: str, action: str, **more: Any) -> httpx.Response:
    body = {
        "productOrderItem": [{"action": action, "product": {"id": product, **more}}],
        "externalId": str(uuid.uuid4()),
    }
    return await client.post(ORDERS, json=body)


async def subscriber(database: asyncpg.Connection, brand: str, iccid: str) -> Any:
    return await database.fetchrow(
        f"""SELECT s.imsi, d.msisdn, d.sealed = s.sealed AS same, d.document FROM bss_{brand}.sim s
            LEFT JOIN directory.subscriber d USING (imsi) WHERE s.iccid = $1""",
        iccid,
    )


async def status(bss: Bss, product: str) -> str:
    async with bss.ocs() as ocs:
        return str((await ocs.get(f"/ocs/v1/accounts/{product}/balances")).json()["status"])


async def ocs_is(bss: Bss, product: str, wanted: str) -> None:
    async def same() -> bool:
        return await status(bss, product) == wanted

    await until(same)


async def told(client: httpx.AsyncClient, product: str) -> list[dict[str, Any]]:
    found = (await client.get(EVENTS, params={"limit": 1000})).json()
    return [event for event in found if event["event"]["productId"] == product]


@pytest.mark.parametrize("how", ["patch", "order"])
async def test_suspend_and_resume(b: httpx.AsyncClient, beta: Bss, database: asyncpg.Connection, how: str) -> None:
    mine = await line(b, "backstage")

    async def move(to: str) -> None:
        if how == "patch":
            assert (await b.patch(f"{PRODUCTS}/{mine['id']}", json={"status": to})).json()["status"] == to
        else:
            placed = await change(b, mine["id"], "modify", status=to)
            assert placed.status_code == 201
            assert (await completed(b, placed.json()))["productOrderItem"][0]["product"]["status"] == to

    for to, barred, kind in (("suspended", 1, "suspended"), ("active", 0, "resumed")):
        await move(to)
        await move(to)
        document = json.loads((await subscriber(database, "beta", mine["iccid"]))["document"])
        assert document["subscriber_status"] == barred
        await ocs_is(beta, mine["id"], to)
        assert (await told(b, mine["id"]))[-1]["eventType"] == f"subscriber.{kind}"
    events = await told(b, mine["id"])
    assert len(events) == 2 and events[0]["event"]["msisdn"] == mine["msisdn"]
    for _ in range(2):
        assert (await b.delete(events[0]["href"])).status_code == 204
    assert len(await told(b, mine["id"])) == 1


async def test_suspension_cuts_the_session_of_an_attached_ue(
    b: httpx.AsyncClient, beta: Bss, database: asyncpg.Connection
) -> None:
    mine = await line(b, "backstage")
    imsi = (await subscriber(database, "beta", mine["iccid"]))["imsi"]
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(next(h.split(":")[1] for h in head.split("\r\n") if h.startswith("content-length")))
        heard.put_nowait(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    request = {
        "subscriberIdentifier": f"imsi-{imsi}",
        "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
        "chargingId": 7,
        "invocationTimeStamp": "2026-01-01T00:00:00Z",
        "invocationSequenceNumber": 0,
        "notifyUri": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/notify",
        "multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {}}],
    }
    async with beta.ocs() as ocs:
        made = await ocs.post(NCHF, json=request)
        assert made.json()["multipleUnitInformation"][0]["resultCode"] == "SUCCESS"
        assert (await b.patch(f"{PRODUCTS}/{mine['id']}", json={"status": "suspended"})).status_code == 200
        assert (await asyncio.wait_for(heard.get(), 10))["notificationType"] == "ABORT_CHARGING"
        update = {**request, "invocationSequenceNumber": 1}
        answer = (await ocs.post(f"{made.headers['location']}/update", json=update)).json()
        assert answer["multipleUnitInformation"][0]["resultCode"] == "END_USER_SERVICE_DENIED"
    server.close()


async def test_sim_swap_keeps_number_and_balance(b: httpx.AsyncClient, beta: Bss, database: asyncpg.Connection) -> None:
    mine = await line(b, "backstage")
    before = await subscriber(database, "beta", mine["iccid"])
    body = {
        "externalId": str(uuid.uuid4()),
        "productOrderItem": [
            {
                "action": "modify",
                "product": {"id": mine["id"], "productCharacteristic": [{"name": "simSwap", "value": True}]},
            }
        ],
    }
    answers = await asyncio.gather(*(b.post(ORDERS, json=body) for _ in range(4)))
    assert len({x.json()["id"] for x in answers}) == 1
    done = await completed(b, answers[0].json())
    new = {c["name"]: c["value"] for c in done["productOrderItem"][0]["product"]["productCharacteristic"]}
    assert new["msisdn"] == mine["msisdn"] and new["iccid"] != mine["iccid"]
    after, old = await subscriber(database, "beta", new["iccid"]), await subscriber(database, "beta", mine["iccid"])
    assert after["same"] and after["msisdn"] == [mine["msisdn"]] and old["msisdn"] is None
    states = [(await b.get(f"/sim-inventory/v1/sim/{x}")).json()["state"] for x in (mine["iccid"], new["iccid"])]
    assert states == ["retired", "assigned"]
    ids = await database.fetch(
        "SELECT subscriber_id FROM ocs.subscriber JOIN ocs.account USING (aid) WHERE account_id = $1", mine["id"]
    )
    assert {r[0] for r in ids} == {f"imsi-{after['imsi']}", f"msisdn-{mine['msisdn']}"}
    total = (await b.get(f"{BALANCE}/accumulatedBalance", params={"product.id": mine["id"]})).json()[0]
    assert next(t["granted"] for t in total["totalBalance"] if t["units"] == "octets") == 10_000_000_000
    (event,) = await told(b, mine["id"])
    assert event["event"]["formerImsi"] == before["imsi"] and event["event"]["imsi"] == after["imsi"]


async def test_a_suspended_line_stays_barred_through_a_sim_swap(
    b: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    mine = await line(b, "backstage")
    await b.patch(f"{PRODUCTS}/{mine['id']}", json={"status": "suspended"})
    placed = await change(b, mine["id"], "modify", productCharacteristic=[{"name": "simSwap", "value": True}])
    done = await completed(b, placed.json())
    iccid = done["productOrderItem"][0]["product"]["productCharacteristic"][1]["value"]
    assert json.loads((await subscriber(database, "beta", iccid))["document"])["subscriber_status"] == 1


@pytest.mark.parametrize("how", ["patch", "order"])
async def test_termination_is_final(b: httpx.AsyncClient, beta: Bss, database: asyncpg.Connection, how: str) -> None:
    mine = await line(b, "backstage")
    if how == "patch":
        await b.patch(f"{PRODUCTS}/{mine['id']}", json={"status": "terminated"})
    else:
        await completed(b, (await change(b, mine["id"], "delete")).json())
    found = (await b.get(f"{PRODUCTS}/{mine['id']}")).json()
    assert found["status"] == "terminated" and found["terminationDate"]
    await ocs_is(beta, mine["id"], "terminated")
    assert (await subscriber(database, "beta", mine["iccid"]))["msisdn"] is None
    refused = await b.patch(f"{PRODUCTS}/{mine['id']}", json={"status": "active"})
    assert refused.status_code == 409 and "terminated" in refused.json()["reason"]
    body = {"product": {"id": mine["id"]}, "productOffering": {"id": "encore-1gb"}}
    assert (await b.post(f"{BALANCE}/topupBalance", json=body)).status_code == 409
    assert (
        await change(b, mine["id"], "modify", productCharacteristic=[{"name": "simSwap", "value": True}])
    ).status_code == 409
    assert (await told(b, mine["id"]))[-1]["eventType"] == "subscriber.terminated"


async def test_a_number_rests_before_it_is_given_again(
    fresh_brand: Callable[..., Bss], database: asyncpg.Connection
) -> None:
    bss = fresh_brand(numberRange={"first": "+14167559100", "last": "+14167559100"}).start()
    async with bss.client() as client:
        mine = await line(client, "backstage")
        await client.patch(f"{PRODUCTS}/{mine['id']}", json={"status": "terminated"})
        await ocs_is(bss, mine["id"], "terminated")
        assert (await client.post(ORDERS, json=order("backstage"))).status_code == 409
        await database.execute(f"UPDATE bss_{bss.name}.number SET released_at = now() - interval '29 days 23 hours'")
        assert (await client.post(ORDERS, json=order("backstage"))).status_code == 409
        await database.execute(f"UPDATE bss_{bss.name}.number SET released_at = now() - interval '30 days 1 minute'")
        # The old line's end is still owed to the OCS, where the number is the old line's: nobody gets it yet.
        await database.execute(
            f"""UPDATE bss_{bss.name}.outbox SET done_at = NULL, next_at = now() + interval '1 day'
                WHERE method = 'PATCH' AND product = $1""",
            uuid.UUID(mine["id"]),
        )
        assert (await client.post(ORDERS, json=order("backstage"))).status_code == 409
        await database.execute(f"UPDATE bss_{bss.name}.outbox SET done_at = now() WHERE done_at IS NULL")
        placed = await client.post(ORDERS, json=order("backstage"))
        assert placed.status_code == 201, placed.text
        product = (await completed(client, placed.json()))["productOrderItem"][0]["product"]
        assert product["status"] == "active"
        assert product["productCharacteristic"][0] == {"name": "msisdn", "value": mine["msisdn"]}


async def test_credit_pays_for_what_the_plan_sells_by_the_unit(
    b: httpx.AsyncClient, beta: Bss, database: asyncpg.Connection
) -> None:
    product = (await line(b, "backstage"))["id"]
    row = await database.fetchrow(
        "SELECT p.msisdn, s.imsi FROM bss_beta.product p JOIN bss_beta.sim s ON s.product = p.id WHERE p.id = $1",
        uuid.UUID(product),
    )
    sold = {"product": {"id": product}, "id": str(uuid.uuid4()), "productOffering": {"id": "encore-credit"}}
    assert (await b.post(f"{BALANCE}/topupBalance", json=sold)).status_code == 201

    async def credit() -> dict[str, Any]:
        found = (await b.get(f"{BALANCE}/accumulatedBalance", params={"product.id": product})).json()[0]
        return {one["units"]: one for one in found["totalBalance"]}.get("minor", {})

    assert (await credit())["amount"] == 1000
    await roam(beta, f"imsi-{row['imsi']}", 5_000_000, 4_550_000)
    # 4.6 MB at two cents, out of the credit; the plan's gigabytes stand.
    assert (await credit())["amount"] == 991
