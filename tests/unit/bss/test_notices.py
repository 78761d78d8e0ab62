"""What the OCS tells reaches the brand, and nothing that it tells ends the BSS or holds up what comes after."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx

from .conftest import BALANCE, Bss, line, roam, until


async def told(client: httpx.AsyncClient, product: str, kind: str) -> list[dict[str, Any]]:
    found = (await client.get("/subscriber-event/v1/event", params={"limit": 1000})).json()
    return [e["event"] for e in found if e["event"]["productId"] == product and e["eventType"] == kind]


async def test_a_low_balance_is_told_and_the_bss_lives_on(fresh_brand: Callable[..., Bss]) -> None:
    bss: Bss = fresh_brand().start()
    async with bss.client() as client:
        mine = await line(client, "backstage")
        sold = {"product": {"id": mine["id"]}, "id": str(uuid.uuid4()), "productOffering": {"id": "encore-credit"}}
        assert (await client.post(f"{BALANCE}/topupBalance", json=sold)).status_code == 201
        await roam(bss, f"msisdn-{mine['msisdn']}", 400_000_000, 400_000_000)

        async def low() -> Any:
            return await told(client, mine["id"], "balance.low")

        (event,) = await until(low)
        assert event["threshold"] == 300 and event["available"] < 300 and event["msisdn"] == mine["msisdn"]
        assert bss.process is not None and bss.process.poll() is None


async def test_what_the_bss_makes_nothing_of_holds_up_nothing(
    fresh_brand: Callable[..., Bss], database: asyncpg.Connection
) -> None:
    bss: Bss = fresh_brand().start()
    threshold = {"percent": 50, "unit": "octets", "granted": 2, "used": 1, "source": "x", "validUntil": None}
    async with bss.client() as client, bss.ocs() as ocs:
        mine = await line(client, "backstage")
        for account, kind, body in (
            (mine["id"], "bucket.painted", threshold),
            (mine["id"], "bucket.threshold", [1]),
            (str(uuid.uuid4()), "bucket.threshold", threshold),
            ("no product of ours", "bucket.threshold", threshold),
            (mine["id"], "bucket.threshold", threshold),
        ):
            await database.execute(
                "INSERT INTO ocs.account_event (brand, account_id, type, body) VALUES ($1, $2, $3, $4)",
                bss.name, account, kind, json.dumps(body),
            )  # fmt: skip

        async def empty() -> bool:
            return bool((await ocs.get("/ocs/v1/events")).json() == [])

        await until(empty)
        assert [e["percent"] for e in await told(client, mine["id"], "balance.threshold")][-1] == 50
        assert bss.process is not None and bss.process.poll() is None
    log = bss.config().with_suffix(".log").read_text()
    assert "bucket.painted" in log and "TypeError" in log
