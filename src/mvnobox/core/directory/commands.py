"""The commands that Open5GS's clients and ordinary MongoDB clients send, answered from the store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

from bson.int64 import Int64

from mvnobox.core.directory.store import Store, Unsupported
from mvnobox.core.directory.wire import LARGEST_MESSAGE, Command

COLLECTION = "subscribers"
WIRE_VERSION = 17
BATCH = 1000


def failure(code: int, name: str, message: str) -> dict[str, Any]:
    """An error as MongoDB's clients understand it."""
    return {"ok": 0.0, "errmsg": message, "code": code, "codeName": name}


class Commands:
    """Dispatch by the command's name, its first key."""

    def __init__(self, store: Store, database: str) -> None:
        self._store = store
        self._database = database
        self._known: dict[str, Callable[[Command], Awaitable[dict[str, Any]]]] = {
            "hello": self._hello,
            "ismaster": self._hello,
            "ping": self._ok,
            "endsessions": self._ok,
            "killcursors": self._kill_cursors,
            "buildinfo": self._build_info,
            "find": self._find,
            "count": self._count,
            "aggregate": self._aggregate,
            "update": self._update,
            "createindexes": self._ok,
            "listcollections": self._list_collections,
        }

    async def run(self, command: Command) -> dict[str, Any]:
        """The answer to a command, errors included."""
        name = next(iter(command.body), "")
        handler = self._known.get(str(name).lower())
        if handler is None:
            return failure(59, "CommandNotFound", f"no such command: '{str(name)[:60]}'")
        try:
            return await handler(command)
        except Unsupported as error:
            return failure(238, "NotImplemented", f"the subscriber directory does not support {error}")

    def _ours(self, command: Command) -> bool:
        return command.database == self._database and next(iter(command.body.values())) == COLLECTION

    async def _ok(self, command: Command) -> dict[str, Any]:
        return {"ok": 1.0}

    async def _hello(self, command: Command) -> dict[str, Any]:
        return {
            "helloOk": True,
            "ismaster": True,
            "isWritablePrimary": True,
            "maxBsonObjectSize": LARGEST_MESSAGE,
            "maxMessageSizeBytes": LARGEST_MESSAGE,
            "maxWriteBatchSize": 1000,
            "localTime": dt.datetime.now(dt.UTC),
            "logicalSessionTimeoutMinutes": 30,
            "connectionId": 1,
            "minWireVersion": 0,
            "maxWireVersion": WIRE_VERSION,
            "readOnly": False,
            "ok": 1.0,
        }

    async def _build_info(self, command: Command) -> dict[str, Any]:
        return {"version": "6.0.0", "versionArray": [6, 0, 0, 0], "modules": ["mvno-in-a-box directory"], "ok": 1.0}

    async def _kill_cursors(self, command: Command) -> dict[str, Any]:
        return {"cursorsKilled": [], "cursorsNotFound": command.body.get("cursors", []), "ok": 1.0}

    async def _list_collections(self, command: Command) -> dict[str, Any]:
        batch = [{"name": COLLECTION, "type": "collection"}] if command.database == self._database else []
        return _cursor(f"{command.database}.$cmd.listCollections", batch)

    async def _find(self, command: Command) -> dict[str, Any]:
        body = command.body
        space = f"{command.database}.{body['find']}"
        if not self._ours(command):
            return _cursor(space, [])
        limit = body.get("limit") or BATCH
        query = body.get("filter") or {}
        if not isinstance(limit, int) or not isinstance(query, dict):
            return failure(14, "TypeMismatch", "filter is a document and limit a number")
        found = await self._store.find(query, min(abs(int(limit)), BATCH))
        if wanted := body.get("projection"):
            found = [_project(document, wanted) for document in found]
        return _cursor(space, found)

    async def _count(self, command: Command) -> dict[str, Any]:
        n = await self._store.count(command.body.get("query") or {}) if self._ours(command) else 0
        return {"n": n, "ok": 1.0}

    async def _aggregate(self, command: Command) -> dict[str, Any]:
        # What clients send for count_documents: a $match and a $group that counts.
        stages = command.body.get("pipeline")
        if not isinstance(stages, list) or not all(
            isinstance(s, dict) and set(s) <= {"$match", "$group"} for s in stages
        ):
            raise Unsupported("this aggregation")
        query: dict[str, Any] = next((stage["$match"] for stage in stages if "$match" in stage), {})
        n = await self._store.count(query) if self._ours(command) else 0
        return _cursor(f"{command.database}.{COLLECTION}", [{"_id": 1, "n": n}] if n else [])

    async def _update(self, command: Command) -> dict[str, Any]:
        if not self._ours(command):
            raise Unsupported("writing to another collection")
        updates = command.body.get("updates")
        if not isinstance(updates, list) or not updates:
            return failure(9, "FailedToParse", "updates is a list of updates")
        matched = modified = 0
        for update in updates:
            change = update.get("u") if isinstance(update, dict) else None
            query = update.get("q") if isinstance(update, dict) else None
            if not isinstance(change, dict) or not isinstance(query, dict):
                return failure(9, "FailedToParse", "an update has q and u")
            one, changed = await self._store.update(query, change)
            matched, modified = matched + one, modified + changed
        return {"n": matched, "nModified": modified, "ok": 1.0}


def _cursor(space: str, batch: list[Any]) -> dict[str, Any]:
    return {"cursor": {"id": Int64(0), "ns": space, "firstBatch": batch}, "ok": 1.0}


def _project(document: dict[str, Any], wanted: Any) -> dict[str, Any]:
    if not isinstance(wanted, dict) or any("." in field for field in wanted):
        raise Unsupported("this projection")
    chosen = {field for field, flag in wanted.items() if flag}
    if chosen:
        return {field: value for field, value in document.items() if field in chosen}
    return {field: value for field, value in document.items() if field not in wanted}
