"""The outbox when something breaks: power cut before and after the OCS's answer, an OCS that is away or refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import asyncpg
import httpx
import pytest

from .conftest import ORDERS, Bss, World, completed, free_port, order, until


class Wire:
    """A TCP relay to the OCS that can keep requests or answers to itself."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self.requests = self.answers = True
        self.seen = asyncio.Event()
        self.answered = asyncio.Event()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        # The BSS also asks for events and tells its rating, over connections of the same pool.
        asking = False

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
            with contextlib.suppress(ConnectionError):
                nonlocal asking
                while data := await source.read(65536):
                    if not answers and data.startswith((b"GET ", b"PUT ", b"POST ", b"PATCH ")):
                        asking = data.startswith((b"GET /ocs/v1/events ", b"PUT /ocs/v1/rating "))
                    if not asking:
                        (self.answered if answers else self.seen).set()
                    if self.answers if answers else self.requests:
                        sink.write(data)
                        await sink.drain()
            sink.close()

        await asyncio.gather(carry(reader, back, False), carry(there, writer, True))


async def granted(bss: Bss, product: str) -> list[int]:
    """The data buckets of an account."""
    async with bss.ocs() as ocs:
        answer = await ocs.get(f"/ocs/v1/accounts/{product}/balances")
        return [x["granted"] for x in answer.json()["buckets"] if x["unit"] == "octets"]


@pytest.mark.parametrize("lost", ["requests", "answers"])
async def test_a_killed_bss_finishes_the_order_and_grants_once(
    world: World, fresh_brand: Callable[..., Bss], database: asyncpg.Connection, lost: str
) -> None:
    async with Wire(world.ocs_port).open() as wire:
        bss = fresh_brand()
        bss.ocs_port = wire.port
        setattr(wire, lost, False)
        bss.start()
        async with bss.client() as client:
            placed = (await client.post(ORDERS, json=order("backstage"))).json()
            assert placed["state"] == "inProgress"
            await asyncio.wait_for((wire.seen if lost == "requests" else wire.answered).wait(), 10)
        bss.kill()
        setattr(wire, lost, True)
        # The dead process's lease of the call has run out.
        assert (
            await database.execute(f"UPDATE bss_{bss.name}.outbox SET next_at = now() WHERE attempts > 0") != "UPDATE 0"
        )
        bss.start()
        async with bss.client() as client:
            done = await completed(client, placed)
        assert await granted(bss, done["productOrderItem"][0]["product"]["id"]) == [10_000_000_000]


async def test_orders_wait_while_the_ocs_is_away(
    fresh_brand: Callable[..., Bss], database: asyncpg.Connection, world: World
) -> None:
    bss = fresh_brand()
    bss.ocs_port = free_port()
    bss.start()
    async with bss.client() as client:
        placed = [(await client.post(ORDERS, json=order("backstage"))).json() for _ in range(3)]
        schema = f"bss_{bss.name}"

        async def tried() -> bool:
            return bool(await database.fetchval(f"SELECT count(*) = 3 FROM {schema}.outbox WHERE attempts > 2"))

        await until(tried)
        states = {(await client.get(x["href"])).json()["state"] for x in placed}
        assert states == {"inProgress"}
        product = placed[0]["productOrderItem"][0]["product"]["id"]
        body = {"product": {"id": product}, "productOffering": {"id": "encore-1gb"}}
        topped = await client.post("/tmf-api/prepayBalanceManagement/v4/topupBalance", json=body)
        assert (topped.status_code, topped.json()["status"]) == (201, "acknowledged")
        balance = await client.get(
            "/tmf-api/prepayBalanceManagement/v4/accumulatedBalance", params={"product.id": product}
        )
        assert (balance.status_code, balance.json()["message"]) == (503, "try again")
        async with Wire(world.ocs_port).open() as wire:
            # The OCS is back, at the address that the BSS knows.
            server = await asyncio.start_server(wire._serve, "127.0.0.1", bss.ocs_port)
            await database.execute(f"UPDATE {schema}.outbox SET next_at = now()")
            for one in placed:
                await completed(client, one, 40)

            async def confirmed() -> bool:
                return bool((await client.get(topped.json()["href"])).json()["status"] == "confirmed")

            await until(confirmed)
            server.close()
        assert sorted(await granted(bss, product)) == [1_000_000_000, 10_000_000_000]


async def test_an_order_that_the_ocs_refuses_leaves_no_half_made_line(
    fresh_brand: Callable[..., Bss], database: asyncpg.Connection
) -> None:
    # Another account has the identifier already.
    bss = fresh_brand(numberRange={"first": "+14167558000", "last": "+14167558010"}).start()
    async with bss.ocs() as ocs:
        body = {"subscriberIds": ["msisdn-14167558000"], "currency": "CAD"}
        assert (await ocs.put("/ocs/v1/accounts/other", json=body)).status_code == 201
    async with bss.client() as client:
        placed = (await client.post(ORDERS, json=order("backstage"))).json()

        async def failed() -> httpx.Response | None:
            answer = await client.get(placed["href"])
            return answer if answer.json()["state"] == "failed" else None

        found = (await until(failed)).json()
        assert "refused" in found["note"][0]["text"]
        assert found["productOrderItem"][0]["product"]["status"] == "terminated"
    assert await database.fetchval("SELECT count(*) FROM directory.subscriber WHERE owner = $1", bss.name) == 0
    assert await database.fetchval(f"SELECT state FROM bss_{bss.name}.sim") == "retired"
