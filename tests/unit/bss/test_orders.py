"""Orders on real processes: many at once, ranges that end, repetitions, identity, brands apart."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from .conftest import BALANCE, ORDERS, PARTIES, PRODUCTS, Bss, completed, line, order


async def test_orders_at_once_lose_nothing_and_share_nothing(
    b: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(b.post(ORDERS, json=order("backstage")) for _ in range(60)))
    assert {answer.status_code for answer in answers} == {201}
    done = await asyncio.gather(*(completed(b, answer.json()) for answer in answers))
    products = [o["productOrderItem"][0]["product"] for o in done]
    ids = [p["id"] for p in products]
    numbers, iccids = ({p["productCharacteristic"][n]["value"] for p in products} for n in (0, 1))
    rows = await database.fetch("SELECT imsi FROM bss_beta.sim WHERE iccid = ANY($1)", list(iccids))
    assert [len(set(ids)), len(numbers), len(iccids), len({r["imsi"] for r in rows})] == [60, 60, 60, 60]
    known = await database.fetch(
        "SELECT imsi, msisdn FROM directory.subscriber WHERE imsi = ANY($1)", [r[0] for r in rows]
    )
    assert {r["msisdn"][0] for r in known} == numbers
    accounts = await database.fetchval("SELECT count(*) FROM ocs.account WHERE account_id = ANY($1)", ids)
    grants = await database.fetchval(
        "SELECT count(*) FROM ocs.grant_request r JOIN ocs.account a USING (aid) WHERE a.account_id = ANY($1)", ids
    )
    assert (accounts, grants) == (60, 60)


@pytest.mark.parametrize("by", ["externalId", "Idempotency-Key"])
async def test_repetitions_of_an_order_make_one(b: httpx.AsyncClient, by: str) -> None:
    name = f"order {uuid.uuid4()}"
    body = order("backstage", **({"externalId": name} if by == "externalId" else {}))
    headers = {by: name} if by != "externalId" else {}
    answers = await asyncio.gather(*(b.post(ORDERS, json=body, headers=headers) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await b.post(ORDERS, json={**body, **order("headliner")}, headers=headers)
    assert other.status_code == 409 and "another content" in other.json()["reason"]


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("numbers", {"numberRange": {"first": "+14167551000", "last": "+14167551001"}}),
        ("subscriber identities", {"msinRange": {"first": "000000001", "last": "000000002"}}),
    ],
)
async def test_a_range_that_is_used_up(
    fresh_brand: Callable[..., Bss], database: asyncpg.Connection, what: str, changes: dict[str, Any]
) -> None:
    first = {"numberRange": {"first": "+14167552000", "last": "+14167552999"}} if "msinRange" in changes else {}
    bss = fresh_brand(**{**first, **changes}).start()
    async with bss.client() as client:
        answers = await asyncio.gather(
            *(client.post(ORDERS, json=order("backstage", externalId=f"e{n}")) for n in range(5))
        )
        good, bad = ([x for x in answers if x.status_code == status] for status in (201, 409))
        assert (len(good), len(bad)) == (2, 3)
        for answer in good:
            await completed(client, answer.json())
        error = bad[0].json()
        assert error["reason"] == f"the brand's range of {what} is used up"
        assert error["message"] == "extend the range in the brand's file"
        failed = (await client.get(error["referenceError"])).json()
        assert failed["state"] == "failed" and what in failed["note"][0]["text"]
        assert "product" not in failed["productOrderItem"][0]
    schema = f"bss_{bss.name}"
    for table in ("product", "sim", "number"):
        assert await database.fetchval(f"SELECT count(*) FROM {schema}.{table}") == 2
    assert await database.fetchval("SELECT count(*) FROM directory.subscriber WHERE owner = $1", bss.name) == 2


async def test_a_number_of_another_brand_leaves_nothing_behind(
    fresh_brand: Callable[..., Bss], beta: Bss, b: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    taken = await line(b, "backstage")
    overlapping = {"first": f"+{taken['msisdn']}", "last": f"+{taken['msisdn']}"}
    bss = fresh_brand(numberRange=overlapping).start()
    async with bss.client() as client:
        answer = await client.post(ORDERS, json=order("backstage"))
    assert answer.status_code == 409 and "another brand" in answer.json()["reason"]
    assert await database.fetchval(f"SELECT count(*) FROM bss_{bss.name}.sim") == 0


async def test_an_order_waits_for_the_customers_identity(a: httpx.AsyncClient) -> None:
    body = order("essentiel")
    body["relatedParty"][0].pop("individualIdentification")
    placed = (await a.post(ORDERS, json=body)).json()
    assert placed["state"] == "pending" and "identity" in placed["note"][0]["text"]
    assert "product" not in placed["productOrderItem"][0]
    party = placed["relatedParty"][0]["id"]
    assert (await a.get(f"{PARTIES}/{party}")).json()["status"] == "initialized"
    answers = await asyncio.gather(*(a.post(f"{PARTIES}/{party}/verify") for _ in range(4)))
    assert {answer.json()["status"] for answer in answers} == {"validated"}
    done = await completed(a, placed)
    assert "note" not in done
    found = (await a.get(PRODUCTS, params={"relatedParty.id": party})).json()
    assert len(found) == 1


async def test_documents_that_the_country_does_not_accept(a: httpx.AsyncClient) -> None:
    body = order("essentiel")
    body["relatedParty"][0]["individualIdentification"][0]["identificationType"] = "libraryCard"
    answer = await a.post(ORDERS, json=body)
    assert answer.status_code == 400 and "passport" in answer.json()["message"]


async def test_brands_see_nothing_of_each_other(
    a: httpx.AsyncClient, b: httpx.AsyncClient, alpha: Bss, beta: Bss, database: asyncpg.Connection
) -> None:
    mine, theirs = await line(a, "essentiel"), await line(b, "backstage")
    for path in (f"{PRODUCTS}/{mine['id']}", f"/sim-inventory/v1/sim/{mine['iccid']}/profile"):
        assert (await a.get(path)).status_code == 200
        assert (await b.get(path)).status_code == 404
    assert (await b.patch(f"{PRODUCTS}/{mine['id']}", json={"status": "suspended"})).status_code == 404
    assert (await b.get(f"{BALANCE}/bucket", params={"product.id": mine["id"]})).status_code == 404
    body = {"product": {"id": mine["id"]}, "productOffering": {"id": "encore-1gb"}}
    assert (await b.post(f"{BALANCE}/topupBalance", json=body)).status_code == 404
    async with beta.ocs() as ocs:
        assert (await ocs.get(f"/ocs/v1/accounts/{mine['id']}/balances")).status_code == 404
    imsi = await database.fetchval("SELECT imsi FROM bss_alpha.sim WHERE iccid = $1", mine["iccid"])
    connection = await asyncpg.connect(beta.dsn)
    try:
        for table in ("product", "sim", "individual", "outbox"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM bss_alpha.{table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM directory.subscriber")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT directory.set_subscriber_status($1, 1, 0)", imsi)
    finally:
        await connection.close()
    status = await database.fetchval(
        "SELECT document ->> 'subscriber_status' FROM directory.subscriber WHERE imsi = $1", imsi
    )
    assert status == "0" and theirs["id"] != mine["id"]
