"""The services' pools: a server that takes connections and says nothing, as one does that is just ending."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from mvnobox.service.database import CONNECT_SECONDS, TROUBLE, make_pool


class Way:
    """To the database, as a Service is: it can be cut, and then takes connections that nobody answers."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.silent = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End the connections that there are; new ones get no answer."""
        self.silent = True
        for task in self._tasks:
            task.cancel()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.silent:
                await asyncio.Event().wait()
            there, back = await asyncio.open_connection(*self._target)
            with contextlib.closing(back):
                await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@pytest.fixture
async def way(pg_admin_dsn: str) -> AsyncIterator[tuple[Way, str]]:
    url = urlsplit(pg_admin_dsn)
    made = Way(url.hostname or "127.0.0.1", url.port or 5432)
    port = await made.open()
    place = f"{url.username}:{url.password}@127.0.0.1:{port}" if url.password else f"{url.username}@127.0.0.1:{port}"
    yield made, urlunsplit(url._replace(netloc=place))
    made.close()


async def test_a_server_that_says_nothing_is_trouble_at_once_and_then_gone(way: tuple[Way, str]) -> None:
    road, dsn = way
    pool = await make_pool(dsn, size=2)
    try:
        assert await pool.fetchval("SELECT 1") == 1
        road.cut()
        # The first may still meet the end of the connection that was there; the second has to make one.
        for _ in range(2):
            async with asyncio.timeout(CONNECT_SECONDS * 2 + 1):
                with pytest.raises(TROUBLE):
                    await pool.fetchval("SELECT 1")
        road.silent = False
        async with asyncio.timeout(CONNECT_SECONDS * 2 + 1):
            while True:
                with contextlib.suppress(*TROUBLE):
                    assert await pool.fetchval("SELECT 2") == 2
                    break
    finally:
        pool.terminate()


async def test_a_statement_may_take_no_longer_than_said(pg_admin_dsn: str) -> None:
    pool: asyncpg.Pool = await make_pool(pg_admin_dsn, seconds=0.1)
    try:
        with pytest.raises(TimeoutError):
            await pool.execute("SELECT pg_sleep(30)")
        assert await pool.fetchval("SELECT 1") == 1
    finally:
        pool.terminate()
