"""A real OCS with its Diameter listener over a real PostgreSQL; and a node in the test's own process for its limits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from mvnobox.charging.diameter.control import CreditControl
from mvnobox.charging.diameter.node import Node
from mvnobox.charging.diameter.ports import Customer
from mvnobox.charging.diameter.server import DiameterServer
from mvnobox.charging.diameter.settings import DiameterPeer, DiameterSettings
from mvnobox.charging.ledger import Call, Reply, Told
from mvnobox.charging.settings import OcsSettings

sys.path.insert(0, str(Path(__file__).parent))
from diameter_peer import Peer
from tests.ports import free_port

KEY = "22" * 32
GROUPS = {1: "octets", 2: "octets", 3: "seconds", 4: "messages", 5: "minor"}
BRANDED = [f"smf-{number}.alpha.test" for number in range(300)]
_branded = iter(BRANDED)
# Brands of a test's own, each with one peer.
BRANDS = [f"own{number}" for number in range(20)]
_brands = iter(BRANDS)
_imsis = itertools.count(208_930_000_100_001)


@dataclass
class Ocs:
    """Replicas over one database. Index n of `http` and `diameter` are replica n's ports."""

    folder: Path
    dsn: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    http: list[int] = field(default_factory=list)
    diameter: list[int] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "DATABASE_URL": self.dsn, "OCS_TENANT_KEY": KEY}

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        config = self.folder / "ocs.yaml"
        config.write_text("listen: 127.0.0.1:1\n")
        return subprocess.run(
            [sys.executable, "-m", "mvnobox.charging", verb, "--config", str(config)],
            env=self.environment(), capture_output=True, text=True,
        )  # fmt: skip

    def start(self, again: int | None = None, **more: Any) -> int:
        """One more replica, with settings of Diameter, or one that has ended; its number."""
        if again is None:
            self.http.append(free_port())
            self.diameter.append(free_port())
        number = len(self.http) - 1 if again is None else again
        http, diameter = self.http[number], self.diameter[number]
        config, log = self.folder / f"{http}.yaml", self.folder / f"{http}.log"
        settings = {
            "listen": f"127.0.0.1:{http}",
            "quota": {"octets": 1000, "seconds": 60, "messages": 5},
            "ratingGroups": GROUPS,
            "diameter": {
                "listen": f"127.0.0.1:{diameter}",
                "originHost": f"ocs{number}.test.realm",
                "originRealm": "test.realm",
                "freeRatingGroups": [9],
                **more,
            },
        }
        config.write_text(json.dumps(settings))
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "mvnobox.charging", "serve", "--config", str(config)],
                env=self.environment(), stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.processes[number:] = [process, *self.processes[number + 1 :]]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=5):
                    socket.create_connection(("127.0.0.1", diameter), 5).close()
                    return number
            except (OSError, urllib.error.URLError):
                time.sleep(0.02)
        raise AssertionError(log.read_text())

    def call(self, method: str, path: str, body: Any, brand: str = "alpha") -> Any:
        token = hmac.new(bytes.fromhex(KEY), brand.encode(), hashlib.sha256).hexdigest()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http[0]}/ocs/v1/{path if path == 'rating' else 'accounts/' + path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {brand}.{token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=15) as answer:
            return json.loads(answer.read() or b"null")

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            assert process.wait(5) in (0, -9)


@pytest.fixture(scope="session")
def ocs(pg_admin_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ocs]:
    """Replicas for the whole run: two for peers of any brand, one for peers of one; at its end the ledger is checked."""
    name = f"diameter_{uuid.uuid4().hex[:8]}"

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
        peers = [{"host": host, "brand": "alpha"} for host in BRANDED]
        peers += [{"host": f"smf.{brand}.test", "brand": brand} for brand in BRANDS]
        made.start(originHost="ocs0.test.realm", peers=peers)
        yield made
    finally:
        made.stop()
    checked = made.run("check")
    assert checked.returncode == 0 and checked.stdout == "0 differences\n", checked.stdout + checked.stderr


@pytest.fixture
def own(pg_database: Any, tmp_path: Path) -> Iterator[Ocs]:
    """Two replicas over a database of their own, for tests that kill; the second one knows its peer's brand."""
    made = Ocs(tmp_path, pg_database.dsn("ocs"))
    done = made.run("migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        made.start()
        made.start(peers=[{"host": "pgw.test", "brand": "alpha"}])
        yield made
    finally:
        made.stop()


@dataclass
class Account:
    """An account of brand alpha with an IMSI and a number of its own."""

    ocs: Ocs
    imsi: str
    msisdn: str

    def grant(self, amount: int, unit: str = "octets", **more: Any) -> None:
        bucket = {"unit": unit, "amount": amount, "source": "plan:test", **more}
        self.ocs.call("POST", f"{self.imsi}/grants", {"requestId": str(uuid.uuid4()), "buckets": [bucket]})

    def status(self, status: str) -> None:
        self.ocs.call("PATCH", self.imsi, {"status": status})

    def totals(self, unit: str = "octets") -> tuple[int, int, int, int]:
        """(granted, used, held, available)"""
        found = self.ocs.call("GET", f"{self.imsi}/balances", None)["totals"].get(unit, {})
        return tuple(found.get(key, 0) for key in ("granted", "used", "held", "available"))  # type: ignore[return-value]


@pytest.fixture
def account(ocs: Ocs) -> Account:
    imsi = str(next(_imsis))
    made = Account(ocs, imsi, "33" + imsi[-9:])
    body = {"subscriberIds": [f"imsi-{imsi}", f"msisdn-{made.msisdn}"], "currency": "EUR"}
    ocs.call("PUT", imsi, body)
    return made


@pytest.fixture(params=["any brand", "one brand"])
async def peer(request: pytest.FixtureRequest, ocs: Ocs) -> AsyncIterator[Peer]:
    """A peer for customers of any brand, which is looked up before each request; and one of brand alpha, whose requests
    go to the ledger at once."""
    branded = request.param == "one brand"
    host = next(_branded) if branded else f"smf-{uuid.uuid4().hex[:8]}.test"
    made = await Peer.open(ocs.diameter[2 if branded else 0], host)
    yield made
    await made.close()


@pytest.fixture(params=["any brand", "one brand"])
async def brand_peer(request: pytest.FixtureRequest, ocs: Ocs) -> AsyncIterator[tuple[str, Peer]]:
    """A brand that nobody else uses, and a peer for customers of any, or of this one."""
    brand = next(_brands)
    made = await Peer.open(ocs.diameter[2 if request.param == "one brand" else 0], f"smf.{brand}.test")
    yield brand, made
    await made.close()


class Scripted:
    """A ledger of a test's making: answers when `gate` is open, everything is granted; `calls` has what it was asked."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls: list[Call] = []
        self.then: Callable[[Call], Awaitable[None]] | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def charge(self, call: Call) -> Reply:
        self.calls.append(call)
        if self.then is not None:
            await self.then(call)
        if not self.gate.is_set():
            await self.gate.wait()
        infos = ",".join(
            f'{{"ratingGroup":{one.rating},"resultCode":"SUCCESS","grantedUnit":{{"totalVolume":{one.wanted or 0}}}}}'
            for one in call.units
        )
        return Reply("done", call.ref, f'{{"multipleUnitInformation":[{infos}]}}', 0, 0)

    def submit(self, call: Call, told: Told) -> None:
        async def wait() -> None:
            try:
                reply: Reply | Exception = await self.charge(call)
            except Exception as error:
                reply = error
            told(reply)

        task = asyncio.get_running_loop().create_task(wait())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Everyone:
    """A book in which every subscriber is a customer with 100 of everything."""

    async def find(self, subscribers: list[str], fresh: bool = False) -> Customer | None:
        return Customer(subscribers[0], "alpha", "a", "EUR") if subscribers else None

    async def brand_of(self, ref: uuid.UUID) -> str | None:
        return "alpha"

    async def credit(self, customer: Customer, seen: Any, wishes: list[tuple[str, int]]) -> Any:
        return "enough"

    async def refund(self, customer: Customer, request: uuid.UUID, unit: str, amount: int) -> bool:
        return True

    async def price(self, customer: Customer, seen: Any, unit: str, amount: int) -> Any:
        return None

    async def scenery(self, brand: str) -> Any:
        return None

    def remembered(self, brand: str) -> Any:
        return (None,)


@dataclass
class Served:
    """A node in this process."""

    engine: Scripted
    node: Node
    server: DiameterServer
    task: asyncio.Task[None]

    @property
    def port(self) -> int:
        return self.server.port

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture(params=["any brand", "one brand"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Start nodes with settings of a test's own; who may connect without being named stands for any brand, or for one."""
    running: list[Served] = []

    async def start(**more: Any) -> Served:
        engine = Scripted()
        settings = DiameterSettings.model_validate(
            {"listen": "127.0.0.1:0", "originHost": "ocs.test.realm", "originRealm": "test.realm", **more}
        )
        ocs = OcsSettings.model_validate({"ratingGroups": GROUPS})
        node = Node(settings, CreditControl(engine, Everyone(), ocs, settings))
        if request.param == "one brand" and settings.peers is None:
            node.peer = lambda host: DiameterPeer(host=host, brand="alpha")  # type: ignore[method-assign]
        server, started = DiameterServer(node), asyncio.Event()
        task = asyncio.create_task(server.run(started))
        await asyncio.wait_for(started.wait(), 5)
        running.append(Served(engine, node, server, task))
        return running[-1]

    yield start
    for one in running:
        one.engine.gate.set()
        for connection in list(one.node.connections):
            connection.abort()
        await one.stop()
