"""find, count, getMore and change streams."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import bson

from mvnobox.core.directory.answers import COLLECTION, CommandError
from mvnobox.core.directory.changes import Changes, Stream
from mvnobox.core.directory.cursors import Cursors
from mvnobox.core.directory.documents import Assembler, barred, cursor, embedded, leaving
from mvnobox.core.directory.filters import Unsupported, keys, matches, project
from mvnobox.core.directory.store import Store

_FIRST_BATCH, _MOST_IN_BATCH = 101, 500
_MOST_OCTETS = 900_000
_MOST_BY_KEY = 1000
# Subscribers put together before other clients have their turn.
_AT_A_TIME = 25
# A client that gives no time is not made to wait long: Open5GS's HSS asks from its main loop.
_AWAIT_SECONDS, _LONGEST_AWAIT = 0.1, 5.0


def whole_number(body: dict[str, Any], name: str, default: int = 0) -> int:
    """A number of a command. Raises CommandError."""
    value = body.get(name, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -(2**31) <= value < 2**31:
        raise CommandError(14, "TypeMismatch", f"{name} is a number")
    return int(value)


@dataclass
class Scan:
    """All subscribers in the order of their IMSIs, as far as read."""

    after: str
    left: int | None
    projection: dict[str, Any]


class Queries:
    """Reading commands over the store."""

    def __init__(self, store: Store, assembler: Assembler, changes: Changes, database: str) -> None:
        self._store = store
        self._assembler = assembler
        self._changes = changes
        self._space = f"{database}.{COLLECTION}"
        self._cursors: Cursors[Scan | Stream] = Cursors()

    def nothing(self, space: str) -> bytes:
        """An empty result of another collection."""
        return cursor(space[:200], [])

    def listed(self, space: str, documents: list[bytes]) -> bytes:
        """A result that fits one answer."""
        return cursor(space[:200], documents)

    async def find(self, body: dict[str, Any]) -> bytes:
        """The command find. Raises CommandError, Unsupported, Sealed."""
        query, projection = body.get("filter", {}), body.get("projection", {})
        if not isinstance(query, dict) or not isinstance(projection, dict):
            raise CommandError(14, "TypeMismatch", "filter and projection are documents")
        if body.get("tailable") or body.get("awaitData"):
            raise Unsupported("a tailable cursor")
        imsi = query.get("imsi")
        if type(imsi) is str and len(query) == 1 and not projection and not body.get("skip"):
            row = await self._store.by_imsi(imsi)
            if row is None or barred(row["document"]):
                written = await self._store.of_leaving(imsi)
                if written is not None:
                    return cursor(self._space, [leaving(imsi, row, written)])
            return cursor(self._space, [self._assembler.encode(row)] if row is not None else [])
        skip, limit = whole_number(body, "skip"), whole_number(body, "limit")
        single = bool(body.get("singleBatch")) or limit < 0
        descending = _descending(body.get("sort") or {})
        if query:
            found = await self.selected(query)
            if descending:
                found.reverse()
            found = found[skip:][: abs(limit) or None]
            if projection:
                found = [bson.encode(project(bson.decode(one), projection)) for one in found]
            return self._fitting(found)
        if skip or descending:
            raise Unsupported("skip or a descending order over all subscribers")
        size = whole_number(body, "batchSize", _FIRST_BATCH)
        scan = Scan("", abs(limit) or None, projection)
        return await self._scanned(scan, size, "firstBatch", single)

    def _fitting(self, documents: list[bytes]) -> bytes:
        if sum(map(len, documents)) > _MOST_OCTETS:
            raise CommandError(10334, "BSONObjectTooLarge", "the result does not fit one answer; ask for fewer")
        return cursor(self._space, documents)

    async def _matching(self, query: dict[str, Any]) -> tuple[list[Any], list[bytes]]:
        """(rows, their documents) that a filter means; the documents only where it says more than keys."""
        bound = keys(query)
        if bound is None:
            raise Unsupported("a filter that does not go by imsi or msisdn")
        rows = await self._store.by_keys(bound.imsis, bound.msisdns, _MOST_BY_KEY)
        if bound.exact:
            return rows, []
        documents = await self._encoded(rows)
        meant = [i for i, one in enumerate(documents) if matches(bson.decode(one), query)]
        return [rows[i] for i in meant], [documents[i] for i in meant]

    async def _encoded(self, rows: list[Any]) -> list[bytes]:
        documents: list[bytes] = []
        for number, row in enumerate(rows, 1):
            documents.append(self._assembler.encode(row))
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        return documents

    async def selected(self, query: dict[str, Any]) -> list[bytes]:
        """The documents that a filter means, in the order of their IMSIs. Raises Unsupported, Sealed."""
        rows, documents = await self._matching(query)
        return documents or await self._encoded(rows)

    async def imsis(self, query: dict[str, Any]) -> list[str]:
        """The IMSIs that a filter means. Raises Unsupported, Sealed."""
        imsi = query.get("imsi")
        if type(imsi) is str and len(query) == 1:
            return [imsi]
        rows, _ = await self._matching(query)
        return [row["imsi"] for row in rows]

    async def count(self, query: Any) -> int:
        """How many documents a filter means. Raises CommandError, Unsupported."""
        if not isinstance(query, dict):
            raise CommandError(14, "TypeMismatch", "a filter is a document")
        return len((await self._matching(query))[0]) if query else await self._store.count()

    async def _scanned(self, scan: Scan, size: int, batch: str, single: bool = False, identity: int = 0) -> bytes:
        if size < 0:
            raise CommandError(2, "BadValue", "batchSize is not negative")
        wanted = min(size, _MOST_IN_BATCH, scan.left if scan.left is not None else _MOST_IN_BATCH)
        rows = await self._store.in_order(scan.after, wanted + 1)
        documents: list[bytes] = []
        octets = 0
        for row in rows[:wanted]:
            document = self._assembler.encode(row)
            if scan.projection:
                document = bson.encode(project(bson.decode(document), scan.projection))
            octets += len(document) + 8
            if len(documents) % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
            if octets > _MOST_OCTETS:
                break
            documents.append(document)
            scan.after = row["imsi"]
        if scan.left is not None:
            scan.left -= len(documents)
        more = len(rows) > len(documents) and scan.left != 0 and not single
        identity = self._cursors.add(scan, identity) if more else 0
        return cursor(self._space, documents, identity, batch.encode())

    async def watch(self, stage: Any) -> bytes:
        """aggregate with $changeStream. Raises CommandError, Unsupported."""
        if not isinstance(stage, dict):
            raise CommandError(14, "TypeMismatch", "$changeStream takes a document")
        stream = await self._changes.open(stage)
        return self._streamed(stream, [], b"firstBatch", 0)

    def _streamed(self, stream: Stream, events: list[bytes], batch: bytes, identity: int) -> bytes:
        token = embedded(3, b"postBatchResumeToken", bson.encode(stream.token)[4:-1])
        return cursor(self._space, events, self._cursors.add(stream, identity), batch, token)

    async def get_more(self, body: dict[str, Any]) -> bytes:
        """The command getMore. Raises CommandError."""
        identity = body.get("getMore")
        state = self._cursors.take(identity) if type(identity) is not bool and isinstance(identity, int) else None
        if state is None:
            raise CommandError(43, "CursorNotFound", f"cursor id {identity!s:.30} not found")
        number = int(identity or 0)
        if isinstance(state, Scan):
            size = whole_number(body, "batchSize", _MOST_IN_BATCH)
            return await self._scanned(state, size or _MOST_IN_BATCH, "nextBatch", False, number)
        seconds = whole_number(body, "maxTimeMS") / 1000
        try:
            events = await self._changes.read(state, min(seconds, _LONGEST_AWAIT) if seconds > 0 else _AWAIT_SECONDS)
        except BaseException:
            self._cursors.add(state, number)
            raise
        return self._streamed(state, events, b"nextBatch", number)

    def forget(self, identity: int) -> bool:
        """killCursors: whether there was such a cursor."""
        return self._cursors.take(identity) is not None


def _descending(order: Any) -> bool:
    known = isinstance(order, dict) and set(order) <= {"imsi", "_id"}
    if not known or any(one not in (1, -1) for one in order.values()):
        raise Unsupported("an order by anything but imsi")
    return bool(order) and next(iter(order.values())) == -1
