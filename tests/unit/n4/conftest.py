"""A CTF between a scripted SMF and a scripted UPF, before a real OCS on a real database."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import subprocess
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from tests.chf import Chf, serving
from tests.ports import free_port

from mvnobox.n4.__main__ import notify_route
from mvnobox.n4.nchf import Nchf
from mvnobox.n4.notify import Addresses
from mvnobox.n4.proxy import Ctf
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.store import Store
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType, Message, Type
from mvnobox.pfcp.endpoint import Address, Endpoint
from mvnobox.service import database

SMF, CTF, UPF = "127.0.9.1", "127.0.9.2", "127.0.9.3"
KEY = "22" * 32
TOKEN = "alpha." + hmac.new(bytes.fromhex(KEY), b"alpha", hashlib.sha256).hexdigest()
QUANTUM, QUOTA = 1_000_000, 4_000_000


async def until(what: str, look: Callable[[], Any], seconds: float = 15) -> Any:
    """What `look` (a function or a coroutine function) gives as soon as it is truthy."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = look()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.02)


class Peer:
    """A scripted SMF or UPF: keeps what it was asked, answers with what it was given for that type."""

    def __init__(self, address: str, ctf: str) -> None:
        self.address, self.ctf = address, ctf
        self.asked: dict[int, list[Message]] = defaultdict(list)
        self.answers: dict[int, deque[Message]] = defaultdict(deque)
        # Types of requests that are refused, until they are taken out of here.
        self.refused: set[int] = set()
        # Types of requests that get no answer.
        self.silent: set[int] = set()
        self.endpoint: Endpoint

    async def open(self) -> None:
        self.endpoint = await Endpoint.open(self.address, 8805, self._handle, t1=1.0)

    async def _handle(self, message: Message, peer: Address) -> Message | None:
        if message.type == Type.HEARTBEAT_REQUEST:
            return Message(Type.HEARTBEAT_RESPONSE, 0, [codec.recovery(1_700_000_000)])
        self.asked[message.type].append(message)
        if message.type in self.silent:
            return None
        if message.type in self.refused:
            return Message(message.type + 1, 0, [codec.u8(IeType.CAUSE, 64)], seid=message.seid)
        if self.answers[message.type]:
            return self.answers[message.type].popleft()
        accepted = [codec.u8(IeType.CAUSE, 1)]
        if message.type == Type.ASSOCIATION_SETUP_REQUEST:
            accepted = [codec.node_id(self.address), *accepted, codec.recovery(1_700_000_000)]
        return Message(message.type + 1, 0, accepted, seid=message.seid)

    async def ask(self, message: Message) -> Message:
        return await self.endpoint.request(message, (self.ctf, 8805))


class Bench:
    """The CTF and those around it."""

    def __init__(self, ocs: str, addresses: tuple[str, str, str] = (SMF, CTF, UPF)) -> None:
        self.own = addresses[1]
        self.smf, self.upf = Peer(addresses[0], self.own), Peer(addresses[2], self.own)
        self.http = httpx.AsyncClient(base_url=ocs, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
        self.ctf: Ctf
        self.store: Store
        self.addresses = Addresses(TOKEN)
        self._running: asyncio.Task[None] | None = None
        self._nchf: Nchf | None = None

    async def start(self, settings: CtfSettings, store: Store) -> None:
        """The CTF, in the state that the database has."""
        self.settings, self.store = settings, store
        before = len(self.upf.asked[Type.ASSOCIATION_SETUP_REQUEST])
        self._nchf = Nchf(settings, TOKEN, self.addresses)
        self.ctf = Ctf(settings, store, self._nchf)
        self._running = asyncio.ensure_future(self.ctf.run())
        await until(
            "the association with the UPF", lambda: len(self.upf.asked[Type.ASSOCIATION_SETUP_REQUEST]) > before
        )

    async def stop(self) -> None:
        """The CTF's end, in the middle of whatever it does."""
        if self._running is not None and self._nchf is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            await self._nchf.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start(self.settings, self.store)

    async def notify(self, path: str, kind: str = "ABORT_CHARGING") -> int:
        """What the CTF answers to a notification."""
        transport = httpx.ASGITransport(app=Starlette(routes=[notify_route(self.ctf, self.addresses)]))
        async with httpx.AsyncClient(transport=transport, base_url="http://ctf") as client:
            return (await client.post(path, json={"notificationType": kind})).status_code

    async def account(self, imsi: str, octets: int) -> None:
        """An account with so much credit."""
        body = {"subscriberIds": [f"imsi-{imsi}"], "currency": "EUR", "timezone": "Europe/Paris", "status": "active"}
        (await self.http.put("/ocs/v1/accounts/a1", json=body)).raise_for_status()
        await self.grant(octets)

    async def grant(self, octets: int) -> None:
        bucket = {"unit": "octets", "amount": octets, "validUntil": None, "priority": 10, "source": "plan:test"}
        body = {"requestId": str(uuid4()), "buckets": [bucket]}
        (await self.http.post("/ocs/v1/accounts/a1/grants", json=body)).raise_for_status()

    async def used(self) -> int:
        found = (await self.http.get("/ocs/v1/accounts/a1/usage")).raise_for_status().json()
        return int(found["totals"].get("octets", 0))


@pytest.fixture
async def bench(pg_database: Any, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """The CTF before the OCS; the parameter, where there is one, are further settings of the OCS."""
    port, more = free_port(), getattr(request, "param", {})
    environment = {**os.environ, "DATABASE_URL": pg_database.dsn("ocs"), "OCS_TENANT_KEY": KEY}
    config = tmp_path / "ocs.yaml"
    config.write_text(yaml.safe_dump({"listen": f"127.0.0.1:{port}", "quota": {"octets": QUOTA}, **more}))
    command = [sys.executable, "-m", "mvnobox.charging"]
    subprocess.run([*command, "migrate", "--config", str(config)], env=environment, check=True, capture_output=True)
    with open(tmp_path / "ocs.log", "wb") as log:
        ocs = subprocess.Popen([*command, "serve", "--config", str(config)], env=environment, stdout=log, stderr=log)
    made = Bench(f"http://127.0.0.1:{port}")

    async def ready() -> bool:
        try:
            return (await made.http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    await until("the OCS", ready, 60)
    async with around(made, f"http://127.0.0.1:{port}", pg_database):
        yield made
    ocs.terminate()
    await asyncio.to_thread(ocs.wait, 10)


@pytest.fixture
async def scripted(pg_database: Any) -> AsyncIterator[tuple[Bench, Chf]]:
    """The CTF before a scripted charging function."""
    chf = Chf(QUOTA)
    async with serving(chf) as address:
        made = Bench(address)
        async with around(made, address, pg_database):
            yield made, chf


@pytest.fixture
async def ignoring(pg_database: Any) -> AsyncIterator[tuple[Bench, Chf]]:
    """The same before a UPF that sends uplink packets on whatever the Apply Action says."""
    chf = Chf(QUOTA)
    async with serving(chf) as address:
        made = Bench(address)
        async with around(made, address, pg_database, upf_ignores_drop=True):
            yield made, chf


@contextlib.asynccontextmanager
async def around(made: Bench, ocs: str, pg_database: Any, **more: Any) -> AsyncIterator[None]:
    """CTF, SMF and UPF; `more` settings of the CTF."""
    dsn = pg_database.dsn("ctf_alpha")
    await database.migrate(dsn, Path(database.__file__).parents[1] / "n4/migrations")
    pool = await database.make_pool(dsn)
    settings = CtfSettings(
        brand="alpha", listen=made.own, advertise=made.own, upf=made.upf.address, ocs=ocs,
        notify_uri=f"http://127.0.0.1:{free_port()}", quota_octets=QUOTA, reporting_quantum_octets=QUANTUM, **more,
    )  # fmt: skip
    await made.smf.open()
    await made.upf.open()
    try:
        await made.start(settings, Store(pool))
        yield
    finally:
        await made.stop()
        made.smf.endpoint.close()
        made.upf.endpoint.close()
        await made.http.aclose()
        pool.terminate()


def placed(ies: list[Ie], seid: int | None, address: str) -> list[Ie]:
    """Elements with another Node ID and F-SEID; `seid` None keeps the F-SEID's own."""
    out = []
    for ie in ies:
        if ie.type == IeType.NODE_ID:
            ie = codec.node_id(address)
        elif ie.type == IeType.F_SEID:
            ie = codec.f_seid(codec.parse_f_seid(ie)[0] if seid is None else seid, address)
        out.append(ie)
    return out
