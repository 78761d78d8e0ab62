"""What has to be written where a MongoDB's document is to show a subscriber: pure, from both sides' states.

What the core writes itself (`security.sqn`, `imeisv`, `mme_host` …) is left as it is; a new SIM's sequence begins anew.
A field `mirror` in the document says whose it is, under which claim it was written, for which SIM, and whether it has
the keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import bson
from bson.int64 import Int64
from pymongo import DeleteOne, InsertOne, UpdateOne

from mvnobox.core.directory.documents import Assembler, Sealed, worthless
from mvnobox.core.directory.updates import PROVISIONED, SQN_MODULUS

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


class Foreign(Exception):
    """A document that another directory writes."""


@dataclass(frozen=True)
class Found:
    """A document of the MongoDB and what its field `mirror` says, if it has one."""

    document: Document
    mark: Document | None

    @classmethod
    def of(cls, document: Document | None, owner: str) -> Found | None:
        """Raises Foreign."""
        if document is None:
            return None
        mark = document.get(FIELD)
        if not isinstance(mark, dict) or not isinstance(mark.get("label"), int):
            return cls(document, None)
        if mark.get("of") != owner:
            raise Foreign
        return cls(document, mark)

    def fence(self, label: int) -> Document:
        """A filter for the document as it was found, or as an earlier claim left it."""
        if self.mark is not None:
            return {"_id": self.document["_id"], f"{FIELD}.label": {"$lte": Int64(label)}}
        return {"_id": self.document["_id"], FIELD: self.document.get(FIELD, {"$exists": False})}


class Planner:
    """Operations out of states; opens keys."""

    def __init__(self, assembler: Assembler, owner: str) -> None:
        """`owner`: the directory whose documents these are (`owner_of`)."""
        self._assembler, self._owner = assembler, owner

    def plan(self, state: State, document: Document | None, label: int) -> Write | None:
        """What to do about the document that was found, or about none; None: nothing. Raises Sealed, Foreign."""
        found = Found.of(document, self._owner)
        if state.row is None:
            return _without(state, found, label)
        wanted: Document = bson.decode(self._assembler.encode(state.row))
        mark = {"of": self._owner, "label": Int64(label)}
        return _with(state.row, wanted, self._assembler.opened(state.row["sealed"]), found, mark)

    def unopened(self, state: State, document: Document | None, label: int) -> Write:
        """The same for a subscriber whose keys cannot be opened: as if it were suspended. Raises Foreign."""
        wanted: Document = bson.decode(self._assembler.encode(state.row, keys=False))
        mark = {"of": self._owner, "label": Int64(label)}
        return _with(state.row, wanted, None, Found.of(document, self._owner), mark)

    def differences(self, state: State, found: Document | None) -> list[str]:
        """Names of what differs, empty where a document shows the subscriber as it should. Never a value."""
        try:
            write = self.plan(state, found, 0)
        except Sealed:
            write = self.unopened(state, found, 0)
        except Foreign:
            return ["it is another directory's"]
        if write is None:
            return []
        if write.kind == "insert" or found is None:
            return ["it is not there"]
        if write.kind == "delete":
            return ["it is there, and no subscriber"]
        fields = {name for fields in write.what.values() for name in fields} - {CANCEL}
        mark, old = write.what["$set"][FIELD], Found.of(found, self._owner)
        if old and old.mark and all(mark[name] == old.mark.get(name) for name in ("sim", "open")):
            fields.discard(FIELD)
        return sorted(fields)


def sim_of(sealed: bytes) -> str:
    """What tells one SIM from another: a digest of its sealed keys, which says nothing of them."""
    return hashlib.sha256(sealed).hexdigest()[:16]


def owner_of(public_key: bytes) -> str:
    """What tells one directory from another in a MongoDB that both write to."""
    return hashlib.sha256(public_key).hexdigest()[:12]


def _with(row: Any, document: Document, keys: Keys | None, found: Found | None, mark: Document) -> Write:
    security = document.pop("security", None)
    if not document["msisdn"]:
        # A unique index takes an empty array for a value, which one document could have.
        del document["msisdn"]
    numbers = tuple(document.get("msisdn", ()))
    sim = sim_of(row["sealed"])
    mark = {**mark, "sim": sim, "open": security is not None}
    fresh = security or {**closed(), "sqn": Int64(row["sqn"])}
    if found is None:
        return Write(row["imsi"], "insert", what={**document, "security": fresh, FIELD: mark}, numbers=numbers)
    changes, gone = _differences(document, found.document)
    changes[FIELD] = mark
    raised: Document = {}
    there = found.document.get("security")
    if isinstance(there, dict) and _of_sim(sim, keys, there, found):
        changes |= _of_keys(security, keys, there, found)
        sqn: Any = there.get("sqn")
        if not isinstance(sqn, Int64):
            # Open5GS reads a number of another type as 0.
            usable = isinstance(sqn, (int, float)) and not isinstance(sqn, bool) and row["sqn"] < sqn < SQN_MODULUS
            changes["security.sqn"] = Int64(sqn if usable else row["sqn"])
        elif sqn < row["sqn"]:
            raised["security.sqn"] = Int64(row["sqn"])
    elif isinstance(there, dict):
        # `rand` stays, as the core's.
        changes |= {f"security.{name}": fresh[name] for name in (*_KEYS, "sqn")}
    else:
        changes["security"] = fresh
    swapped = found.mark is not None and found.mark.get("sim") != sim
    if swapped:
        changes[CANCEL] = True
    elif CANCEL in found.document:
        gone[CANCEL] = ""
    operators = _operators(changes, gone, raised)
    return Write(row["imsi"], "update", found.fence(mark["label"]), operators, numbers, swapped)


def _without(state: State, found: Found | None, label: int) -> Write | None:
    if found is None:
        return None
    if found.mark is None:
        # Without keys it is what a late upsert of the core left; anything else is somebody else's.
        left = {**found.fence(label), "security": {"$exists": False}}
        return None if "security" in found.document else Write(state.imsi, "delete", left)
    if not state.leaving:
        return Write(state.imsi, "delete", found.fence(label))
    changes: Document = {FIELD: {**found.mark, "label": Int64(label), "open": False}, CANCEL: True}
    if found.mark.get("open") is not False:
        changes |= {f"security.{name}": value for name, value in closed().items()}
    gone = {"msisdn": ""} if "msisdn" in found.document else {}
    return Write(state.imsi, "update", found.fence(label), _operators(changes, gone, {}))


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


def _of_sim(sim: str, keys: Keys | None, there: Document, found: Found) -> bool:
    """Whether a document's sequence number is this SIM's. One that is not the directory's own yet tells by its keys."""
    if found.mark is not None:
        return bool(found.mark.get("sim") == sim)
    own = [one.lower() for one in keys[:2]] if keys else None
    return [str(there.get(name)).lower() for name in ("k", "opc")] == own


def _of_keys(security: Document | None, own: Keys | None, there: Document, found: Found) -> Document:
    """What to set of the keys of the same SIM's document."""
    if security is not None:
        wrong = [name for name in _KEYS if name not in there or not _same(security[name], there[name])]
        return {f"security.{name}": security[name] for name in wrong}
    shut = found.mark is not None and found.mark.get("open") is False
    whole = isinstance(there.get("k"), str) and isinstance(there.get("opc"), str)
    if shut and whole and (own is None or there["k"].lower() != own[0].lower()):
        return {}
    return {f"security.{name}": value for name, value in closed().items()}


def _operators(changes: Document, gone: Document, raised: Document) -> Document:
    given = {"$set": changes, "$unset": gone, "$max": raised}
    return {name: fields for name, fields in given.items() if fields}
