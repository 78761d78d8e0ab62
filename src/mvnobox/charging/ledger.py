"""The ledger's charging side. A charging request is one statement, hence one transaction and one round trip."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, Protocol

import asyncpg
from asyncpg.pgproto.pgproto import UUID as Uuid  # a uuid.UUID that is made in a tenth of the time

from mvnobox.charging.settings import OcsSettings
from mvnobox.service import database

HEAD = "0010"
Operation = Literal["create", "update", "release"]
_CHARGE = """SELECT * FROM charge($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"""
# A connection that was lost is noticed by its next use; what has to be waited for longer than this is repeated.
ACQUIRE_SECONDS = 2.0
STATEMENT_SECONDS = 5.0
# Short lock waits, plans kept.
SERVER_SETTINGS = {
    "lock_timeout": "2000",
    "statement_timeout": "15000",
    "idle_in_transaction_session_timeout": "15000",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "timezone": "UTC",
    "application_name": "ocs",
}


class Units(NamedTuple):
    """What one rating group reports and asks: the unit it is rated in (None: not at all), used, wanted (None: none)."""

    rating: int
    unit: str | None
    used: int
    wanted: int | None


class Call(NamedTuple):
    """One charging request of a brand. A create has `subscriber`, `key` and `stamp`; its `ref` is the new session's, should
    it turn out to be new."""

    operation: Operation
    brand: str
    sequence: int
    units: list[Units]
    notify: str | None = None
    ref: uuid.UUID | None = None
    subscriber: str | None = None
    key: uuid.UUID | None = None
    stamp: dt.datetime | None = None
    again: bool = False
    scene: str | None = None
    """See `rating.scene.Scenery.told`; None: the brand has no rating."""


class Reply(NamedTuple):
    """`outcome`: done, late, repeated, unknown, mismatch or taken; `body`: the stored document; `overrun` and `denied` count."""

    outcome: str
    ref: uuid.UUID | None
    body: str | None
    overrun: int
    denied: int


Told = Callable[[Reply | Exception], None]


class Engine(Protocol):
    """Answers charging requests, each once."""

    def charge(self, call: Call) -> Awaitable[Reply]: ...


class PromptEngine(Engine, Protocol):
    """Takes them without anybody who waits: at thousands a second, a task each is much of what a request costs."""

    def submit(self, call: Call, told: Told) -> None:
        """`told` is called later and once, with the reply or with what `charge` would raise; it raises nothing."""
        ...


def create_key(*parts: object) -> uuid.UUID:
    """What makes two creates the same: 128 bits of a hash."""
    return Uuid(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:16])


def make_uuid(version: int, octets: bytes) -> uuid.UUID:
    """A UUID of a version, of RFC 9562's variant (section 4), of 16 octets."""
    made = bytearray(octets)
    made[6] = made[6] & 0x0F | version << 4
    made[8] = made[8] & 0x3F | 0x80
    return Uuid(bytes(made))


def new_ref() -> uuid.UUID:
    """A charging data reference: UUID version 7 (RFC 9562 section 5.7), so that new rows are neighbours in the indexes."""
    return make_uuid(7, int(time.time() * 1000).to_bytes(6) + os.urandom(10))


async def make_pool(dsn: str, size: int) -> asyncpg.Pool:
    """The OCS's connections."""
    return await database.make_pool(dsn, size=size, settings=SERVER_SETTINGS)


class Ledger:
    """Charging over a pool; holds no state of its own, so that replicas are alike."""

    def __init__(self, pool: asyncpg.Pool, settings: OcsSettings) -> None:
        self._pool = pool
        self._terms = settings.terms
        self._kept = settings.replies_kept_seconds

    async def ready(self) -> str | None:
        """None, or what is missing."""
        try:
            found = await self._pool.fetchval("SELECT max(version_num) FROM alembic_version", timeout=5)
        except asyncpg.UndefinedTableError:
            found = None
        return None if found is not None and found >= HEAD else "the migrations have not run"

    async def charge(self, call: Call) -> Reply:
        """See `charge` in the migrations. Raises what asyncpg raises; the same call may then be repeated."""
        units = call.units
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            row = await connection.fetchrow(
                _CHARGE,
                call.operation,
                call.brand,
                call.ref or new_ref(),
                call.sequence,
                call.subscriber,
                call.key,
                call.stamp,
                call.again,
                call.notify,
                [one.rating for one in units],
                [one.unit for one in units],
                [one.used for one in units],
                [one.wanted for one in units],
                *self._terms,
                call.scene,
                timeout=STATEMENT_SECONDS,
            )
        assert row is not None  # a function with OUT parameters always returns its row
        return Reply(*row)

    async def sweep(self) -> dict[str, int]:
        """Return what dead sessions hold, let ended buckets lapse, forget old replies; how many of each."""
        done = {"closed": 0, "lapsed": 0, "purged": 0}
        # One account a transaction: no sweep holds two accounts' locks.
        while await self._pool.fetchval("SELECT close_expired()"):
            done["closed"] += 1
        while await self._pool.fetchval("SELECT lapse_ended()"):
            done["lapsed"] += 1
        while count := await self._pool.fetchval("SELECT purge_ended($1, 500)", self._kept):
            done["purged"] += count
        return done


async def differences(dsn: str) -> list[tuple[str, str]]:
    """What violates the ledger's invariants; empty on a sound one.

    One statement, hence one moment of a ledger that goes on, over a connection of its own: all entries are read, which may
    take long, and none of the limits of charging connections is for that. It locks nobody out.
    """
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    connection = await asyncpg.connect(
        dsn, server_settings={**dict.fromkeys(limits, "0"), "application_name": "ocs-check"}
    )
    try:
        rows = await connection.fetch("SELECT what, difference FROM ledger_difference")
    finally:
        await connection.close()
    return [(row["what"], row["difference"]) for row in rows]
