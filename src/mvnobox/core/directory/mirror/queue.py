"""What the mirror has not been told yet: rows of PostgreSQL, written with the changes, that replicas claim."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import asyncpg

from mvnobox.core.directory.mirror.plan import State
from mvnobox.core.directory.store import COLUMNS, QUERY_SECONDS

log = logging.getLogger(__name__)
# Longer than a batch takes; when its holder dies, another replica takes over.
LEASE_SECONDS = 60.0
# So many subscribers of before are noted at a time, and only when nothing else waits: orders have the way.
_SEEDED_AT_ONCE = 1000
LEAVE_SECONDS = 2.0
# After so long without a sign of life a mirror is no more, and another MongoDB may take its place.
_GONE = "interval '1 minute'"
_HOLD = f"""INSERT INTO mirror AS m (target) VALUES ($1) ON CONFLICT (one) DO UPDATE
    SET seen = clock_timestamp(), target = excluded.target,
        seeded = CASE WHEN m.target = excluded.target THEN m.seeded ELSE '' END
    WHERE m.target = excluded.target OR m.seen < clock_timestamp() - {_GONE}
    RETURNING 1"""
_CLAIM = """UPDATE unmirrored u SET label = nextval('mirror_label'), attempts = attempts + 1,
        fresh = false, leased_until = clock_timestamp() + make_interval(secs => $3)
    FROM (SELECT imsi, fresh FROM unmirrored WHERE next_at <= now() AND (leased_until IS NULL OR leased_until < now())
        ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED) due
    WHERE u.imsi = due.imsi AND EXISTS (SELECT FROM mirror WHERE target = $1)
    RETURNING u.imsi, u.label, u.attempts, due.fresh"""
# Later than the claim, so that it has all that was noted before it.
_STATES = f"""SELECT q.imsi AS who, w.imsi IS NOT NULL AS leaving, {", ".join("s." + c.strip() for c in COLUMNS.split(","))}
    FROM unnest($1::text[]) q (imsi) LEFT JOIN subscriber s ON s.imsi = q.imsi
    LEFT JOIN withdrawal w ON w.imsi = q.imsi"""
# Rows that an order holds are left for another time: waiting for several of them at once could deadlock with it.
_SETTLE = """WITH mine AS (
        SELECT u.imsi, m.label, m.delay FROM unmirrored u
        JOIN unnest($1::text[], $2::bigint[], $3::float8[]) m (imsi, label, delay) ON m.imsi = u.imsi
        FOR UPDATE OF u SKIP LOCKED),
    gone AS (DELETE FROM unmirrored u USING mine m WHERE u.imsi = m.imsi AND u.label = m.label AND m.delay < 0),
    left_over AS (UPDATE unmirrored u SET leased_until = NULL,
            next_at = CASE WHEN u.label = m.label THEN clock_timestamp() + make_interval(secs => m.delay)
                ELSE u.next_at END
        FROM mine m WHERE u.imsi = m.imsi AND NOT (u.label = m.label AND m.delay < 0))
    SELECT imsi FROM mine"""
_NOTE = """INSERT INTO unmirrored AS u (imsi) SELECT DISTINCT i FROM unnest($1::text[]) i ORDER BY i
    ON CONFLICT (imsi) DO UPDATE SET label = nextval('mirror_label'), next_at = clock_timestamp()"""
# `Held.delay` of what is done.
DONE = -1.0


@dataclass(frozen=True)
class Held:
    """A claim: its number, whether the subscriber is new, and after how many seconds it is to be made again."""

    label: int
    attempts: int
    fresh: bool = False
    delay: float = 0.0


@dataclass(frozen=True)
class Backlog:
    """How many subscribers wait, and how long the first of them has."""

    waiting: int
    seconds: float


class Queue:
    """The rows for one MongoDB."""

    def __init__(self, pool: asyncpg.Pool, target: str) -> None:
        """`target`: what tells this MongoDB from another."""
        self._pool, self._target = pool, target

    async def hold(self) -> bool:
        """Say that this MongoDB follows; from the first time on changes are noted. False while another one does."""
        return await self._pool.fetchval(_HOLD, self._target, timeout=QUERY_SECONDS) is not None

    async def leave(self) -> None:
        """A replica's orderly end. Who still follows says so within seconds; without such a one the MongoDB is done with."""
        statement = "UPDATE mirror SET seen = '-infinity' WHERE target = $1"
        await self._pool.execute(statement, self._target, timeout=LEAVE_SECONDS)

    async def go_on_from(self, label: int) -> None:
        """Number claims above what documents have: the database may be younger than they are, after a disaster."""
        statement = "SELECT setval('mirror_label', $1) WHERE $1 > (SELECT last_value FROM mirror_label)"
        await self._pool.execute(statement, label, timeout=QUERY_SECONDS)

    async def claim(self, most: int) -> dict[str, Held]:
        """IMSIs that nobody else writes at present."""
        rows = await self._pool.fetch(_CLAIM, self._target, most, LEASE_SECONDS, timeout=QUERY_SECONDS)
        return {row["imsi"]: Held(row["label"], row["attempts"], row["fresh"]) for row in rows}

    async def states(self, imsis: Iterable[str]) -> list[State]:
        """How the directory has them now."""
        rows = await self._pool.fetch(_STATES, list(imsis), timeout=2 * QUERY_SECONDS)
        return [State(row["who"], row if row["imsi"] is not None else None, row["leaving"]) for row in rows]

    async def settle(self, held: Mapping[str, Held]) -> set[str]:
        """Give claims back. Those that an order holds at this moment stay; returns the IMSIs that need it no more."""
        if not held:
            return set()
        imsis = list(held)
        rows = await self._pool.fetch(
            _SETTLE,
            imsis,
            [one.label for one in held.values()],
            [one.delay for one in held.values()],
            timeout=2 * QUERY_SECONDS,
        )
        settled = {row["imsi"] for row in rows}
        if rest := [imsi for imsi in imsis if imsi not in settled]:
            there = await self._pool.fetch(
                "SELECT imsi FROM unmirrored WHERE imsi = ANY($1::text[])", rest, timeout=QUERY_SECONDS
            )
            lost = set(rest) - {row["imsi"] for row in there}
            if lost:
                # The lease ended and somebody else was quicker: what was written here may be older.
                log.warning("mirror: claims were taken over", extra={"subscribers": len(lost)})
                await self.note(lost)
            settled |= lost
        return settled

    async def note(self, imsis: Iterable[str]) -> None:
        """Have documents looked at again."""
        await self._pool.execute(_NOTE, list(imsis), timeout=QUERY_SECONDS)

    async def backlog(self) -> Backlog:
        """What waits."""
        row = await self._pool.fetchrow(
            """SELECT (SELECT count(*) FROM unmirrored) AS waiting, greatest(coalesce(extract(epoch FROM
                clock_timestamp() - (SELECT since FROM unmirrored ORDER BY since LIMIT 1)), 0), 0)::float8 AS seconds""",
            timeout=QUERY_SECONDS,
        )
        assert row is not None
        return Backlog(row["waiting"], row["seconds"])

    async def seed(self) -> int:
        """Note some subscribers of before; how many. 0: all are noted, or it is not the time yet."""
        async with self._pool.acquire() as connection, connection.transaction():
            # The one to give way where an order waits for a row of the same batch.
            await connection.execute("SET LOCAL lock_timeout = '200ms'")
            # Transactions that began unnoticed have to have ended.
            after = await connection.fetchval(
                """SELECT seeded FROM mirror WHERE target = $1 AND seeded <> '~'
                    AND xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint FOR UPDATE SKIP LOCKED""",
                self._target,
            )
            if after is None:
                return 0
            imsis = await connection.fetch(
                "SELECT imsi FROM subscriber WHERE imsi > $1 ORDER BY imsi LIMIT $2", after, _SEEDED_AT_ONCE
            )
            await connection.execute(_NOTE, [row["imsi"] for row in imsis])
            last = imsis[-1]["imsi"] if len(imsis) == _SEEDED_AT_ONCE else "~"
            await connection.execute("UPDATE mirror SET seeded = $1", last)
            return len(imsis)

    async def to_be_searched(self) -> bool:
        """Whether all subscribers are noted and the MongoDB is to be searched for those that are none any more."""
        statement = "SELECT count(*) FROM mirror WHERE target = $1 AND seeded = '~'"
        return bool(await self._pool.fetchval(statement, self._target, timeout=QUERY_SECONDS))

    async def searched(self) -> None:
        """The search is over."""
        statement = "UPDATE mirror SET seeded = NULL WHERE target = $1 AND seeded = '~'"
        await self._pool.execute(statement, self._target, timeout=QUERY_SECONDS)

    async def strangers(self, imsis: list[str]) -> list[str]:
        """Those that are no subscribers of the directory."""
        rows = await self._pool.fetch(
            """SELECT i FROM unnest($1::text[]) i WHERE NOT EXISTS (SELECT FROM subscriber s WHERE s.imsi = i)""",
            imsis,
            timeout=QUERY_SECONDS,
        )
        return [row["i"] for row in rows]

    async def resynchronise(self) -> bool:
        """Have every document looked at again. False where no such mirror runs."""
        statement = "UPDATE mirror SET seeded = '' WHERE target = $1 RETURNING 1"
        return await self._pool.fetchval(statement, self._target, timeout=QUERY_SECONDS) is not None


async def forget(pool: asyncpg.Pool) -> None:
    """Where there is no mirror: note nothing any more, once nobody with one has been alive for a while."""
    await pool.execute(f"DELETE FROM mirror WHERE seen < clock_timestamp() - {_GONE}", timeout=QUERY_SECONDS)
    await pool.execute("DELETE FROM unmirrored WHERE NOT EXISTS (SELECT FROM mirror)", timeout=2 * QUERY_SECONDS)
