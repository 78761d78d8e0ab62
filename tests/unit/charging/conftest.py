"""Real OCS processes over a real PostgreSQL.

`shared` is one database with two replicas for the whole run: a test takes a brand of its own, so that none sees
another's accounts, and when the run ends the ledger of all of them together is checked. `ocs` is a fresh database for
tests that kill, migrate or change the clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.ports import free_port

KEY = "11" * 32
NCHF = "/nchf-convergedcharging/v3/chargingdata"


def token(brand: str) -> str:
    return f"{brand}.{hmac.new(bytes.fromhex(KEY), brand.encode(), hashlib.sha256).hexdigest()}"


@dataclass
class Ocs:
    """Replicas of the OCS over one database."""

    folder: Path
    dsn: str
    settings: str = "quota: {octets: 1000}\nratingGroups: {1: octets, 2: octets, 3: seconds}\n"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        config = self.folder / "ocs.yaml"
        config.write_text("listen: 127.0.0.1:1\n")
        return subprocess.run(
            [sys.executable, "-m", "mvnobox.charging", verb, "--config", str(config)],
            env=self.environment(),
            capture_output=True,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        return {**os.environ, "DATABASE_URL": self.dsn, "OCS_TENANT_KEY": KEY}

    def start(self, port: int | None = None) -> int:
        """Start a replica, on a port of an earlier one if given; waits until it is ready."""
        port = port or free_port()
        config, log = self.folder / f"ocs-{port}.yaml", self.folder / f"ocs-{port}.log"
        config.write_text(f"listen: 127.0.0.1:{port}\n{self.settings}")
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "mvnobox.charging", "serve", "--config", str(config)],
                env=self.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        if port not in self.ports:
            self.ports.append(port)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    return port
            except (OSError, urllib.error.URLError):
                time.sleep(0.02)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            if process.returncode is None:
                assert process.wait(5) == 0

    def client(self, brand: str, replica: int = 0, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.ports[replica]}",
            headers={"Authorization": f"Bearer {token(brand)}"},
            timeout=15,
            **options,
        )


@pytest.fixture(scope="session")
def shared(pg_admin_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ocs]:
    name = f"charging_{uuid.uuid4().hex[:8]}"

    async def prepare() -> None:
        connection = await asyncpg.connect(pg_admin_dsn)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'shared'")
        await connection.close()
        connection = await asyncpg.connect(pg_admin_dsn.rsplit("/", 1)[0] + f"/{name}")
        await connection.execute(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
        await connection.close()

    asyncio.run(prepare())
    host = pg_admin_dsn.rsplit("@", 1)[1].split("/", 1)[0]
    made = Ocs(tmp_path_factory.mktemp("ocs"), f"postgresql://{name}:shared@{host}/{name}")
    done = made.run("migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        made.start()
        made.start()
        yield made
    finally:
        made.stop()
    checked = made.run("check")
    assert checked.returncode == 0 and checked.stdout == "0 differences\n", checked.stdout + checked.stderr


@pytest.fixture
def bare(pg_database: Any, tmp_path: Path) -> Iterator[Ocs]:
    """A fresh database without a schema."""
    made = Ocs(tmp_path, pg_database.dsn("ocs"))
    yield made
    made.stop()


@pytest.fixture
def ocs(bare: Ocs) -> Ocs:
    """A fresh, migrated database; no replica runs yet."""
    done = bare.run("migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    return bare


@dataclass
class Tenant:
    """A brand with one account, seen through a client of each replica."""

    brand: str
    imsi: str
    one: httpx.AsyncClient
    two: httpx.AsyncClient
    database: asyncpg.Connection
    account: str = "a1"

    def body(self, sequence: int, used: int | None = None, want: int | None = 0, **more: Any) -> dict[str, Any]:
        """A request of rating group 1; `want` None asks for nothing, 0 for whatever there is."""
        usage: dict[str, Any] = {"ratingGroup": more.pop("group", 1)}
        if want is not None:
            usage["requestedUnit"] = {"totalVolume": want} if want else {}
        if used is not None:
            usage["usedUnitContainer"] = [{"localSequenceNumber": sequence, "totalVolume": used}]
        return {
            "subscriberIdentifier": self.imsi,
            "nfConsumerIdentification": {"nodeFunctionality": "SMF", "nFName": "smf-1"},
            "invocationTimeStamp": "2026-01-01T00:00:00Z",
            "invocationSequenceNumber": sequence,
            "multipleUnitUsage": [usage],
            **more,
        }

    async def put(self, amount: int = 2500, **more: Any) -> None:
        body = {"subscriberIds": [self.imsi], "currency": "EUR", **more}
        made = await self.one.put(f"/ocs/v1/accounts/{self.account}", json=body)
        assert made.status_code in (200, 201), made.text
        if amount:
            assert (await self.grant(amount)).status_code == 200

    async def grant(self, amount: int, request_id: str | None = None, **more: Any) -> httpx.Response:
        bucket = {"unit": "octets", "amount": amount, "source": "plan:test", **more}
        body = {"requestId": request_id or str(uuid.uuid4()), "buckets": [bucket]}
        return await self.one.post(f"/ocs/v1/accounts/{self.account}/grants", json=body)

    async def create(self, charging_id: int = 7, **more: Any) -> tuple[str, dict[str, Any]]:
        """(location, the information of the rating group) of a new session."""
        answer = await self.one.post(NCHF, json=self.body(0, chargingId=charging_id, **more))
        assert answer.status_code == 201, answer.text
        return answer.headers["location"], answer.json()["multipleUnitInformation"][0]

    async def update(self, where: str, sequence: int, used: int | None = None, **more: Any) -> dict[str, Any]:
        answer = await self.one.post(f"{where}/update", json=self.body(sequence, used, **more))
        assert answer.status_code == 200, answer.text
        information: dict[str, Any] = answer.json()["multipleUnitInformation"][0]
        return information

    async def release(self, where: str, sequence: int, used: int | None = None) -> None:
        answer = await self.one.post(f"{where}/release", json=self.body(sequence, used, want=None))
        assert (answer.status_code, answer.content) == (204, b""), answer.text

    async def totals(self, unit: str = "octets") -> tuple[int, int, int, int]:
        """(granted, used, held, available)"""
        found = (await self.one.get(f"/ocs/v1/accounts/{self.account}/balances")).json()["totals"].get(unit, {})
        return tuple(found.get(key, 0) for key in ("granted", "used", "held", "available"))  # type: ignore[return-value]

    async def usage(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.one.get(f"/ocs/v1/accounts/{self.account}/usage")).json()
        return found


@pytest.fixture
async def tenant(shared: Ocs) -> AsyncIterator[Tenant]:
    brand = f"b{uuid.uuid4().hex[:10]}"
    imsi = f"imsi-20893{uuid.uuid4().int % 10**10:010}"
    connection = await asyncpg.connect(shared.dsn)
    async with shared.client(brand, 0) as one, shared.client(brand, 1) as two:
        yield Tenant(brand, imsi, one, two, connection)
    await connection.close()


@dataclass
class Consumer:
    """What receives notifications: answers with `statuses` in turn, then 204; `heard` has (path, event id, body)."""

    uri: str
    heard: asyncio.Queue[tuple[str, str, dict[str, Any]]]
    statuses: list[int]

    async def next(self, seconds: float = 10) -> dict[str, Any]:
        return (await asyncio.wait_for(self.heard.get(), seconds))[2]


@pytest.fixture
async def consumer() -> AsyncIterator[Consumer]:
    heard: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue()
    statuses: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
            body = json.loads(await reader.readexactly(int(fields["content-length"])))
            heard.put_nowait((head.split(" ")[1], fields["x-event-id"], body))
            status = statuses.pop(0) if statuses else 204
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield Consumer(f"http://127.0.0.1:{port}/notify", heard, statuses)
    server.close()
