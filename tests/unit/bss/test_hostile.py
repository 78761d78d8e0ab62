"""What strangers, faulty clients and hostile names send: every answer is a TMF error with a cause, none a 5xx."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from .conftest import BALANCE, OFFERS, ORDERS, PARTIES, PRODUCTS, Bss, completed, line, order

UNKNOWN = str(uuid.UUID(int=7))
EVENTS, BATCH = "/subscriber-event/v1/event", "/subscriber-provisioning/v1/batch"


def is_error(answer: httpx.Response, *statuses: int) -> dict[str, Any]:
    """The body of a TMF630 error."""
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    body: dict[str, Any] = answer.json()
    assert body["@type"] == "Error" and body["code"] == body["status"] == str(answer.status_code)
    assert body["reason"] and "message" in body and "Traceback" not in answer.text
    return body


def mutated(path: str, value: Any) -> dict[str, Any]:
    body = order("backstage")
    at: Any = body
    *way, last = path.split(".")
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    return body


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"productOrderItem": "x"},
        {"productOrderItem": [], "relatedParty": []},
        {"productOrderItem": [{"productOffering": {"id": "backstage"}}]},
        mutated("productOrderItem", [{"productOffering": {"id": "backstage"}}] * 2),
        mutated("productOrderItem.0.quantity", -1),
        mutated("productOrderItem.0.quantity", 0),
        mutated("productOrderItem.0.quantity", 2),
        mutated("productOrderItem.0.quantity", True),
        mutated("productOrderItem.0.quantity", 1e400),
        mutated("productOrderItem.0.action", "explode"),
        mutated("productOrderItem.0.productOffering", None),
        mutated("productOrderItem.0.productOffering.id", "../../etc/passwd"),
        mutated("productOrderItem.0.productOffering.id", "backstage'; DROP TABLE product; --"),
        mutated("productOrderItem.0.productOffering.id", {"$ne": 1}),
        mutated("relatedParty.0.givenName", ""),
        mutated("relatedParty.0.givenName", "   "),
        mutated("relatedParty.0.givenName", "x" * 101),
        mutated("relatedParty.0.givenName", "nul\x00"),
        mutated("relatedParty.0.givenName", "\ud800"),
        mutated("relatedParty.0.givenName", "a\u202eb"),
        mutated("relatedParty.0.givenName", ["Ada"]),
        mutated("relatedParty.0.id", "1 OR 1=1"),
        mutated("relatedParty.0.id", UNKNOWN),
        mutated("relatedParty.0.contactMedium", [{"mediumType": "email", "characteristic": {"emailAddress": "x"}}]),
        mutated(
            "relatedParty.0.contactMedium", [{"mediumType": "email", "characteristic": {"emailAddress": {"a": 1}}}]
        ),
        mutated("relatedParty.0.individualIdentification", [{}] * 9),
        mutated("externalId", "x" * 101),
        mutated("externalId", "a\x00b"),
        mutated("externalId", 5),
        {"productOrderItem": [{"action": "modify", "product": {"id": UNKNOWN, "status": "terminated"}}]},
        {"productOrderItem": [{"action": "modify", "product": {"id": UNKNOWN}}]},
        {"productOrderItem": [{"action": "delete"}]},
        {"productOrderItem": [{"action": "delete", "product": {"id": "x"}}]},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
async def test_orders_that_are_wrong(b: httpx.AsyncClient, body: dict[str, Any]) -> None:
    text = json.dumps(body).encode()
    is_error(await b.post(ORDERS, content=text, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'"x"', b"[" * 30_000, b'{"a":' * 9000, b"NaN", b'{"\x00":1}']
)
async def test_bodies_that_are_no_orders(b: httpx.AsyncClient, content: bytes) -> None:
    is_error(await b.post(ORDERS, content=content, headers={"Content-Type": "application/json"}), 400)


async def test_bodies_that_are_too_large(b: httpx.AsyncClient) -> None:
    is_error(await b.post(ORDERS, content=b"x" * 70_000), 413)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    is_error(await b.post(ORDERS, content=endless()), 413)
    is_error(await b.get(ORDERS, params={"state": "x" * 9000}), 414)


async def test_unicode_names_come_back_as_they_were(b: httpx.AsyncClient) -> None:
    names = ["Zoë Łukasz", "李小龙", "🎤" * 20, "O'Neil\"; --", "<script>alert(1)</script>", "עברית"]
    for name in names:
        body = {**mutated("relatedParty.0.givenName", name), "@type": "X", "unknown": [1]}
        placed = await b.post(ORDERS, json=body)
        assert placed.status_code == 201, placed.text
        party = (await b.get(f"{PARTIES}/{placed.json()['relatedParty'][0]['id']}")).json()
        assert party["givenName"] == name
        assert (await b.get(PARTIES, params={"givenName": name})).json()[0]["givenName"] == name


@pytest.mark.parametrize(
    "token", [None, "", "Bearer", "Bearer wrong", "Basic b3A6b3A=", "Bearer operators-own x", "Bearer \xe9"]
)
async def test_without_the_operators_token(beta: Bss, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": token.encode("latin-1")}
    calls = [
        ("GET", ORDERS),
        ("POST", ORDERS),
        ("GET", f"{ORDERS}/{UNKNOWN}"),
        ("GET", PRODUCTS),
        ("PATCH", f"{PRODUCTS}/{UNKNOWN}"),
        ("GET", PARTIES),
        ("POST", f"{PARTIES}/{UNKNOWN}/verify"),
        ("GET", f"{BALANCE}/bucket"),
        ("GET", f"{BALANCE}/accumulatedBalance"),
        ("POST", f"{BALANCE}/topupBalance"),
        ("GET", "/sim-inventory/v1/sim/1/profile"),
        ("GET", "/sim-inventory/v1/sim/1/activation.svg"),
        ("GET", EVENTS),
        ("DELETE", f"{EVENTS}/{UNKNOWN}"),
        ("PUT", f"{BATCH}/b"),
        ("GET", f"{BATCH}/b"),
    ]
    async with beta.public() as client:
        for method, path in calls:
            answer = await client.request(method, path, headers=headers, json={} if method != "GET" else None)
            is_error(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert (await client.get(OFFERS)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("GET", f"{ORDERS}/x", (400,)),
        ("GET", f"{ORDERS}/{UNKNOWN}", (404,)),
        ("GET", f"{ORDERS}/%00", (400,)),
        ("GET", f"{ORDERS}/..%2f..%2fetc%2fpasswd", (404,)),
        ("GET", f"{ORDERS}?limit=0", (400,)),
        ("GET", f"{ORDERS}?limit=1001", (400,)),
        ("GET", f"{ORDERS}?offset=-1", (400,)),
        ("GET", f"{ORDERS}?offset=9999999999999999999999", (400,)),
        ("GET", f"{ORDERS}?offset=%D9%A1", (400,)),
        ("GET", f"{ORDERS}?state=%00", (400,)),
        ("GET", f"{ORDERS}?token=1", (400,)),
        ("GET", f"{ORDERS}?state);DROP%20TABLE%20product;--=1", (400,)),
        ("GET", f"{OFFERS}/nothing", (404,)),
        ("GET", f"{PRODUCTS}/{UNKNOWN}", (404,)),
        ("GET", f"{BALANCE}/bucket", (400,)),
        ("GET", f"{BALANCE}/bucket?product.id=x", (400,)),
        ("GET", f"{BALANCE}/bucket/x", (404,)),
        ("GET", f"{BALANCE}/topupBalance/{UNKNOWN}", (404,)),
        ("GET", "/sim-inventory/v1/sim/%00", (400,)),
        ("GET", "/sim-inventory/v1/sim/1'--", (404,)),
        ("GET", f"{BATCH}/none", (404,)),
        ("GET", f"{EVENTS}?limit=x", (400,)),
        ("DELETE", f"{EVENTS}/{UNKNOWN}", (404,)),
        ("DELETE", ORDERS, (405,)),
        ("GET", "/nothing", (404,)),
        ("GET", "/../../etc/passwd", (404,)),
        ("GET", "/theme.css/../texts.yaml", (404,)),
    ],
)
async def test_addresses(b: httpx.AsyncClient, method: str, path: str, statuses: tuple[int, ...]) -> None:
    is_error(await b.request(method, path), *statuses)


async def test_patches_and_top_ups_that_are_wrong(b: httpx.AsyncClient) -> None:
    mine = await line(b, "backstage")
    for patch in (
        {},
        {"status": "gone"},
        {"status": 1},
        {"status": "suspended", "msisdn": "1"},
        {"status": "created"},
        [],
    ):
        is_error(await b.patch(f"{PRODUCTS}/{mine['id']}", json=patch), 400)
    good = {"product": {"id": mine["id"]}, "productOffering": {"id": "encore-1gb"}}
    bad: list[tuple[dict[str, Any], int]] = [
        ({"amount": {"amount": 5, "units": "EUR"}}, 400),
        ({"amount": {"amount": -5, "units": "CAD"}}, 400),
        ({"amount": {"amount": 4.99, "units": "CAD"}}, 400),
        ({"amount": {"amount": True, "units": "CAD"}}, 400),
        ({"id": "x"}, 400),
        ({"productOffering": {"id": "recharge-1go"}}, 400),
        ({"product": {"id": "x"}}, 404),
        ({"product": {"id": UNKNOWN}}, 404),
    ]
    for change, status in bad:
        is_error(await b.post(f"{BALANCE}/topupBalance", json={**good, **change}), status)
    said = is_error(await b.post(f"{BALANCE}/topupBalance", json={**good, **bad[0][0]}), 400)
    assert "CAD" in said["reason"] and said["message"]
    body = {**good, "id": str(uuid.uuid4()), "amount": {"amount": 5.0, "units": "CAD"}}
    answers = await asyncio.gather(*(b.post(f"{BALANCE}/topupBalance", json=body) for _ in range(5)))
    assert sorted(x.status_code for x in answers) == [200] * 4 + [201]
    assert (await b.get(answers[0].headers["location"])).json()["status"] == "confirmed"
    is_error(
        await b.post(f"{BALANCE}/topupBalance", json={**body, "productOffering": {"id": "encore-5gb"}, "amount": None}),
        409,
    )
    buckets = (await b.get(f"{BALANCE}/bucket", params={"product.id": mine["id"]})).json()
    assert sum(x["name"] == "topup:encore-1gb" for x in buckets) == 1


async def test_lists_page_filter_and_choose(b: httpx.AsyncClient, database: asyncpg.Connection) -> None:
    placed = [
        (await b.post(ORDERS, json=order("backstage", externalId=f"list-{uuid.uuid4()}"))).json() for _ in range(3)
    ]
    for one in placed:
        await completed(b, one)
    total = await database.fetchval("SELECT count(*) FROM bss_beta.product_order")
    page = await b.get(ORDERS, params={"limit": 2, "fields": "state"})
    assert page.headers["x-total-count"] == str(total) and page.headers["x-result-count"] == "2"
    assert page.status_code == 206 and set(page.json()[0]) == {"id", "href", "@type", "state"}
    seen = [x["id"] for n in range(0, total, 2) for x in (await b.get(ORDERS, params={"limit": 2, "offset": n})).json()]
    assert len(set(seen)) == total
    both = await b.get(ORDERS, params={"externalId": ",".join(x["externalId"] for x in placed[:2])})
    assert both.status_code == 200 and {x["id"] for x in both.json()} == {x["id"] for x in placed[:2]}
    assert (await b.get(ORDERS, params={"id": placed[0]["id"], "state": "failed"})).json() == []
    for one in (placed[0], both.json()[0], (await b.get(PRODUCTS)).json()[0], (await b.get(OFFERS)).json()[0]):
        found = await b.get(one["href"])
        assert found.status_code == 200 and found.json()["id"] == one["id"]
        assert set((await b.get(one["href"], params={"fields": "none"})).json()) == {"id", "href", "@type"}
    top_ups = (await b.get(OFFERS, params={"category.name": "topUp"})).json()
    assert [x["id"] for x in top_ups] == ["encore-1gb", "encore-5gb", "encore-credit"]
