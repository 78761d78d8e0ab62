"""A directory server on a real PostgreSQL, its clients, and a brand's way to provision."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pymongo
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.public import PrivateKey, SealedBox
from tests.mongodb import MongoDb, Server, make_server

from mvnobox.core.directory.__main__ import MIGRATIONS
from mvnobox.core.directory.commands import Commands
from mvnobox.core.directory.documents import Assembler
from mvnobox.core.directory.mirror.plan import owner_of
from mvnobox.core.directory.mirror.target import Target
from mvnobox.core.directory.mirror.worker import Mirror
from mvnobox.core.directory.scram import Credential
from mvnobox.core.directory.server import DirectoryServer
from mvnobox.core.directory.store import make_pool
from mvnobox.service import database

IMSI = "208930000000001"
KEYS = {"k": "465b5ce8b199b49faa5f0a2ee238a6bc", "opc": "cd63cb71954a9f4e48a5994e37a02baf", "amf": "8000"}
AMBR = {"downlink": {"value": 50, "unit": 2}, "uplink": {"value": 10, "unit": 2}}
DOCUMENT = {
    "schema_version": 1,
    "subscriber_status": 0,
    "operator_determined_barring": 0,
    "network_access_mode": 0,
    "access_restriction_data": 32,
    "subscribed_rau_tau_timer": 12,
    "ambr": AMBR,
    "slice": [
        {
            "sst": 1,
            "sd": "000001",
            "default_indicator": True,
            "session": [
                {
                    "name": "internet",
                    "type": 1,
                    "qos": {
                        "index": 9,
                        "arp": {"priority_level": 8, "pre_emption_capability": 1, "pre_emption_vulnerability": 2},
                    },
                    "ambr": AMBR,
                    "pcc_rule": [],
                }
            ],
        }
    ],
}


class Directory:
    """A running server: `port`, `put` as a brand's BSS does, `call` a blocking client function without blocking."""

    def __init__(self, server: DirectoryServer, port: int, dsn: Callable[[str], str], key: PrivateKey) -> None:
        self.server, self.port, self.dsn, self.key = server, port, dsn, key
        self.clients: list[Any] = []

    def seal(self, keys: Any = KEYS) -> bytes:
        return bytes(SealedBox(self.key.public_key).encrypt(json.dumps(keys).encode()))

    async def sql(self, statement: str, *arguments: Any, role: str = "bss_alpha") -> Any:
        connection = await asyncpg.connect(self.dsn(role))
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def put(
        self,
        imsi: str = IMSI,
        *numbers: str,
        role: str = "bss_alpha",
        document: Any = None,
        sealed: bytes | None = None,
    ) -> bytes:
        sealed = sealed or self.seal()
        text = json.dumps(DOCUMENT if document is None else document)
        statement = "SELECT directory.put_subscriber($1, $2, $3, $4)"
        await self.sql(statement, imsi, list(numbers), sealed, text, role=role)
        return sealed

    def client(self, **options: Any) -> Any:
        client = pymongo.MongoClient("127.0.0.1", self.port, serverSelectionTimeoutMS=5000, **options)
        self.clients.append(client)
        return client

    def subscribers(self, **options: Any) -> Any:
        return self.client(**options)["open5gs"]["subscribers"]


@contextlib.asynccontextmanager
async def running(
    pg_database: Any,
    users: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    key: PrivateKey | None = None,
    tells_amf: bool = False,
) -> AsyncIterator[Directory]:
    key = key or PrivateKey.generate()
    await database.migrate(pg_database.dsn("directory"), MIGRATIONS)
    pool = await make_pool(pg_database.dsn("directory"))
    known = {name: Credential.of(password) for name, password in (users or {}).items()}
    server = DirectoryServer(Commands(pool, bytes(key), "open5gs", tells_amf=tells_amf), known)
    listener = await server.listen("127.0.0.1", 0, tls)
    police = asyncio.create_task(server.police(0.05))
    found = Directory(server, listener.sockets[0].getsockname()[1], pg_database.dsn, key)
    try:
        yield found
    finally:
        for client in found.clients:
            await asyncio.to_thread(client.close)
        police.cancel()
        listener.close()
        pool.terminate()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that the service runs on: its transports differ from asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def directory(pg_database: Any) -> AsyncIterator[Directory]:
    async with running(pg_database) as found:
        yield found


@pytest.fixture
def start(pg_database: Any) -> Callable[..., contextlib.AbstractAsyncContextManager[Directory]]:
    """Start a directory with users, TLS, or as a replica with the key of another."""
    return lambda **options: running(pg_database, **options)


@pytest.fixture
def example() -> dict[str, Any]:
    """A document as a BSS provisions it; the caller may change it."""
    copy: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    return copy


@pytest.fixture(scope="session")
def mongodb_server(pg_admin_dsn: str) -> Iterator[Server]:
    server = make_server(pg_admin_dsn)
    yield server
    if server.can_be_killed:
        server.kill()


@pytest.fixture
def mongodb(mongodb_server: Server) -> Iterator[MongoDb]:
    """A database of its own on a server that speaks MongoDB's protocol and is not ours."""
    name = f"mvno_test_{secrets.token_hex(4)}"
    client: Any = pymongo.MongoClient(mongodb_server.uri(name), serverSelectionTimeoutMS=10_000)
    yield MongoDb(mongodb_server, name, client)
    client.drop_database(name)
    client.close()


class Mirrored:
    """A directory that a MongoDB follows: `caught_up` when nothing waits any more."""

    def __init__(self, directory: Directory, database: MongoDb, mirrors: list[Mirror]) -> None:
        self.directory, self.database, self.mirrors = directory, database, mirrors

    async def waiting(self) -> int:
        count: int = await self.directory.sql(
            """SELECT (SELECT count(*) FROM directory.unmirrored)
                + (SELECT count(*) FROM directory.mirror WHERE seeded IS NOT NULL)""",
            role="directory",
        )
        return count

    async def caught_up(self, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while await self.waiting():
                await asyncio.sleep(0.02)

    async def find(self, imsi: str = IMSI) -> Any:
        return await asyncio.to_thread(self.database.subscribers.find_one, {"imsi": imsi})

    async def update(self, change: Any, imsi: str = IMSI, **options: Any) -> None:
        """What the core writes."""
        await asyncio.to_thread(lambda: self.database.subscribers.update_one({"imsi": imsi}, change, **options))


@contextlib.asynccontextmanager
async def mirroring(
    directory: Directory, database: MongoDb, *, replicas: int = 1, tells_amf: bool = False
) -> AsyncIterator[Mirrored]:
    """Replicas of the mirror at work, the first of which has said that it is there."""
    pools = [await make_pool(directory.dsn("directory")) for _ in range(replicas)]
    assembler = Assembler(bytes(directory.key))
    owner = owner_of(assembler.public_key)
    mirrors = [Mirror(pool, Target(database.uri, owner), assembler, tells_amf=tells_amf) for pool in pools]
    await mirrors[0].step()
    tasks = [asyncio.create_task(mirror.run()) for mirror in mirrors]
    try:
        yield Mirrored(directory, database, mirrors)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in pools:
            pool.terminate()


@pytest.fixture
def mirror(mongodb: MongoDb) -> Callable[..., contextlib.AbstractAsyncContextManager[Mirrored]]:
    """Have the test's MongoDB follow a directory."""
    return lambda directory, **options: mirroring(directory, mongodb, **options)


@pytest.fixture
async def mirrored(directory: Directory, mongodb: MongoDb) -> AsyncIterator[Mirrored]:
    async with mirroring(directory, mongodb) as found:
        yield found


@dataclass(frozen=True)
class Served:
    """Where Open5GS would read a directory's subscribers: `put` as a brand does, and what it writes is there."""

    directory: Directory
    mirrored: Mirrored | None

    @property
    def uri(self) -> str:
        here = f"mongodb://127.0.0.1:{self.directory.port}/open5gs"
        return self.mirrored.database.uri if self.mirrored else here

    @property
    def has_streams(self) -> bool:
        return self.mirrored.database.has_streams if self.mirrored else True

    async def settled(self) -> None:
        if self.mirrored:
            await self.mirrored.caught_up()

    async def put(self, *arguments: Any, **options: Any) -> bytes:
        sealed = await self.directory.put(*arguments, **options)
        await self.settled()
        return sealed

    async def sql(self, *arguments: Any, **options: Any) -> Any:
        result = await self.directory.sql(*arguments, **options)
        await self.settled()
        return result

    def subscribers(self, **options: Any) -> Any:
        if self.mirrored is None:
            return self.directory.subscribers(**options)
        client: Any = pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=5000, **options)
        self.directory.clients.append(client)
        return client.get_default_database()["subscribers"]


@pytest.fixture(params=["directory", "mongodb"])
async def served(request: pytest.FixtureRequest, directory: Directory) -> AsyncIterator[Served]:
    """The directory itself, and a MongoDB of the user's own that follows it."""
    if request.param == "directory":
        yield Served(directory, None)
    else:
        async with mirroring(directory, request.getfixturevalue("mongodb")) as found:
            yield Served(directory, found)


Files = tuple[Path, Path]


@pytest.fixture
def make_certificate() -> Callable[[Files], None]:
    """Write (certificate, key) for 127.0.0.1, signed by itself."""
    return written_certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Files:
    """(certificate, key) for 127.0.0.1, signed by itself."""
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    written_certificate(files)
    return files


def written_certificate(files: Files) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "directory")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
    )
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    none = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
