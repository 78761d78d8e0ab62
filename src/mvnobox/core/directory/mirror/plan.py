"""What has to be written where a MongoDB's document is to show a subscriber: pure, from both sides' states.

What the core writes itself (`security.sqn`, `imeisv`, `mme_host` …) is left as it is; a new SIM's sequence begins anew.
A field `mirror` in the document says under which claim it was written, for which SIM, and whether it has the keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import bson
from bson.int64 import Int64
from pymongo import DeleteOne, InsertOne, UpdateOne

from mvnobox.core.directory.documents import Assembler, Sealed, worthless
from mvnobox.core.directory.updates import PROVISIONED

FIELD = "mirror"
# What has Open5GS's HSS detach a subscriber, read in a change stream.
CANCEL = "request_cancel_location"
# As these stand in `security`; `sqn` and `rand` are the core's.
_KEYS = ("k", "op", "opc", "amf")
Document = dict[str, Any]
Keys = tuple[str, str, str]


@dataclass(frozen=True)
class State:
    """A subscriber in the directory: its row, or None; whether the network is still letting go of a removed one."""

    imsi: str
    row: Any | None
    leaving: bool = False


@dataclass(frozen=True)
class Write:
    """One operation: a document that is inserted, update operators, or a filter of what is deleted."""

    imsi: str
    kind: Literal["insert", "update", "delete"]
    where: Document = field(default_factory=dict)
    what: Document = field(default_factory=dict)
    # The numbers that it gives.
    numbers: tuple[str, ...] = ()
    # The SIM is another one: where the old one is attached in 4G, the HSS has to let go of it.
    swapped: bool = False

    @property
    def operation(self) -> InsertOne[Document] | UpdateOne | DeleteOne:
        """As pymongo takes it."""
        if self.kind == "insert":
            return InsertOne(self.what)
        return UpdateOne(self.where, self.what) if self.kind == "update" else DeleteOne(self.where)


def closed() -> Document:
    """Keys that open nothing.

    They stay while a subscriber is suspended: Open5GS sets `security.sqn` of a document without `security` too, and
    then takes what it does not find there for keys of zeros.
    """
    return {"k": worthless(), "op": None, "opc": worthless(), "amf": "8000"}


class Planner:
    """Operations out of states; opens keys."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler

    def plan(self, state: State, found: Document | None, label: int) -> Write | None:
        """What to do about the document that was found, or about none; None: nothing. Raises Sealed."""
        if state.row is None:
            return _without(state, found, label)
        document: Document = bson.decode(self._assembler.encode(state.row))
        return _with(state.row, document, self._assembler.opened(state.row["sealed"]), found, label)

    def unopened(self, state: State, found: Document | None, label: int) -> Write:
        """The same for a subscriber whose keys cannot be opened: as if it were suspended."""
        document: Document = bson.decode(self._assembler.encode(state.row, keys=False))
        return _with(state.row, document, None, found, label)

    def differences(self, state: State, found: Document | None) -> list[str]:
        """Names of what differs, empty where a document shows the subscriber as it should. Never a value."""
        try:
            write = self.plan(state, found, 0)
        except Sealed:
            write = self.unopened(state, found, 0)
        if write is None:
            return []
        if write.kind == "insert" or found is None:
            return ["it is not there"]
        if write.kind == "delete":
            return ["it is there, and no subscriber"]
        fields = {name for fields in write.what.values() for name in fields} - {CANCEL}
        mark, old = write.what["$set"][FIELD], found.get(FIELD, {})
        if all(mark[name] == old.get(name) for name in ("sim", "open")):
            fields.discard(FIELD)
        return sorted(fields)


def sim_of(sealed: bytes) -> str:
    """What tells one SIM from another: a digest of its sealed keys, which says nothing of them."""
    return hashlib.sha256(sealed).hexdigest()[:16]


def _with(row: Any, document: Document, keys: Keys | None, found: Document | None, label: int) -> Write:
    security = document.pop("security", None)
    if not document["msisdn"]:
        # A unique index takes an empty array for a value, which one document could have.
        del document["msisdn"]
    numbers = tuple(document.get("msisdn", ()))
    sim = sim_of(row["sealed"])
    mark = {"label": Int64(label), "sim": sim, "open": security is not None}
    fresh = security or {**closed(), "sqn": Int64(row["sqn"])}
    if found is None:
        return Write(row["imsi"], "insert", what={**document, "security": fresh, FIELD: mark}, numbers=numbers)
    changes, gone = _differences(document, found)
    changes[FIELD] = mark
    raised: Document = {}
    there = found.get("security")
    if isinstance(there, dict) and _of_sim(sim, keys, there, found):
        changes |= _of_keys(security, keys, there, found)
        sqn: Any = there.get("sqn")
        if not isinstance(sqn, Int64):
            # Open5GS reads a number of another type as 0.
            usable = isinstance(sqn, (int, float)) and not isinstance(sqn, bool) and sqn > row["sqn"]
            changes["security.sqn"] = Int64(sqn if usable else row["sqn"])
        elif sqn < row["sqn"]:
            raised["security.sqn"] = Int64(row["sqn"])
    elif isinstance(there, dict):
        # `rand` stays, as the core's.
        changes |= {f"security.{name}": fresh[name] for name in (*_KEYS, "sqn")}
    else:
        changes["security"] = fresh
    swapped = FIELD in found and found[FIELD].get("sim") != sim
    if swapped:
        changes[CANCEL] = True
    elif CANCEL in found:
        gone[CANCEL] = ""
    operators = _operators(changes, gone, raised)
    return Write(row["imsi"], "update", _fence(found, label), operators, numbers, swapped)


def _without(state: State, found: Document | None, label: int) -> Write | None:
    if found is None:
        return None
    if FIELD not in found:
        # Without keys it is what a late upsert of the core left; anything else is somebody else's.
        left = {**_fence(found, label), "security": {"$exists": False}}
        return None if "security" in found else Write(state.imsi, "delete", left)
    if not state.leaving:
        return Write(state.imsi, "delete", _fence(found, label))
    changes: Document = {FIELD: {**found[FIELD], "label": Int64(label), "open": False}, CANCEL: True}
    if found[FIELD].get("open") is not False:
        changes |= {f"security.{name}": value for name, value in closed().items()}
    gone = {"msisdn": ""} if "msisdn" in found else {}
    return Write(state.imsi, "update", _fence(found, label), _operators(changes, gone, {}))


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same in BSON, the types of numbers and the order of fields included."""
    return bool(bson.encode({"": one}) == bson.encode({"": other}))


def _differences(document: Document, found: Document) -> tuple[Document, Document]:
    """(what to set, what to unset) of what is provisioned."""
    changes: Document = {}
    gone: Document = {}
    for name in (*sorted(PROVISIONED), "msisdn"):
        if name in document:
            if name not in found or not _same(document[name], found[name]):
                changes[name] = document[name]
        elif name in found:
            gone[name] = ""
    return changes, gone


def _of_sim(sim: str, keys: Keys | None, there: Document, found: Document) -> bool:
    """Whether a document's sequence number is this SIM's. One that is not the directory's own yet tells by its keys."""
    if FIELD in found:
        return bool(found[FIELD].get("sim") == sim)
    return keys is not None and [str(there.get(name)).lower() for name in ("k", "opc")] == [
        keys[0].lower(),
        keys[1].lower(),
    ]


def _of_keys(security: Document | None, own: Keys | None, there: Document, found: Document) -> Document:
    """What to set of the keys of the same SIM's document."""
    if security is not None:
        wrong = [name for name in _KEYS if name not in there or not _same(security[name], there[name])]
        return {f"security.{name}": security[name] for name in wrong}
    shut = FIELD in found and found[FIELD].get("open") is False
    whole = isinstance(there.get("k"), str) and isinstance(there.get("opc"), str)
    if shut and whole and (own is None or there["k"].lower() != own[0].lower()):
        return {}
    return {f"security.{name}": value for name, value in closed().items()}


def _fence(found: Document, label: int) -> Document:
    """A filter for the document as it was found, or as an earlier claim left it."""
    if FIELD in found:
        return {"_id": found["_id"], f"{FIELD}.label": {"$lte": Int64(label)}}
    return {"_id": found["_id"], FIELD: {"$exists": False}}


def _operators(changes: Document, gone: Document, raised: Document) -> Document:
    given = {"$set": changes, "$unset": gone, "$max": raised}
    return {name: fields for name, fields in given.items() if fields}
