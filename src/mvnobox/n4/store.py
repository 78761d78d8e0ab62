"""The CTF's state in PostgreSQL. Nothing that matters is in memory only, so that a restart loses no session."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from mvnobox.n4.rows import (
    ANSWERED,
    COLUMNS,
    INSERT,
    LAZILY,
    TAKEN,
    Pending,
    Session,
    answered_row,
    new_row,
    pending_of,
    session_of,
    to_json,
)
from mvnobox.n4.rules import Report, Throttle
from mvnobox.n4.seen import Count
from mvnobox.n4.together import Together
from mvnobox.service.database import TROUBLE

# SEIDs are taken from the sequence by so many; what is left of them at the end is never used.
_SEIDS = 256
# New sessions that SMFs hear of before they are kept: where more of them wait, the next ones wait first.
_UNKEPT = 64
# Columns whose writing is another revision: what the UPF shall do.
_OF_REVISION = frozenset(("open", "limits", "throttle", "untold", "behind_gate", "forwarding", "qers"))
# At the end: seconds for those.
_LAST_SECONDS = 2.0


class Store:
    """Queries over a pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._recovery: int | None = None
        self._free: list[int] = []
        self._numbering = asyncio.Lock()
        # New sessions that are being kept, and whether the last one could not be.
        self._unkept: dict[int, asyncio.Future[None]] = {}
        self._refused = False
        self._adding = Together(self._add_all)
        self._answering = Together(self._answered_all)
        self._reading = Together(self._sessions)
        self._taking = Together(self._take_all)

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return (
            None if await self._pool.fetchval("SELECT to_regclass('pending')::text") else "the migrations have not run"
        )

    async def recovery_time(self, *, renew: bool = False) -> int:
        """Our Recovery Time Stamp (Unix seconds): the same over restarts, as no session is lost by one.

        With `renew` a later one: sessions were lost.
        """
        try:
            value = await self._pool.fetchval(
                """INSERT INTO setting VALUES ('recovery', $1::bigint::text) ON CONFLICT (name) DO UPDATE
                   SET value = CASE WHEN $2 THEN greatest($1, setting.value::bigint + 1)::text ELSE setting.value END
                   RETURNING value""",
                int(time.time()),
                renew,
            )
        except TROUBLE:
            # Heartbeats go on while the database is away: without them the peers would give up every session.
            if renew or self._recovery is None:
                raise
            return self._recovery
        self._recovery = int(value)
        return self._recovery

    async def get_setting(self, name: str) -> str | None:
        value: str | None = await self._pool.fetchval("SELECT value FROM setting WHERE name = $1", name)
        return value

    async def set_setting(self, name: str, value: str) -> None:
        await self._pool.execute(
            "INSERT INTO setting VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value
        )

    async def smf_addresses(self) -> list[str]:
        """The SMFs that are, or were, associated with us."""
        rows = await self._pool.fetch("SELECT substr(name, 14) AS smf FROM setting WHERE name LIKE 'smf-recovery-%'")
        return [row["smf"] for row in rows]

    async def new_seid(self) -> int:
        """A number for a session; no other instance ever gets it."""
        while not self._free:
            async with self._numbering:
                if not self._free:
                    rows = await self._pool.fetch(
                        "SELECT nextval(pg_get_serial_sequence('session', 'seid')) AS seid FROM generate_series(1, $1)",
                        _SEIDS,
                    )
                    self._free = [row["seid"] for row in reversed(rows)]
        return self._free.pop()

    async def add(self, session: Session) -> None:
        """A session that the UPF has."""
        await self._adding(session)

    def keep(self, session: Session) -> asyncio.Future[None]:
        """Begin to add a session; whoever asks for it meanwhile waits, and gets what the database raises.

        Nobody who waits for the outcome may cancel it.
        """
        keeping = asyncio.ensure_future(self._adding(session))
        self._unkept[session.seid] = keeping

        def kept(done: asyncio.Future[None]) -> None:
            del self._unkept[session.seid]
            self._refused = done.cancelled() or done.exception() is not None

        keeping.add_done_callback(kept)
        return keeping

    @property
    def keeps_up(self) -> bool:
        """Whether an SMF may hear of a session that is being kept: the database took the last one, and few wait."""
        return not self._refused and len(self._unkept) <= _UNKEPT

    async def kept(self) -> None:
        """Until all new sessions are kept, or cannot be; for some seconds at most."""
        if self._unkept:
            await asyncio.wait(self._unkept.values(), timeout=_LAST_SECONDS)

    async def _add_all(self, sessions: Sequence[Session]) -> Sequence[None]:
        await self._pool.executemany(INSERT, map(new_row, sessions))
        return [None] * len(sessions)

    async def answered(self, session: Session) -> None:
        """What the OCS has said first of a session, and whether the UPF does it. On disk when this returns."""
        await self._answering(session)

    async def _answered_all(self, sessions: Sequence[Session]) -> Sequence[None]:
        await self._pool.executemany(ANSWERED, map(answered_row, sessions))
        return [None] * len(sessions)

    async def session(self, seid: int) -> Session | None:
        """A session by our SEID, deleted ones included (their last reports may still come)."""
        if not 0 < seid < 2**63:
            return None
        await self._once_kept(seid)
        return await self._reading(seid)

    async def _once_kept(self, seid: int) -> None:
        """A session that is being added can be read then. Raises what the database raises."""
        if seid in self._unkept:
            await asyncio.shield(self._unkept[seid])

    async def _sessions(self, seids: Sequence[int]) -> Sequence[Session | None]:
        rows = await self._pool.fetch(f"SELECT {COLUMNS} FROM session WHERE seid = ANY($1::bigint[])", seids)
        found = {row["seid"]: row for row in rows}
        # One object for each who asked: they are changed by those who have them.
        return [session_of(found[seid]) if seid in found else None for seid in seids]

    async def throttled(self) -> list[tuple[list[str], Throttle]]:
        """Addresses and rates of the sessions that are slowed down."""
        rows = await self._pool.fetch(
            """SELECT addresses, throttle_uplink, throttle_downlink FROM session
               WHERE deleted_at IS NULL AND throttle_downlink IS NOT NULL ORDER BY seid"""
        )
        return [(row["addresses"], Throttle(row["throttle_uplink"], row["throttle_downlink"])) for row in rows]

    async def live_sessions(self, smf: str | None = None) -> list[Session]:
        """All sessions that are not deleted, of one SMF or of all."""
        rows = await self._pool.fetch(
            f"SELECT {COLUMNS} FROM session WHERE deleted_at IS NULL AND ($1::text IS NULL OR smf_address = $1)", smf
        )
        return [session_of(row) for row in rows]

    @staticmethod
    def revises(columns: Iterable[str]) -> bool:
        """Whether setting these columns makes another revision of a session."""
        return not _OF_REVISION.isdisjoint(columns)

    async def update(
        self, seid: int, *, lazily: bool = False, revision: int | None = None, since: int | None = None, **columns: Any
    ) -> int | None:
        """Set columns of a session; `limits` and `throttle` are two each, `forwarding` three; `renew_seconds` count from now.

        `lazily`: others see it at once, the disk has it with the next commit that waits for it. Only while the session is at
        this `revision`, and no request after the number `since` was ever owed. The revision after it; None: nothing is set.
        """
        values: dict[str, Any] = {}
        for key, value in columns.items():
            match key:
                case "forwarding":
                    values |= {"fars": to_json(value.actions), "towards": to_json(value.towards)}
                    values["control"] = json.dumps(dict(value.control))
                case "qers":
                    values[key] = to_json(value)
                case "limits":
                    values |= {"threshold": value.threshold, "quota": value.quota}
                case "throttle":
                    values["throttle_uplink"] = None if value is None else value.uplink
                    values["throttle_downlink"] = None if value is None else value.downlink
                case _:
                    values[key] = value
        names = ", ".join(
            f"renew_at = now() + make_interval(secs => ${index})" if name == "renew_seconds" else f"{name} = ${index}"
            for index, name in enumerate(values, 2)
        )
        if self.revises(columns):
            names += ", revision = revision + 1"
        source = f"FROM {LAZILY}" if lazily else ""
        parameters, conditions = [seid, *values.values()], ""
        for condition, value in (("revision =", revision), ("nchf_sequence <=", since)):
            if value is not None:
                parameters.append(value)
                conditions += f" AND {condition} ${len(parameters)}"
        after: int | None = await self._pool.fetchval(
            f"UPDATE session SET {names} {source} WHERE seid = $1{conditions} RETURNING revision", *parameters
        )
        return after

    async def mark_deleted(self, seid: int) -> None:
        await self._pool.execute("UPDATE session SET deleted_at = coalesce(deleted_at, now()) WHERE seid = $1", seid)

    async def take_usage(
        self, seid: int, reports: list[Report], *, release: bool = False, session: Session | None = None
    ) -> Pending | None:
        """Note usage reports (URR, UR-SEQN, octets) as one Nchf request that is owed. None: all of them are known.

        One transaction: a report is taken into account once, whichever instance gets it, however often it comes.
        What a user plane counted and dropped behind a closed gate is dismissed. Without a charging session use is kept
        until there is one. With the `session` as it was read a statement is enough, while nobody else has changed it.
        """
        if session is not None and session.nchf_ref is not None and not release:
            count = Count(session.seen, reports, closed=session.behind_gate)
            if count.counted and await self._taking((session, count)):
                return Pending(seid, session.nchf_sequence + 1, count.octets, release)
        return await self._take_locked(seid, reports, release=release)

    async def _take_all(self, taking: Sequence[tuple[Session, Count]]) -> Sequence[bool]:
        rows = [
            (place, one.seid, one.nchf_sequence, one.seen, one.behind_gate, count.seen, *count.octets)
            for place, (one, count) in enumerate(taking)
        ]
        taken = {row["place"] for row in await self._pool.fetch(TAKEN, *map(list, zip(*rows, strict=True)))}
        return [place in taken for place in range(len(taking))]

    async def _take_locked(self, seid: int, reports: list[Report], *, release: bool) -> Pending | None:
        """See `take_usage`: whatever the session is, and whoever has it."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "SELECT seen, nchf_sequence, nchf_ref, open, behind_gate, octets FROM session WHERE seid = $1 FOR UPDATE",
                seid,
            )
            if row is None:
                return None
            # A new session begins closed, and may be open already where its first answer is not kept yet.
            closed = row["behind_gate"] or (row["nchf_ref"] is None and not row["open"])
            count = Count(row["seen"], reports, closed=closed)
            total, uplink, downlink = count.octets
            if row["nchf_ref"] is None and row["behind_gate"] and row["octets"] == 0:
                # The gate was never open.
                total = uplink = downlink = 0
            if reports and not count.counted and not release:
                if count.fresh:
                    await connection.execute("UPDATE session SET seen = $2 WHERE seid = $1", seid, count.seen)
                return None
            if release and await connection.fetchval("SELECT 1 FROM pending WHERE seid = $1 AND release", seid):
                return None
            nothing_to_say = row["nchf_ref"] is None and total == 0
            if nothing_to_say and release:
                nothing_to_say = not await connection.fetchval("SELECT 1 FROM pending WHERE seid = $1 LIMIT 1", seid)
            # The number of the last request that was ever owed, and of no other: its answer is the one that decides.
            sequence = row["nchf_sequence"] + (not nothing_to_say)
            await connection.execute(
                """UPDATE session SET seen = $2, nchf_sequence = $3, octets = octets + $4,
                       renew_at = now() + interval '30 minutes'
                   WHERE seid = $1""",
                seid, count.seen, sequence, total,
            )  # fmt: skip
            if nothing_to_say:
                return None
            await connection.execute(
                "INSERT INTO pending (seid, sequence, used, uplink, downlink, release) VALUES ($1, $2, $3, $4, $5, $6)",
                seid, sequence, total, uplink, downlink, release,
            )  # fmt: skip
            return Pending(seid, sequence, (total, uplink, downlink), release)

    async def owing_session(self, seid: int) -> tuple[Session | None, Pending | None]:
        """A session as `session` has it, and the oldest request of it that is still owed."""
        await self._once_kept(seid)
        row = await self._pool.fetchrow(
            f"""SELECT {COLUMNS}, sequence, used, uplink, downlink, release, followed FROM session LEFT JOIN LATERAL (
                    SELECT sequence, used, uplink, downlink, release, EXISTS (
                        SELECT FROM pending later WHERE later.seid = pending.seid AND later.sequence > pending.sequence
                    ) AS followed
                    FROM pending WHERE pending.seid = session.seid ORDER BY sequence LIMIT 1
                ) oldest ON true WHERE seid = $1""",
            seid,
        )
        if row is None:
            return None, None
        return session_of(row), None if row["sequence"] is None else pending_of(row)

    async def owing(self) -> list[int]:
        """Sessions that owe the OCS requests, the first one and a gate's closing without it included, or the UPF a change."""
        rows = await self._pool.fetch(
            """SELECT seid FROM pending
               UNION SELECT seid FROM session
               WHERE deleted_at IS NULL AND upf_seid IS NOT NULL AND (nchf_ref IS NULL OR untold OR without_ocs)"""
        )
        return [row["seid"] for row in rows]

    async def to_renew(self, seconds: float) -> list[tuple[int, float]]:
        """Live sessions whose quota has to be renewed within so many seconds, and in how many."""
        rows = await self._pool.fetch(
            """SELECT seid, greatest(0, extract(epoch FROM renew_at - now()))::float8 AS seconds FROM session
               WHERE deleted_at IS NULL AND nchf_ref IS NOT NULL AND upf_seid IS NOT NULL
               AND renew_at < now() + make_interval(secs => $1)""",
            seconds,
        )
        return [(row["seid"], row["seconds"]) for row in rows]

    async def is_due(self, seid: int) -> bool:
        """Whether a session's quota has to be renewed by now (timers may be early by milliseconds)."""
        due: bool | None = await self._pool.fetchval(
            "SELECT renew_at <= now() + interval '0.1 s' FROM session WHERE seid = $1 AND deleted_at IS NULL", seid
        )
        return bool(due)

    async def smf_restarted(self, smf: str, recovery: int) -> int:
        """An SMF knows none of its sessions any more: they are to end. How many. With its new time stamp, or not at all."""
        async with self._pool.acquire() as connection, connection.transaction():
            done: str = await connection.execute(
                "UPDATE session SET ending = true WHERE smf_address = $1 AND deleted_at IS NULL", smf
            )
            await connection.execute(
                "UPDATE setting SET value = $2 WHERE name = $1", f"smf-recovery-{smf}", str(recovery)
            )
        return int(done.rpartition(" ")[2])

    async def ending(self) -> list[int]:
        """Sessions that are to end, and that the UPF has."""
        rows = await self._pool.fetch(
            "SELECT seid FROM session WHERE deleted_at IS NULL AND ending AND upf_seid IS NOT NULL"
        )
        return [row["seid"] for row in rows]

    async def give_up(self, seid: int) -> int:
        """What an ended session owes an OCS that does not know its customer is dropped: octets that nobody pays."""
        lost: int = await self._pool.fetchval(
            """WITH gone AS (DELETE FROM pending WHERE seid = $1 RETURNING used)
               SELECT coalesce(sum(used), 0)::bigint FROM gone""",
            seid,
        )
        return lost

    async def settled(self, pending: Pending) -> None:
        """The OCS has answered a request. Where a crash of PostgreSQL undoes this, it is asked again and answers the same."""
        await self._pool.execute(
            f"DELETE FROM pending USING {LAZILY} WHERE seid = $1 AND sequence = $2", pending.seid, pending.sequence
        )

    async def sweep(self) -> None:
        """Forget sessions that ended long ago and owe nothing."""
        # Versions that kept sessions before the UPF had them may have left some that it never had.
        await self._pool.execute(
            """DELETE FROM session s WHERE (deleted_at < now() - interval '1 hour'
                   OR deleted_at IS NULL AND upf_seid IS NULL AND created_at < now() - interval '1 hour')
               AND NOT EXISTS (SELECT FROM pending p WHERE p.seid = s.seid)"""
        )
