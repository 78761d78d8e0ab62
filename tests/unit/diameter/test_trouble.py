"""Replicas and connections die under a load on both front ends at once; what was charged is what was used.

One request in ten comes twice, one in ten overtakes the one before it. Families share accounts over Gy and Nchf.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest
from diameter_peer import Peer, mscc, octets

KEY = "22" * 32
NCHF = "/nchf-convergedcharging/v3/chargingdata"
ACCOUNTS, WALKERS, REPORTS = 6, 24, 12
TOKEN = f"alpha.{hmac.new(bytes.fromhex(KEY), b'alpha', hashlib.sha256).hexdigest()}"


@dataclass
class Load:
    """What all walkers share: the ways to two replicas, and what came of it."""

    ocs: Any
    order: random.Random
    peers: dict[int, Peer] = field(default_factory=dict)
    https: list[httpx.AsyncClient] = field(default_factory=list)
    used: int = 0
    lost: int = 0
    doubled: int = 0
    overtaken: int = 0
    gate: dict[int, asyncio.Lock] = field(default_factory=lambda: {0: asyncio.Lock(), 1: asyncio.Lock()})

    async def peer(self, replica: int) -> Peer:
        """The connection to a replica, made anew if it is gone. Raises OSError, IncompleteReadError."""
        async with self.gate[replica]:
            peer = self.peers.get(replica)
            if peer is None or peer.listening is None or peer.listening.done():
                peer = self.peers[replica] = await Peer.open(self.ocs.diameter[replica], "pgw.test")
            return peer

    async def until_answered(self, ask: Any) -> Any:
        """The answer of any replica; a request without one is sent again, marked as a repeat where it can be."""
        again = False
        for _ in range(600):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, httpx.TransportError, TimeoutError):
                answer = await ask(self.order.randrange(2), again)
                if answer is not None:
                    return answer
            again = True
            self.lost += 1
            await asyncio.sleep(0.02)
        raise AssertionError("no replica answered")


class GyWalker:
    """A session over Diameter."""

    def __init__(self, load: Load, number: int) -> None:
        self.load, self.imsi = load, f"20893000000{number % ACCOUNTS:04}"
        self.session = f"pgw.test;{number};{uuid.uuid4().int % 2**32}"

    async def send(self, kind: int, number: int, used: int | None) -> tuple[Any, ...]:
        async def ask(replica: int, again: bool) -> Any:
            peer = await self.load.peer(replica)
            service = mscc(want=None if kind == 3 else [], used=None if used is None else [octets(used)])
            body = peer.ccr(kind, number, self.session, service, imsi=self.imsi)
            waiting = peer.send(272, body, flags=0xD0 if again else 0xC0)
            await asyncio.wait({waiting}, timeout=10)
            if waiting.cancelled() or not waiting.done() or waiting.result().result == 3004:
                return None
            return waiting.result()

        answer = await self.load.until_answered(ask)
        assert answer.result == 2001, (kind, number, answer.data)
        return (answer.all(456), answer.number(456, 268))

    async def begin(self) -> None:
        await self.send(1, 0, None)

    async def report(self, sequence: int, used: int) -> Any:
        return await self.send(2, sequence, used)

    async def end(self, sequence: int, used: int) -> Any:
        return await self.send(3, sequence, used)


class NchfWalker:
    """A session over HTTP."""

    def __init__(self, load: Load, number: int) -> None:
        self.load, self.where = load, NCHF
        self.body = {
            "subscriberIdentifier": f"imsi-20893000000{number % ACCOUNTS:04}",
            "nfConsumerIdentification": {"nodeFunctionality": "SMF", "nFName": "trouble"},
            "chargingId": number,
            "invocationTimeStamp": "2026-01-01T00:00:00Z",
        }

    async def send(self, path: str, sequence: int, used: int | None, status: int) -> tuple[Any, ...]:
        usage: dict[str, Any] = {"ratingGroup": 1} if path == "/release" else {"ratingGroup": 1, "requestedUnit": {}}
        if used is not None:
            usage["usedUnitContainer"] = [{"localSequenceNumber": sequence, "totalVolume": used}]
        body = {**self.body, "invocationSequenceNumber": sequence, "multipleUnitUsage": [usage]}

        async def ask(replica: int, again: bool) -> Any:
            answer = await self.load.https[replica].post(
                self.where + path, json={**body, "retransmissionIndicator": again}
            )
            return None if answer.status_code >= 500 else answer

        answer = await self.load.until_answered(ask)
        assert answer.status_code == status, answer.text
        if not path:
            self.where = answer.headers["location"]
        return (answer.content,)

    async def begin(self) -> None:
        await self.send("", 0, None, 201)

    async def report(self, sequence: int, used: int) -> Any:
        return await self.send("/update", sequence, used, 200)

    async def end(self, sequence: int, used: int) -> Any:
        return await self.send("/release", sequence, used, 204)


async def walk(load: Load, walker: GyWalker | NchfWalker) -> None:
    """One session's life."""

    async def once_or_twice(what: Any, sequence: int) -> None:
        used = load.order.randrange(1, 1500)
        load.used += used
        double = load.order.random() < 0.1
        load.doubled += double
        answers = await asyncio.gather(*(what(sequence, used) for _ in range(1 + double)))
        assert all(one == answers[0] for one in answers)

    await walker.begin()
    sequence = 1
    while sequence <= REPORTS:
        if load.order.random() < 0.1:
            load.overtaken += 1
            await once_or_twice(walker.report, sequence + 1)
            await once_or_twice(walker.report, sequence)
            sequence += 2
        else:
            await once_or_twice(walker.report, sequence)
            sequence += 1
    await once_or_twice(walker.end, sequence)


@pytest.fixture
async def load(own: Any) -> AsyncIterator[Load]:
    """Six accounts, two of which are used up in the middle, and clients of both replicas."""
    made = Load(own, random.Random(5))
    for number in range(ACCOUNTS):
        await asyncio.to_thread(
            own.call, "PUT", f"k{number}", {"subscriberIds": [f"imsi-20893000000{number:04}"], "currency": "EUR"}
        )
        bucket = {"unit": "octets", "amount": 50_000 if number > 3 else 10**9, "source": "plan:x"}
        grant = {"requestId": str(uuid.uuid4()), "buckets": [bucket]}
        await asyncio.to_thread(own.call, "POST", f"k{number}/grants", grant)
    made.https = [
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=15,
            http1=number == 0, http2=number == 1,
        )
        for number, port in enumerate(own.http)
    ]  # fmt: skip
    yield made
    for client in made.https:
        await client.aclose()
    for peer in made.peers.values():
        await peer.close()


async def _answers(connection: asyncpg.Connection, count: int, tasks: list[asyncio.Task[None]]) -> None:
    while await connection.fetchval("SELECT count(*) FROM answer") < count and not all(t.done() for t in tasks):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", ["replicas", "connections"])
async def test_deaths_under_load_change_no_balance(load: Load, own: Any, pg_database: Any, kind: str) -> None:
    walkers = [(GyWalker if number % 2 else NchfWalker)(load, number // 2) for number in range(WALKERS)]
    tasks = [asyncio.create_task(walk(load, walker)) for walker in walkers]
    mine, admin = await asyncpg.connect(own.dsn), await asyncpg.connect(pg_database.admin_dsn)
    turn = 0
    # A death between two requests is missed by nobody: until one was.
    while turn < 3 or (not load.lost and not all(task.done() for task in tasks)):
        turn += 1
        await _answers(mine, 60 * turn, tasks)
        if kind == "replicas":
            victim = own.processes[turn % 2]
            victim.kill()
            await asyncio.to_thread(victim.wait)
            await asyncio.to_thread(own.start, turn % 2)
        else:
            await admin.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE usename = 'ocs' AND datname = current_database() AND pid <> $1""",
                mine.get_server_pid(),
            )
    await asyncio.gather(*tasks)
    assert load.doubled > 0 and load.overtaken > 0
    assert load.lost > 0 or kind == "connections", "the deaths troubled nobody"
    charged = await mine.fetchval("SELECT sum(amount) FROM entry WHERE credit = 'used'")
    assert charged == load.used
    assert await mine.fetchval("SELECT count(*) FROM reservation") == 0
    assert await mine.fetchval("SELECT count(*) FROM session WHERE ended_at IS NULL") == 0
    await mine.close()
    await admin.close()
    checked = own.run("check")
    assert (checked.returncode, checked.stdout) == (0, "0 differences\n"), checked.stdout + checked.stderr
