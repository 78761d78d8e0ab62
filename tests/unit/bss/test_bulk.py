"""Many lines in one go: as many as asked for, never twice, also when the process dies on the way."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable

import asyncpg
import httpx
import pytest

from .conftest import PRODUCTS, Bss, until

BATCH = "/subscriber-provisioning/v1/batch"


async def counts(database: asyncpg.Connection, brand: str) -> list[int]:
    """Products, SIMs, numbers, subscribers in the directory."""
    tables = [f"bss_{brand}.product", f"bss_{brand}.sim", f"bss_{brand}.number"]
    found = [await database.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    return [*found, await database.fetchval("SELECT count(*) FROM directory.subscriber WHERE owner = $1", brand)]


async def test_a_batch_from_the_command_line(fresh_brand: Callable[..., Bss], database: asyncpg.Connection) -> None:
    bss = fresh_brand()
    arguments = ("provision", "--batch", "launch-1", "--count", "600", "--plan", "backstage")
    first = await asyncio.to_thread(bss.run, *arguments)
    assert first.returncode == 0, first.stderr
    made = [json.loads(text) for text in first.stdout.splitlines()]
    assert [one["index"] for one in made] == list(range(1, 601))
    assert len({one["msisdn"] for one in made}) == len({one["imsi"] for one in made}) == 600
    assert all(one["activationCode"].startswith("LPA:1$smdp.encore.example$") for one in made)
    assert "600 of them new" in first.stderr
    row = await database.fetchrow(f"SELECT keys, sealed FROM bss_{bss.name}.sim LIMIT 1")
    assert b'"ki"' not in row["keys"] and b'"k"' not in row["sealed"]
    assert await counts(database, bss.name) == [600] * 4
    again = await asyncio.to_thread(bss.run, *arguments, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(again.stdout)))
    assert [one["imsi"] for one in rows] == [one["imsi"] for one in made] and " 0 of them new" in again.stderr
    assert await counts(database, bss.name) == [600] * 4


async def test_a_batch_goes_on_after_a_power_cut(fresh_brand: Callable[..., Bss], database: asyncpg.Connection) -> None:
    bss = fresh_brand()
    command = [sys.executable, "-m", "mvnobox.bss", "provision", "--config", str(bss.config())]
    command += ["--batch", "b", "--count", "1500", "--plan", "backstage"]
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **bss.environment()}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), 30)
    process.kill()
    await process.communicate()
    before = await counts(database, bss.name)
    assert len(set(before)) == 1 and 0 < before[0] < 1500
    done = await asyncio.to_thread(bss.run, *command[3:4], *command[6:])
    assert done.returncode == 0, done.stderr
    assert await counts(database, bss.name) == [1500] * 4
    assert len({json.loads(text)["imsi"] for text in done.stdout.splitlines()}) == 1500


async def test_a_batch_over_the_api_reaches_the_ocs(b: httpx.AsyncClient) -> None:
    body = {"plan": "backstage", "count": 40}
    answers = await asyncio.gather(*(b.put(f"{BATCH}/api-1", json=body) for _ in range(3)))
    told = [[json.loads(text) for text in answer.text.splitlines()] for answer in answers]
    assert told[0] == told[1] == told[2] and len(told[0]) == 40

    async def active() -> bool:
        found = (await b.get(f"{BATCH}/api-1")).json()
        return bool(found["made"] == 40 and found["waitingForCharging"] == 0)

    await until(active)
    found = await b.get(PRODUCTS, params={"batch": "api-1", "status": "active", "limit": 10})
    assert found.headers["x-total-count"] == "40" and found.json()[0]["relatedParty"] == []
    plan = await b.put(f"{BATCH}/api-2", json={**body, "plan": "gold"})
    assert plan.status_code == 400 and plan.json()["message"] == "take one of backstage, headliner"
    other = await b.put(f"{BATCH}/api-1", json={**body, "count": 41})
    assert other.status_code == 409 and "another id" in other.json()["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--count", "200000", "--plan", "backstage"), "are wanted: extend the range"),
        (("--count", "0", "--plan", "backstage"), "--count is a number from 1"),
    ],
)
def test_what_cannot_be_asked_for(beta: Bss, arguments: tuple[str, ...], said: str) -> None:
    done = beta.run("provision", "--batch", "wrong", *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr and not done.stdout


async def test_identity_where_the_law_asks_for_it(a: httpx.AsyncClient) -> None:
    body = {"plan": "essentiel", "count": 2}
    refused = await a.put(f"{BATCH}/f", json=body)
    assert refused.status_code == 409 and "identityVerified" in refused.json()["message"]
    made = await a.put(f"{BATCH}/f", json={**body, "identityVerified": True})
    assert len(made.text.splitlines()) == 2
