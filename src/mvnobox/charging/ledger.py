"""The ledger's queries. Every charging request is one statement, hence one transaction and one round trip."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import asyncpg

from mvnobox.charging.schemas import AccountPut, Grant


class SubscriberTaken(Exception):
    """A subscriber identifier belongs to another account."""


class Conflict(Exception):
    """The same request identifier came with another content."""


class Ledger:
    """Queries over a pool; holds no state of its own, so that replicas are alike."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def ready(self) -> str | None:
        """None, or what is missing."""
        found = await self._pool.fetchval("SELECT to_regprocedure('close_expired(integer)')::text")
        return None if found else "the migrations have not run"

    # Nchf ----------------------------------------------------------------------------------------------------------

    async def create(
        self, brand: str, subscriber: str, key: str, sequence: int, units: list[Any], notify: str | None, validity: int
    ) -> dict[str, Any] | None:
        """See `charge_create` in the migrations; None for an unknown subscriber."""
        return _json(
            await self._pool.fetchval(
                "SELECT charge_create($1, $2, $3, $4, $5, $6, $7)",
                brand,
                subscriber,
                key,
                sequence,
                json.dumps(units),
                notify,
                validity,
            )  # fmt: skip
        )

    async def further(
        self,
        brand: str,
        ref: uuid.UUID,
        sequence: int,
        units: list[Any],
        notify: str | None,
        validity: int,
        *,
        release: bool,
    ) -> dict[str, Any] | None:
        """See `charge_further` in the migrations; None for an unknown session."""
        return _json(
            await self._pool.fetchval(
                "SELECT charge_further($1, $2, $3, $4, $5, $6, $7)",
                brand,
                ref,
                sequence,
                json.dumps(units),
                notify,
                validity,
                release,
            )  # fmt: skip
        )

    async def close_expired(self) -> int:
        """Return what sessions hold that never ended; how many were closed."""
        return int(await self._pool.fetchval("SELECT close_expired(200)"))

    # Accounts ------------------------------------------------------------------------------------------------------

    async def put_account(self, brand: str, account_id: str, body: AccountPut) -> tuple[dict[str, Any], bool]:
        """Make or replace an account; (account, whether it is new). Raises SubscriberTaken."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                """INSERT INTO account (brand, account_id, currency, timezone, status) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT (brand, account_id) DO UPDATE SET timezone = excluded.timezone
                   RETURNING aid, xmax = 0 AS new, currency""",
                brand, account_id, body.currency, body.timezone, body.status,
            )  # fmt: skip
            assert row is not None  # an upsert always returns its row
            if row["currency"] != body.currency:
                raise Conflict(f"the account is kept in {row['currency']}")
            await self._set_status(connection, row["aid"], body.status)
            for subscriber in body.subscriber_ids:
                owner = await connection.fetchval(
                    """INSERT INTO subscriber (subscriber_id, aid) VALUES ($1, $2)
                       ON CONFLICT (subscriber_id) DO UPDATE SET aid = subscriber.aid RETURNING aid""",
                    subscriber,
                    row["aid"],
                )
                if owner != row["aid"]:
                    raise SubscriberTaken(subscriber)
            await connection.execute(
                "DELETE FROM subscriber WHERE aid = $1 AND subscriber_id <> ALL($2)", row["aid"], body.subscriber_ids
            )
        return {"accountId": account_id, **body.model_dump(by_alias=True)}, row["new"]

    async def _set_status(self, connection: Any, aid: int, status: str) -> None:
        changed = await connection.fetchval(
            "UPDATE account SET status = $2 WHERE aid = $1 AND status <> $2 RETURNING aid", aid, status
        )
        if changed is None:
            return
        kind = "REAUTHORIZATION" if status == "active" else "ABORT_CHARGING"
        body = {"notificationType": kind}
        if status == "active":
            body["reauthorizationDetails"] = [{"ratingGroup": 1}]  # type: ignore[assignment]
        await connection.execute(
            """INSERT INTO outbox (ref, uri, body) SELECT ref, notify_uri, $2 FROM session
               WHERE aid = $1 AND ended_at IS NULL AND notify_uri IS NOT NULL""",
            aid,
            json.dumps(body),
        )

    async def set_status(self, brand: str, account_id: str, status: str) -> bool:
        """Change an account's status and tell its sessions; False for an unknown account."""
        async with self._pool.acquire() as connection, connection.transaction():
            aid = await connection.fetchval(
                "SELECT aid FROM account WHERE brand = $1 AND account_id = $2 FOR UPDATE", brand, account_id
            )
            if aid is None:
                return False
            await self._set_status(connection, aid, status)
            return True

    async def grant(self, brand: str, account_id: str, grant: Grant) -> dict[str, Any] | None:
        """Add buckets, once a request identifier; None for an unknown account. Raises Conflict."""
        buckets = [bucket.model_dump(mode="json", by_alias=True) for bucket in grant.buckets]
        digest = hashlib.sha256(json.dumps(buckets, sort_keys=True).encode()).hexdigest()
        answer = _json(
            await self._pool.fetchval(
                "SELECT grant_buckets($1, $2, $3, $4, $5)",
                brand,
                account_id,
                grant.request_id,
                digest,
                json.dumps(buckets),
            )  # fmt: skip
        )
        if answer is None:
            return None
        if answer["conflict"]:
            raise Conflict("this requestId came before with another content")
        return {"requestId": str(grant.request_id), "buckets": answer["buckets"]}

    async def balances(self, brand: str, account_id: str) -> dict[str, Any] | None:
        """Buckets and totals a unit; None for an unknown account."""
        account = await self._pool.fetchrow(
            "SELECT aid, status FROM account WHERE brand = $1 AND account_id = $2", brand, account_id
        )
        if account is None:
            return None
        rows = await self._pool.fetch(
            """SELECT id, unit, granted, used, held, priority, source, valid_until,
                      CASE WHEN valid_until IS NULL OR valid_until > now() THEN granted - used - held ELSE 0 END AS available
               FROM bucket WHERE aid = $1 ORDER BY priority, valid_until NULLS LAST, id""",
            account["aid"],
        )
        totals: dict[str, dict[str, int]] = {}
        for row in rows:
            total = totals.setdefault(row["unit"], {"granted": 0, "used": 0, "held": 0, "available": 0})
            for key in total:
                total[key] += row[key]
        buckets = [
            {("validUntil" if key == "valid_until" else key): value for key, value in row.items()} for row in rows
        ]
        return {"accountId": account_id, "status": account["status"], "buckets": buckets, "totals": totals}

    async def usage(self, brand: str, account_id: str) -> dict[str, Any] | None:
        """The newest sessions and the total use; None for an unknown account."""
        aid = await self._pool.fetchval(
            "SELECT aid FROM account WHERE brand = $1 AND account_id = $2", brand, account_id
        )
        if aid is None:
            return None
        rows = await self._pool.fetch(
            """SELECT ref, subscriber_id, started_at, ended_at, used, denied FROM session
               WHERE aid = $1 ORDER BY started_at DESC LIMIT 100""",
            aid,
        )
        sums = await self._pool.fetch(
            "SELECT unit, sum(amount)::bigint AS amount FROM entry WHERE aid = $1 AND credit = 'used' GROUP BY unit",
            aid,
        )
        sessions = [
            {
                "chargingDataRef": str(row["ref"]),
                "subscriberId": row["subscriber_id"],
                "startedAt": row["started_at"],
                "endedAt": row["ended_at"],
                "unit": "octets",
                "used": row["used"],
                "denied": row["denied"],
            }
            for row in rows
        ]
        return {
            "accountId": account_id,
            "sessions": sessions,
            "totals": {row["unit"]: row["amount"] for row in sums},
        }

    async def differences(self) -> list[tuple[str, str]]:
        """What violates the ledger's invariants; empty on a sound one."""
        return [(row["what"], row["difference"]) for row in await self._pool.fetch("SELECT * FROM ledger_difference")]


def _json(value: str | None) -> dict[str, Any] | None:
    return None if value is None else json.loads(value)
