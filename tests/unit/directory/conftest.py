"""A directory server on a real PostgreSQL, its clients, and a brand's way to provision."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
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

from mvnobox.core.directory.__main__ import MIGRATIONS
from mvnobox.core.directory.commands import Commands
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
