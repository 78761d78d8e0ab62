"""Queries: subscribers found by key, counted, read in order, changed."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from mvnobox.core.directory.lookups import Lookups
from mvnobox.core.directory.updates import Change
from mvnobox.service import database

COLUMNS = "imsi, msisdn, sealed, sqn, document, written"
_BY_IMSI = f"SELECT {COLUMNS} FROM subscriber WHERE imsi = ANY($1::text[])"
_BY_BOTH = f"""SELECT {COLUMNS} FROM subscriber WHERE imsi = ANY($1::text[])
    OR imsi IN (SELECT n.imsi FROM number n WHERE n.msisdn = ANY($2::text[])) ORDER BY imsi LIMIT $3"""
_IN_ORDER = f"SELECT {COLUMNS} FROM subscriber WHERE imsi > $1 ORDER BY imsi LIMIT $2"
# A query that takes longer has met a fault; Open5GS itself gives up after ten.
QUERY_SECONDS = 5.0
# How long a query is tried anew while the database is away (a restart, a failover): a look-up that fails has Open5GS
# refuse the UE as unknown, and an update that fails ends its UDR.
PATIENCE_SECONDS = 4.0
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    ConnectionError,
    socket.gaierror,
)
T = TypeVar("T")


async def make_pool(dsn: str, size: int = 8) -> asyncpg.Pool:
    """A pool for the directory: every query goes by key, so a plan from an empty table must not linger."""
    settings = {"enable_seqscan": "off", "jit": "off", "application_name": "directory"}
    return await database.make_pool(dsn, size=size, settings=settings)


class Store:
    """Queries over a pool."""

    def __init__(self, pool: asyncpg.Pool, *, tells_amf: bool = False) -> None:
        """`tells_amf`: whether an AMF is told of subscribers that are withdrawn."""
        self._pool, self._tells_amf = pool, tells_amf
        self._lookups = Lookups(self._rows)

    async def ready(self) -> str | None:
        """None, or what is missing."""
        known = await self._pool.fetchval("SELECT to_regclass('unmirrored')::text", timeout=QUERY_SECONDS)
        return None if known else "the migrations have not run"

    async def _reading(self, read: Callable[[], Awaitable[T]]) -> T:
        """Do what may be done twice; again on a fresh connection where the database went away in between."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        wait = 0.05
        while True:
            try:
                return await read()
            except _LOST:
                if time.monotonic() + wait > deadline:
                    raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, 0.5)

    async def _rows(self, imsis: list[str]) -> dict[str, Any]:
        rows = await self._reading(lambda: self._pool.fetch(_BY_IMSI, imsis, timeout=QUERY_SECONDS))
        return {row["imsi"]: row for row in rows}

    def by_imsi(self, imsi: str) -> Awaitable[Any]:
        """The row of an IMSI or None: the look-up of every registration."""
        return self._lookups.get(imsi)

    async def of_leaving(self, imsi: str) -> str | None:
        """What the core had written (JSON) of a subscriber that an AMF is being told to let go of; None: it is none."""
        if not self._tells_amf:
            return None
        statement = "SELECT written FROM withdrawal WHERE imsi = $1"
        written: str | None = await self._reading(lambda: self._pool.fetchval(statement, imsi, timeout=QUERY_SECONDS))
        return written

    async def by_keys(self, imsis: list[str], msisdns: list[str], limit: int) -> list[Any]:
        """Rows of any of the keys, in the order of their IMSIs."""
        return list(
            await self._reading(lambda: self._pool.fetch(_BY_BOTH, imsis, msisdns, limit, timeout=QUERY_SECONDS))
        )

    async def in_order(self, after: str, limit: int) -> list[Any]:
        """Rows in the order of their IMSIs, after one."""
        return list(await self._reading(lambda: self._pool.fetch(_IN_ORDER, after, limit, timeout=QUERY_SECONDS)))

    async def count(self) -> int:
        """How many subscribers there are."""
        statement = "SELECT count(*) FROM subscriber"
        return int(await self._reading(lambda: self._pool.fetchval(statement, timeout=QUERY_SECONDS)))

    async def update(self, imsi: str, change: Change) -> tuple[bool, bool]:
        """Apply a change to one subscriber: (matched, modified)."""
        statement = change.statement()

        async def write() -> Any:
            return await self._pool.fetchrow(statement, imsi, *change.parameters, timeout=QUERY_SECONDS)

        row = await (self._reading(write) if change.repeatable else write())
        assert row is not None
        return row["matched"], row["modified"]
