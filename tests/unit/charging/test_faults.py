"""Processes and connections die in the middle of load: what was charged is what was used."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import asyncpg
import httpx

NCHF = "/nchf-convergedcharging/v3/chargingdata"
ACCOUNTS, REPORTS = 6, 8


class Walker:
    """A consumer: it repeats a request, to any replica, until it has an answer; sometimes it repeats it for nothing."""

    def __init__(self, clients: list[httpx.AsyncClient], number: int, order: random.Random) -> None:
        self._clients, self._number, self._order = clients, number, order
        self.used = 0
        self.repeated = 0

    async def _send(self, path: str, body: dict[str, Any]) -> httpx.Response:
        for _ in range(400):
            client = self._order.choice(self._clients)
            try:
                answer = await client.post(path, json=body)
            except httpx.TransportError:
                self.repeated += 1
                await asyncio.sleep(0.02)
                continue
            if answer.status_code < 500:
                return answer
            self.repeated += 1
            await asyncio.sleep(0.02)
        raise AssertionError("no replica answered")

    async def _ask(self, path: str, body: dict[str, Any]) -> httpx.Response:
        answer = await self._send(path, body)
        if self._order.random() < 0.2:
            twins = await asyncio.gather(*(self._send(path, body) for _ in range(2)))
            assert {(t.status_code, t.content) for t in twins} == {(answer.status_code, answer.content)}
        return answer

    async def walk(self) -> None:
        body: dict[str, Any] = {
            "subscriberIdentifier": f"imsi-20893000000{self._number % ACCOUNTS:04}",
            "nfConsumerIdentification": {"nodeFunctionality": "SMF", "nFName": "kill"},
            "chargingId": self._number,
            "invocationTimeStamp": "2026-01-01T00:00:00Z",
        }

        def request(sequence: int, used: int, *, ask: bool) -> dict[str, Any]:
            container = {"localSequenceNumber": sequence, "totalVolume": used}
            usage = {"ratingGroup": 1, "usedUnitContainer": [container], **({"requestedUnit": {}} if ask else {})}
            self.used += used
            return {**body, "invocationSequenceNumber": sequence, "multipleUnitUsage": [usage]}

        created = await self._ask(NCHF, request(0, 0, ask=True))
        assert created.status_code == 201, created.text
        where = created.headers["location"]
        for sequence in range(1, REPORTS + 1):
            answer = await self._ask(f"{where}/update", request(sequence, self._order.randrange(1, 1500), ask=True))
            assert answer.status_code == 200, answer.text
        last = await self._ask(f"{where}/release", request(REPORTS + 1, 17, ask=False))
        assert last.status_code == 204


async def _load(ocs: Any, trouble: Any, order: random.Random, *, noticed: bool = True) -> None:
    async with ocs.client("alpha", 0) as one, ocs.client("alpha", 1) as two:
        for n in range(ACCOUNTS):
            account = {"subscriberIds": [f"imsi-20893000000{n:04}"], "currency": "EUR"}
            assert (await two.put(f"/ocs/v1/accounts/k{n}", json=account)).status_code == 201
            grant = {
                "requestId": f"00000000-0000-4000-8000-{n:012}",
                # The last accounts end in the middle.
                "buckets": [{"unit": "octets", "amount": 20_000 if n > 3 else 10**9, "source": "plan:x"}],
            }
            assert (await two.post(f"/ocs/v1/accounts/k{n}/grants", json=grant)).status_code == 200
        walkers = [Walker([one, two], n, order) for n in range(30)]
        tasks = [asyncio.create_task(walker.walk()) for walker in walkers]
        await trouble(tasks)
        await asyncio.gather(*tasks)
        assert not noticed or sum(walker.repeated for walker in walkers) > 0, "the trouble troubled nobody"
        used = 0
        for n in range(ACCOUNTS):
            found = (await two.get(f"/ocs/v1/accounts/k{n}/usage")).json()
            used += found["totals"].get("octets", 0)
            balance = (await two.get(f"/ocs/v1/accounts/k{n}/balances")).json()["totals"]["octets"]
            assert balance["held"] == 0 and balance["used"] + balance["available"] == balance["granted"]
        assert used == sum(walker.used for walker in walkers)
    checked = ocs.run("check")
    assert (checked.returncode, checked.stdout) == (0, "0 differences\n"), checked.stdout + checked.stderr


async def test_kill_9_of_replicas_in_the_middle_of_load(ocs: Any) -> None:
    ports = [await asyncio.to_thread(ocs.start) for _ in range(2)]

    async def trouble(tasks: list[asyncio.Task[None]]) -> None:
        connection = await asyncpg.connect(ocs.dsn)
        for turn in range(2):
            await _answers(connection, 80 * (turn + 1), tasks)
            victim = ocs.processes[turn]
            victim.kill()
            await asyncio.to_thread(victim.wait)
            await asyncio.to_thread(ocs.start, ports[turn])
        await connection.close()

    await _load(ocs, trouble, random.Random(1))


async def test_connections_that_the_database_ends_in_the_middle_of_load(ocs: Any, pg_database: Any) -> None:
    for _ in range(2):
        await asyncio.to_thread(ocs.start)

    async def trouble(tasks: list[asyncio.Task[None]]) -> None:
        connection = await asyncpg.connect(pg_database.admin_dsn)
        mine = await asyncpg.connect(ocs.dsn)
        for turn in range(1, 6):
            await _answers(mine, 40 * turn, tasks)
            ended = await connection.fetchval(
                """SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE usename = 'ocs' AND datname = current_database() AND pid <> $1""",
                mine.get_server_pid(),
            )
            assert ended > 0
        await mine.close()
        await connection.close()

    # The OCS repeats by itself what a connection took with it; that a client notices is not what is asked.
    await _load(ocs, trouble, random.Random(2), noticed=False)


async def test_an_account_that_is_locked_for_long_leaves_the_others_alone(ocs: Any) -> None:
    await asyncio.to_thread(ocs.start)
    async with ocs.client("alpha") as client:
        for n in range(2):
            account = {"subscriberIds": [f"imsi-20893000000{n:04}"], "currency": "EUR"}
            await client.put(f"/ocs/v1/accounts/k{n}", json=account)
        connection = await asyncpg.connect(ocs.dsn)
        async with connection.transaction():
            await connection.execute("SELECT FROM account WHERE account_id = 'k0' FOR UPDATE")

            def create(n: int) -> Any:
                body = {
                    "subscriberIdentifier": f"imsi-20893000000{n:04}",
                    "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
                    "invocationTimeStamp": "2026-01-01T00:00:00Z",
                    "invocationSequenceNumber": 0,
                }
                return client.post(NCHF, json=body)

            stuck = asyncio.create_task(create(0))
            free = await create(1)
            assert free.status_code == 201
            answer = await stuck
            assert (answer.status_code, answer.json()["cause"]) == (503, "SYSTEM_FAILURE")
            assert answer.headers["retry-after"]
        assert (await create(0)).status_code == 201
        await connection.close()


async def _answers(connection: asyncpg.Connection, count: int, tasks: list[asyncio.Task[None]]) -> None:
    """Wait until so many requests have been answered, so that what follows meets load."""
    while await connection.fetchval("SELECT count(*) FROM answer") < count and not all(t.done() for t in tasks):
        await asyncio.sleep(0.005)
