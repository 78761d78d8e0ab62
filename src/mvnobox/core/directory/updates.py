"""Update operators as SQL: one statement a subscriber, so that of concurrent updates none is lost."""

from __future__ import annotations

import json
from typing import Any

from bson.errors import BSONError

from mvnobox.core.directory.documents import RAND, keep
from mvnobox.core.directory.filters import Unsupported

SQN = "security.sqn"
SQN_MODULUS = 1 << 48
# The fields that a brand provisions: kept as JSON, checked as when the brand writes them.
PROVISIONED = {
    "schema_version",
    "ambr",
    "slice",
    "access_restriction_data",
    "subscriber_status",
    "operator_determined_barring",
    "network_access_mode",
    "subscribed_rau_tau_timer",
    "ifc",
}
_IDENTITY = ("imsi", "msisdn", "_id", "security")
_BITS = {"and": "&", "or": "|", "xor": "#"}


class BadValue(Exception):
    """An operand that is not what its operator takes."""


def _sequence_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(f"{SQN} is changed by whole numbers")
    return int(value)


class Change:
    """An update document as SQL over the row of $1 and its parameters. Raises Unsupported, BadValue."""

    def __init__(self, update: dict[str, Any]) -> None:
        self.parameters: list[Any] = []
        # Whether it may be done a second time where the first one's answer was lost. A sequence number raised twice is
        # as fresh as one raised once (TS 33.102, annex C).
        self.repeatable = True
        self._sqn = "sqn"
        self._document = "document"
        self._written = "written"
        if not update or not all(name.startswith("$") for name in update):
            raise Unsupported("replacing a document; subscribers are provisioned by directory.put_subscriber")
        for name, fields in update.items():
            if not isinstance(fields, dict):
                raise BadValue(f"{name[:40]} takes a document")
            for path, value in fields.items():
                self._apply(name, path, value)

    def _parameter(self, value: Any, kind: str) -> str:
        self.parameters.append(value)
        return f"${len(self.parameters) + 1}::{kind}"

    def _apply(self, name: str, path: str, value: Any) -> None:
        if name == "$setOnInsert":
            return  # subscribers are not made by updates
        if path == SQN and name in ("$set", "$inc", "$bit"):
            self._number(name, value)
            return
        head, *rest = path.split(".")
        if name not in ("$set", "$unset") or not all(path.split(".")) or "\0" in path or path.startswith("$"):
            raise Unsupported(f"{name[:40]} of {path[:60]}")
        if head in PROVISIONED:
            steps = self._parameter([head, *rest], "text[]")
            if name == "$unset":
                self._document = f"checked({self._document} #- {steps})"
            else:
                inner = self._parameter(_json(path, value), "jsonb")
                self._document = f"checked(with_path({self._document}, {steps}, {inner}))"
        elif path == RAND or (head not in _IDENTITY and not rest):
            if name == "$unset":
                self._written = f"({self._written} - {self._parameter(path, 'text')})"
            else:
                if len(path) > 100 or len(stored := _bson(path, value)) > 2048:
                    raise BadValue(f"{path[:60]} is too long")
                self._written = f"({self._written} || {self._parameter(json.dumps({path: stored}), 'jsonb')})"
        else:
            raise Unsupported(f"{name} of {path[:60]}; identity and keys are provisioned by directory.put_subscriber")

    def _number(self, name: str, value: Any) -> None:
        if name == "$bit":
            if not isinstance(value, dict) or not value or not set(value) <= set(_BITS):
                raise BadValue("$bit takes and, or, xor")
            self.repeatable &= "xor" not in value
            for bit, operand in value.items():
                self._sqn = f"({self._sqn} {_BITS[bit]} {self._parameter(_sequence_number(operand), 'bigint')})"
        elif name == "$inc":
            self.repeatable &= _sequence_number(value) > 0
            self._sqn = f"({self._sqn} + {self._parameter(_sequence_number(value), 'bigint')})"
        else:
            self._sqn = self._parameter(_sequence_number(value), "bigint")

    def statement(self) -> str:
        """SQL that changes the row of $1: `matched`, `modified`. A row that stays as it is is not written."""
        columns = {}
        if self._sqn != "sqn":
            # 48 bits, also where an operand is negative (TS 33.102, 6.3).
            columns["sqn"] = f"({self._sqn} & {SQN_MODULUS - 1})"
        if self._document != "document":
            columns["document"] = self._document
        if self._written != "written":
            columns["written"] = self._written
        if not columns:
            return "SELECT EXISTS (SELECT FROM subscriber WHERE imsi = $1) AS matched, false AS modified"
        sets = ", ".join(f"{name} = {value}" for name, value in columns.items())
        differs = " OR ".join(f"{name} IS DISTINCT FROM {value}" for name, value in columns.items())
        return (
            f"WITH done AS (UPDATE subscriber SET {sets} WHERE imsi = $1 AND ({differs}) RETURNING imsi) "
            "SELECT EXISTS (SELECT FROM done) AS modified, EXISTS (SELECT FROM subscriber WHERE imsi = $1) AS matched"
        )


def _json(path: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise BadValue(f"{path[:60]} takes numbers, text, booleans, documents and arrays") from None


def _bson(path: str, value: Any) -> str:
    try:
        return keep(value)
    except (BSONError, ValueError, OverflowError, RecursionError, TypeError):
        raise BadValue(f"{path[:60]} has a value that cannot be kept") from None
