"""Answers that do not depend on subscribers: the greeting, errors, what a server says of itself."""

from __future__ import annotations

import datetime as dt
from typing import Any

from mvnobox.core.directory.wire import LARGEST_MESSAGE, MOST_DOCUMENTS

COLLECTION = "subscribers"
# 17 is MongoDB 6.0: old enough for the clients in use and new enough for OP_MSG, sessions and change streams.
WIRE_VERSION = 17
# A document, with room for the command around it.
LARGEST_DOCUMENT = LARGEST_MESSAGE - 16_384
_PROVISIONING = "subscribers are provisioned by the BSS through directory.put_subscriber"

# Commands that are known and not offered, with what to do instead.
REFUSED = {
    "insert": _PROVISIONING,
    "delete": _PROVISIONING,
    "findandmodify": "use update and find",
    "create": "the collection is always there",
    "drop": "use directory.remove_subscriber",
    "dropdatabase": "use directory.remove_subscriber",
    "dropindexes": "the indexes are fixed",
    "renamecollection": "the collection's name is fixed",
    "distinct": "query the subscribers one by one",
    "mapreduce": "query PostgreSQL",
    "explain": "every filter goes by an index",
}


class CommandError(Exception):
    """An error with the code and name that MongoDB gives it."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code, self.name = code, name


def failure(code: int, name: str, message: str) -> dict[str, Any]:
    """An error as MongoDB's clients understand it."""
    return {"ok": 0.0, "errmsg": message, "code": code, "codeName": name}


def greeting(connection: int) -> dict[str, Any]:
    """The answer to hello and isMaster: a server on its own."""
    return {
        "helloOk": True,
        "ismaster": True,
        "isWritablePrimary": True,
        "maxBsonObjectSize": LARGEST_DOCUMENT,
        "maxMessageSizeBytes": LARGEST_MESSAGE,
        "maxWriteBatchSize": MOST_DOCUMENTS,
        "localTime": dt.datetime.now(dt.UTC),
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": connection,
        "minWireVersion": 0,
        "maxWireVersion": WIRE_VERSION,
        "readOnly": False,
        "ok": 1.0,
    }


def build_info() -> dict[str, Any]:
    """The version whose behaviour is followed; `modules` says what this is."""
    return {
        "version": "6.0.0",
        "versionArray": [6, 0, 0, 0],
        "gitVersion": "mvno-in-a-box subscriber directory",
        "modules": ["mvno-in-a-box subscriber directory"],
        "maxBsonObjectSize": LARGEST_DOCUMENT,
        "ok": 1.0,
    }


def indexes() -> list[dict[str, Any]]:
    """What listIndexes says: all unique."""
    return [
        {"v": 2, "key": {name: 1}, "name": f"{name}_{'' if name == '_id' else '1'}", "unique": True}
        for name in ("_id", "imsi", "msisdn")
    ]
