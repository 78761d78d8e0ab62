"""Change streams out of the change log: what Open5GS's HSS follows to tell an MME of a changed subscription.

A change is read once every transaction that began before it has ended, so that none is skipped; its place
(transaction, number, part) is the resume token, which any replica understands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import bson
from bson.timestamp import Timestamp

from mvnobox.core.directory.documents import Assembler, Sealed
from mvnobox.core.directory.filters import Unsupported
from mvnobox.core.directory.store import COLUMNS
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
CHANNEL = "directory_subscriber"
_REFRESH_SECONDS = 20.0
_LOOK_SECONDS = 0.25
_BATCH = 100
_FRESH = "now() - interval '1 hour'"
# Open5GS's word for: make the MME forget this subscriber (Cancel-Location).
_CANCEL = "request_cancel_location"


@dataclass
class Stream:
    """Where a reader is: behind the change `(xid, seq)`, of which it has seen `part` events."""

    full: bool
    place: tuple[int, int, int]
    refreshed: float = field(default_factory=time.monotonic)

    @property
    def token(self) -> dict[str, Any]:
        """The resume token of this place."""
        return {"_data": "{:016x}{:016x}{:02x}".format(*self.place)}


def _place(token: Any) -> tuple[int, int, int]:
    data = token.get("_data") if isinstance(token, dict) else None
    try:
        if not isinstance(data, str) or len(data) != 34:
            raise ValueError
        place = int(data[:16], 16), int(data[16:32], 16), int(data[32:], 16)
        if max(place) >= 2**63:
            raise ValueError
        return place
    except ValueError:
        raise Unsupported("a resume token that is not the directory's own") from None


class Changes:
    """Streams over a pool."""

    def __init__(self, pool: asyncpg.Pool, assembler: Assembler, database: str, collection: str) -> None:
        self._pool = pool
        self._space = {"db": database, "coll": collection}
        self._assembler = assembler
        self._stirred = asyncio.Event()
        self._listener: Any = None
        self._listening = asyncio.Lock()

    async def open(self, stage: dict[str, Any]) -> Stream:
        """A stream of a `$changeStream` stage, from now or from its resume token on. Raises Unsupported."""
        if extra := set(stage) - {"fullDocument", "resumeAfter", "startAfter"}:
            raise Unsupported(f"a change stream with {', '.join(sorted(extra))[:80]}")
        full = stage.get("fullDocument", "default")
        if full not in ("default", "updateLookup", "whenAvailable"):
            raise Unsupported("this fullDocument of a change stream")
        token = stage.get("resumeAfter") or stage.get("startAfter")
        place = _place(token) if token is not None else None
        now = await self._watch()
        return Stream(full != "default", place or (now, 0, 0))

    async def _watch(self) -> int:
        """Have changes logged from now on; the first transaction that is later."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                f"""WITH before AS (SELECT seen > {_FRESH} AS fresh FROM watch),
                done AS (INSERT INTO watch (seen) VALUES (now()) ON CONFLICT (one) DO UPDATE SET seen = now())
                SELECT coalesce((SELECT fresh FROM before), false) AS fresh,
                    pg_current_xact_id()::text::bigint AS xid"""
            )
            assert row is not None
            # Transactions that began unwatched do not log; they are waited for, the longest of them in vain.
            for _ in range(0 if row["fresh"] else 100):
                if await connection.fetchval(
                    "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > $1", row["xid"]
                ):
                    break
                await asyncio.sleep(0.05)
            await connection.execute(f"DELETE FROM change WHERE at < {_FRESH}")
            return int(row["xid"])

    async def _listen(self) -> None:
        async with self._listening:
            if self._listener is not None:
                return
            connection = await self._pool.acquire()
            # A connection that ends leaves the pool by itself, and its proxy can be asked nothing any more.
            connection.add_termination_listener(self._unheard)
            self._listener = connection
            with contextlib.suppress(*TROUBLE):
                await connection.add_listener(CHANNEL, lambda *_: self._stirred.set())

    def _unheard(self, _: Any) -> None:
        self._listener = None
        self._stirred.set()

    async def read(self, stream: Stream, seconds: float) -> list[bytes]:
        """Events behind a stream's place, which moves on; waits for the first of them."""
        if time.monotonic() - stream.refreshed > _REFRESH_SECONDS:
            stream.refreshed = time.monotonic()
            await self._watch()
        await self._listen()
        deadline = time.monotonic() + seconds
        while True:
            self._stirred.clear()
            events = await self._events(stream)
            left = deadline - time.monotonic()
            if events or left <= 0:
                return events
            # Not by notification alone: what an older transaction held back becomes readable without one.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), min(left, _LOOK_SECONDS))

    async def _events(self, stream: Stream) -> list[bytes]:
        xid, seq, part = stream.place
        rows = await self._pool.fetch(
            f"""SELECT c.xid, c.seq, c.imsi AS who, c.operation, c.fields, c.at, s.imsi IS NOT NULL AS there,
                {", ".join("s." + name.strip() for name in COLUMNS.split(","))}
            FROM change c LEFT JOIN subscriber s ON s.imsi = c.imsi
            WHERE (c.xid, c.seq) >= ($1, $2) AND c.xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            ORDER BY c.xid, c.seq LIMIT {_BATCH}""",
            xid,
            seq,
        )
        events: list[bytes] = []
        for row in rows:
            seen = part if (row["xid"], row["seq"]) == (xid, seq) else 0
            for number, event in enumerate(self._described(row, stream.full), 1):
                if number > seen:
                    stream.place = (row["xid"], row["seq"], number)
                    events.append(bson.encode({"_id": stream.token, **event}))
        return events

    def _described(self, row: Any, full: bool) -> list[dict[str, Any]]:
        """The events of one logged change: an ending one is two, so that the HSS cancels the location first."""
        document: dict[str, Any] | None = None
        if row["there"]:
            try:
                document = bson.decode(self._assembler.encode(row))
            except Sealed as error:
                log.error("change stream: %s", error)
        common = {
            "clusterTime": Timestamp(int(row["at"].timestamp()), row["seq"] % 2**32),
            "ns": self._space,
            "documentKey": {"_id": row["who"]},
        }
        if row["operation"] == "delete":
            cancel = self._update(common, {"imsi": row["who"]}, {_CANCEL: True}, [])
            return [cancel, {"operationType": "delete", **common}]
        if row["operation"] == "insert":
            return [{"operationType": "insert", "fullDocument": document, **common}] if document else []
        present = document or {}
        fields = {name: present[name] for name in row["fields"] if name in present and name != "security"}
        gone = [name for name in row["fields"] if name not in present]
        if "security" in row["fields"]:
            # Another SIM: where the old one is attached, it has to go.
            fields[_CANCEL] = True
        return [self._update(common, document if full else None, fields, gone)]

    def _update(
        self, common: dict[str, Any], document: dict[str, Any] | None, fields: dict[str, Any], gone: list[str]
    ) -> dict[str, Any]:
        described = {"updatedFields": fields, "removedFields": gone, "truncatedArrays": []}
        shown = {"fullDocument": document} if document is not None else {}
        return {"operationType": "update", **common, **shown, "updateDescription": described}
