"""A MongoDB for tests: the one that MVNO_TEST_MONGODB names, else FerretDB on the tests' own PostgreSQL."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pymongo.errors
import pytest
from tests.ports import free_port

from mvnobox.deploy.report import PlainReporter
from mvnobox.deploy.toolchain import ensure_tool, tool
from mvnobox.errors import KitError


class Server:
    """A server that speaks MongoDB's protocol; FerretDB can be killed and started again on its port."""

    def __init__(self, uri: str, command: list[str] | None = None) -> None:
        self._uri, self._command = uri, command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def can_be_killed(self) -> bool:
        return self._command is not None

    def start(self) -> None:
        if self._command is not None:
            self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        self.await_answer()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def await_answer(self, seconds: float = 30) -> None:
        client: Any = pymongo.MongoClient(self._uri, serverSelectionTimeoutMS=1000)
        deadline = time.monotonic() + seconds
        try:
            while True:
                try:
                    client.admin.command("ping")
                    return
                except pymongo.errors.PyMongoError:
                    assert self._process is None or self._process.poll() is None, "FerretDB ended"
                    if time.monotonic() > deadline:
                        raise
        finally:
            client.close()

    def uri(self, database: str) -> str:
        parts = urlsplit(self._uri)
        return urlunsplit(parts._replace(path=f"/{database}"))


@dataclass(frozen=True)
class MongoDb:
    """One test's database on a server."""

    server: Server
    name: str
    client: Any

    @property
    def uri(self) -> str:
        return self.server.uri(self.name)

    @property
    def subscribers(self) -> Any:
        return self.client[self.name]["subscribers"]

    @property
    def has_streams(self) -> bool:
        return "setName" in self.client.admin.command("hello")


def _can_build() -> bool:
    return bool(shutil.which("go")) or os.access("/usr/local/go/bin/go", os.X_OK)


def make_server(pg_admin_dsn: str) -> Server:
    """A server that answers; the caller kills FerretDB."""
    if given := os.environ.get("MVNO_TEST_MONGODB"):
        server = Server(given)
    else:
        if not tool("ferretdb").path.exists() and not _can_build():
            pytest.skip("no MongoDB: neither MVNO_TEST_MONGODB nor Go, with which FerretDB is built")
        try:
            binary = ensure_tool("ferretdb", PlainReporter())
        except KitError as error:
            pytest.skip(f"no MongoDB: FerretDB was not built: {error.cause.splitlines()[0]}")
        database, port = f"ferretdb_{secrets.token_hex(4)}", free_port()
        made = ["psql", "-X", "-q", pg_admin_dsn, "-c", f"CREATE DATABASE {database}"]
        subprocess.run(made, check=True)
        # It keeps a connection for each update of a command.
        url = pg_admin_dsn.replace("postgresql://", "postgres://", 1).rsplit("/", 1)[0]
        store = f"{url}/{database}?pool_max_conns=100"
        server = Server(
            f"mongodb://127.0.0.1:{port}/", [str(binary), "-listen", f"127.0.0.1:{port}", "-postgresql", store]
        )
    server.start()
    return server
