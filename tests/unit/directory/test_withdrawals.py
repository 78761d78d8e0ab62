"""Who is suspended, removed or on another SIM is named to the AMF: at least once, and nobody else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.ports import free_port

from mvnobox.core.directory import withdrawals
from mvnobox.core.directory.store import make_pool
from mvnobox.core.directory.withdrawals import Withdrawals
from mvnobox.service.web import serve_http

IMSI = "208930000000001"
PUT = "SELECT directory.set_subscriber_status($1, $2, 0)"


class Amf:
    """Takes the UDM's callback as Open5GS's AMF does; `answers` are what it says next, then 204."""

    def __init__(self) -> None:
        self.port = free_port()
        self.told: asyncio.Queue[tuple[str, dict[str, Any], str]] = asyncio.Queue()
        self.answers: list[int] = []

    async def notify(self, request: Request) -> Response:
        self.told.put_nowait((request.path_params["supi"], await request.json(), request.scope["http_version"]))
        return Response(status_code=self.answers.pop(0) if self.answers else 204)

    async def run(self) -> None:
        route = Route("/namf-callback/v1/{supi}/dereg-notify", self.notify, methods=["POST"])
        await serve_http(Starlette(routes=[route]), "127.0.0.1", self.port)

    async def hears(self) -> str:
        return (await asyncio.wait_for(self.told.get(), 20))[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "AGAIN_SECONDS", 0.2)


@pytest.fixture
async def amf(directory: Any, pg_database: Any) -> AsyncIterator[Amf]:
    """With two replicas of the directory that tell it."""
    made = Amf()
    pools = [await make_pool(pg_database.dsn("directory")) for _ in range(2)]
    work = [Withdrawals(pool, f"http://127.0.0.1:{made.port}").run() for pool in pools]
    tasks = [asyncio.create_task(one) for one in (made.run(), *work)]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in pools:
            pool.terminate()


async def waiting(directory: Any) -> int:
    count: int = await directory.sql("SELECT count(*) FROM directory.withdrawal", role="directory")
    return count


async def nobody_waits(directory: Any) -> None:
    async with asyncio.timeout(20):
        while await waiting(directory):
            await asyncio.sleep(0.05)


async def test_suspension_removal_and_another_sim_are_told(directory: Any, amf: Amf, example: Any) -> None:
    sealed = await directory.put(IMSI)
    # A new plan on the same SIM is none of it, nor is a first provisioning.
    example["ambr"]["uplink"]["value"] = 99
    await directory.put(IMSI, document=example, sealed=sealed)
    assert await waiting(directory) == 0
    await directory.sql(PUT, IMSI, 1)
    supi, body, version = await asyncio.wait_for(amf.told.get(), 20)
    assert (supi, version) == (f"imsi-{IMSI}", "2")
    assert body == {"deregReason": "SUBSCRIPTION_WITHDRAWN", "accessType": "3GPP_ACCESS"}
    await nobody_waits(directory)
    await directory.sql(PUT, IMSI, 1)  # it is already
    await directory.sql(PUT, IMSI, 0)
    assert await waiting(directory) == 0
    await directory.put(IMSI, document=example)
    assert await amf.hears() == f"imsi-{IMSI}"
    await nobody_waits(directory)
    await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
    assert await amf.hears() == f"imsi-{IMSI}"
    await nobody_waits(directory)
    assert amf.told.empty()


async def test_an_amf_that_fails_is_told_again(directory: Any, amf: Amf) -> None:
    await directory.put(IMSI)
    amf.answers = [503, 500]
    await directory.sql(PUT, IMSI, 1)
    for _ in range(3):
        assert await amf.hears() == f"imsi-{IMSI}"
    await nobody_waits(directory)


async def test_who_is_about_to_attach_is_named_twice(directory: Any, amf: Amf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "AGAIN_SECONDS", 0.2)
    await directory.put(IMSI)
    amf.answers = [404, 404]
    await directory.sql(PUT, IMSI, 1)
    assert [await amf.hears() for _ in range(2)] == [f"imsi-{IMSI}"] * 2
    await nobody_waits(directory)


async def test_a_change_in_between_is_not_lost(directory: Any, pg_database: Any) -> None:
    """What is withdrawn again while the AMF answers is told again; who is resumed before is not told."""
    await directory.put(IMSI)
    await directory.sql(PUT, IMSI, 1)
    assert await waiting(directory) == 1
    await directory.sql(PUT, IMSI, 0)
    assert await waiting(directory) == 0
    await directory.sql(PUT, IMSI, 1)
    before = await directory.sql("SELECT at FROM directory.withdrawal", role="directory")
    await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
    pool = await make_pool(pg_database.dsn("directory"))
    try:
        await pool.execute("DELETE FROM withdrawal WHERE imsi = $1 AND at = $2", IMSI, before)
        assert await waiting(directory) == 1
        # Without an AMF nobody is to be told.
        task = asyncio.create_task(Withdrawals(pool, None).run())
        await nobody_waits(directory)
        task.cancel()
    finally:
        pool.terminate()


async def test_keys_that_open_nothing_are_shown_until_the_amf_has_let_go(
    pg_database: Any, start: Any, example: Any
) -> None:
    """Open5GS's UDM drops a subscriber without keys, and with it the goodbye of the SMF."""
    async with start(tells_amf=True) as directory:
        await directory.put(IMSI, "33639980001")
        find = directory.subscribers().find_one

        async def keys() -> Any:
            return (await asyncio.to_thread(find, {"imsi": IMSI}) or {}).get("security")

        own = await keys()
        where = {"mme_host": "mme.host.example", "mme_realm": "host.example"}
        await asyncio.to_thread(directory.subscribers().update_one, {"imsi": IMSI}, {"$set": where})
        await directory.sql(PUT, IMSI, 1)
        shown = await keys()
        assert set(shown) == {"k", "op", "opc", "amf", "sqn"} and shown["op"] is None
        assert shown["k"] not in (own["k"], (await keys())["k"]) and len(bytes.fromhex(shown["opc"])) == 16
        assert (await asyncio.to_thread(find, {"imsi": IMSI}))["slice"] == example["slice"]
        await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
        assert (await keys())["k"] != own["k"]
        # The HSS asks where the location is to be cancelled.
        assert where.items() <= (await asyncio.to_thread(find, {"imsi": IMSI})).items()
        pool = await make_pool(pg_database.dsn("directory"))
        task = asyncio.create_task(Withdrawals(pool, None).run())
        await nobody_waits(directory)
        task.cancel()
        pool.terminate()
        assert await keys() is None
