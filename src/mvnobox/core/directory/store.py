"""Open5GS's subscriber documents out of rows, with the types that it expects: int32 throughout, `sqn` int64."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import nacl.exceptions
from bson.int64 import Int64
from nacl.public import PrivateKey, SealedBox

# The fields of `security` that Open5GS writes; everything else of a document is the BSS's.
_SECURITY_WRITABLE = ("security.sqn", "security.rand")
_COLUMNS = "imsi, msisdn, sealed, sqn, document"
SQN_MODULUS = 1 << 48


class Unsupported(Exception):
    """A filter or an update that Open5GS does not send."""


def imsi_filter(query: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(imsis, msisdns), any of which is meant, of a filter on imsi, msisdn or `$or` of them. Raises Unsupported."""
    imsis: list[str] = []
    msisdns: list[str] = []
    clauses = query["$or"] if set(query) == {"$or"} else [query]
    if not isinstance(clauses, list) or not clauses:
        raise Unsupported("$or needs a list")
    for clause in clauses:
        if not isinstance(clause, dict) or len(clause) != 1:
            raise Unsupported("filters are on imsi, msisdn or $or of them")
        ((field, value),) = clause.items()
        wanted = value.get("$in") if isinstance(value, dict) and set(value) == {"$in"} else [value]
        if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
            raise Unsupported(f"{field} is compared with text")
        if field == "imsi":
            imsis += wanted
        elif field == "msisdn":
            msisdns += wanted
        else:
            raise Unsupported(f"filters are on imsi or msisdn, not on {field}")
    return imsis, msisdns


class Store:
    """Queries over a pool, and the key that opens what is sealed."""

    def __init__(self, pool: asyncpg.Pool, private_key: bytes) -> None:
        self._pool = pool
        self._box = SealedBox(PrivateKey(private_key))

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return (
            None
            if await self._pool.fetchval("SELECT to_regclass('subscriber')::text")
            else "the migrations have not run"
        )

    def document(self, row: asyncpg.Record) -> dict[str, Any]:
        """The document that Open5GS would find in its collection."""
        try:
            keys = json.loads(self._box.decrypt(row["sealed"]))
        except (nacl.exceptions.CryptoError, ValueError) as error:
            raise RuntimeError(f"the keys of a subscriber cannot be opened: {type(error).__name__}") from None
        return {
            "schema_version": 1,
            **json.loads(row["document"]),
            "imsi": row["imsi"],
            "msisdn": list(row["msisdn"]),
            "security": {
                "k": keys["k"],
                "op": None,
                "opc": keys["opc"],
                "amf": keys.get("amf", "8000"),
                "sqn": Int64(row["sqn"]),
            },
        }

    async def find(self, query: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        """Documents that a filter means; an empty filter means all, as far as the limit goes."""
        if not query:
            rows = await self._pool.fetch(f"SELECT {_COLUMNS} FROM subscriber ORDER BY imsi LIMIT $1", limit)
        else:
            imsis, msisdns = imsi_filter(query)
            if msisdns:
                rows = await self._pool.fetch(
                    f"""SELECT {_COLUMNS} FROM subscriber WHERE imsi = ANY($1)
                        OR imsi IN (SELECT n.imsi FROM number n WHERE n.msisdn = ANY($2)) LIMIT $3""",
                    imsis,
                    msisdns,
                    limit,
                )
            elif len(imsis) == 1:
                rows = await self._pool.fetch(f"SELECT {_COLUMNS} FROM subscriber WHERE imsi = $1", imsis[0])
            else:
                rows = await self._pool.fetch(
                    f"SELECT {_COLUMNS} FROM subscriber WHERE imsi = ANY($1) LIMIT $2", imsis, limit
                )
        return [self.document(row) for row in rows]

    async def count(self, query: dict[str, Any]) -> int:
        """How many documents a filter means."""
        if not query:
            return int(await self._pool.fetchval("SELECT count(*) FROM subscriber"))
        return len(await self.find(query, 1000))

    async def update(self, query: dict[str, Any], change: dict[str, Any]) -> tuple[int, int]:
        """Apply what Open5GS writes: (matched, modified). The whole update is one statement, so that none is lost."""
        imsis, msisdns = imsi_filter(query)
        if len(imsis) + len(msisdns) != 1:
            raise Unsupported("an update means one subscriber")
        expression = "sqn"
        others: dict[str, Any] = {}
        parameters: list[Any] = []
        for operator, fields in change.items():
            if operator not in ("$set", "$inc", "$bit", "$setOnInsert") or not isinstance(fields, dict):
                raise Unsupported(f"the update operator {operator}")
            for field, value in fields.items():
                if field == "security.sqn" and operator == "$set" and isinstance(value, int):
                    parameters.append(int(value))
                    expression = f"${len(parameters)}::bigint"
                elif field == "security.sqn" and operator == "$inc" and isinstance(value, int):
                    parameters.append(int(value))
                    expression = f"({expression} + ${len(parameters)}::bigint)"
                elif field == "security.sqn" and operator == "$bit" and isinstance(value, dict):
                    for name, operand in value.items():
                        sign = {"and": "&", "or": "|", "xor": "#"}.get(name)
                        if sign is None or not isinstance(operand, int):
                            raise Unsupported(f"$bit {name}")
                        parameters.append(int(operand))
                        expression = f"({expression} {sign} ${len(parameters)}::bigint)"
                elif field in _SECURITY_WRITABLE:
                    continue  # rand: read by nobody
                elif operator == "$set" and not field.startswith(("security", "imsi", "msisdn", "_id")):
                    others[field] = value
                elif operator == "$setOnInsert":
                    continue
                else:
                    raise Unsupported(f"{operator} of {field}")
        parameters.append(json.dumps(others, default=str))
        patch = f"${len(parameters)}::jsonb"
        parameters.append((imsis or msisdns)[0])
        key = f"${len(parameters)}"
        where = f"imsi = {key}" if imsis else f"imsi = (SELECT n.imsi FROM number n WHERE n.msisdn = {key})"
        row = await self._pool.fetchrow(
            f"""WITH before AS (SELECT imsi, sqn, document FROM subscriber WHERE {where} FOR UPDATE)
                UPDATE subscriber s SET sqn = mod({expression.replace("sqn", "before.sqn")}, {SQN_MODULUS}),
                    document = CASE WHEN {patch} = '{{}}' THEN s.document ELSE s.document || {patch} END
                FROM before WHERE s.imsi = before.imsi
                RETURNING before.sqn <> s.sqn OR before.document <> s.document AS modified""",
            *parameters,
        )
        return (1, int(row["modified"])) if row is not None else (0, 0)
