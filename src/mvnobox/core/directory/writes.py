"""The command update: what Open5GS writes back about a subscriber."""

from __future__ import annotations

from typing import Any

from mvnobox.core.directory.answers import CommandError
from mvnobox.core.directory.filters import Unsupported
from mvnobox.core.directory.queries import Queries
from mvnobox.core.directory.store import Store
from mvnobox.core.directory.updates import BadValue, Change


class Writes:
    """Writing commands over the store. An upsert of an unknown subscriber changes nothing: it would have no keys."""

    def __init__(self, store: Store, queries: Queries) -> None:
        self._store = store
        self._queries = queries

    async def update(self, updates: list[Any], ordered: bool) -> dict[str, Any]:
        """Apply updates one after the other; a wrong one is reported by its place, as MongoDB does."""
        matched = modified = 0
        wrong: list[dict[str, Any]] = []
        for index, update in enumerate(updates):
            try:
                one, changed = await self._one(update)
            except Unsupported as error:
                message = f"the subscriber directory does not support {error}"
                wrong.append({"index": index, "code": 238, "codeName": "NotImplemented", "errmsg": message})
            except BadValue as error:
                wrong.append({"index": index, "code": 2, "codeName": "BadValue", "errmsg": str(error)})
            else:
                matched, modified = matched + one, modified + changed
                continue
            if ordered:
                break
        answer: dict[str, Any] = {"n": matched, "nModified": modified, "ok": 1.0}
        return {**answer, "writeErrors": wrong} if wrong else answer

    async def _one(self, update: Any) -> tuple[int, int]:
        query = update.get("q") if isinstance(update, dict) else None
        change = update.get("u") if isinstance(update, dict) else None
        if isinstance(change, list):
            raise Unsupported("an update by a pipeline")
        if not isinstance(change, dict) or not isinstance(query, dict):
            raise CommandError(9, "FailedToParse", "an update has q and u, both documents")
        if update.get("arrayFilters"):
            raise Unsupported("arrayFilters")
        compiled = Change(change)
        imsis = await self._queries.imsis(query)
        done = [await self._store.update(imsi, compiled) for imsi in (imsis if update.get("multi") else imsis[:1])]
        return sum(one for one, _ in done), sum(changed for _, changed in done)
