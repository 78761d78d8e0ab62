"""The ledger's account side: accounts, grants, balances, usage. Amounts are integers in a bucket's unit."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import asyncpg

from mvnobox.charging.problems import Problem
from mvnobox.charging.schemas import AccountPut, Grant, Status

# The priority of credit lines: whatever else there is comes first, or, with the same number, by its end.
LAST = 1000


class Accounts:
    """Queries over a pool. An account of another brand does not exist for the caller: None, as for one that was never."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def put(self, brand: str, account_id: str, body: AccountPut) -> tuple[dict[str, Any], bool]:
        """Make or replace an account; (account, whether it is new). Raises Problem 409."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                """INSERT INTO account (brand, account_id, currency, timezone, status, tariff) VALUES ($1, $2, $3, $4, $5, $6)
                   ON CONFLICT (brand, account_id) DO UPDATE SET timezone = excluded.timezone, tariff = excluded.tariff
                   RETURNING aid, xmax = 0 AS new, currency""",
                brand, account_id, body.currency, body.timezone, body.status, body.tariff,
            )  # fmt: skip
            assert row is not None  # an upsert always returns its row
            if row["currency"] != body.currency:
                raise Problem(409, None, f"the account is kept in {row['currency']}")
            await connection.execute("SELECT set_status($1, $2)", row["aid"], body.status)
            # An account that has ended leaves its identifiers to others.
            wanted = [] if body.status == "terminated" else sorted(set(body.subscriber_ids))
            # In one order, so that two accounts that want the same identifiers do not wait for each other.
            for subscriber in wanted:
                owner = await connection.fetchval(
                    """INSERT INTO subscriber (subscriber_id, aid) VALUES ($1, $2)
                       ON CONFLICT (subscriber_id) DO UPDATE SET aid = subscriber.aid RETURNING aid""",
                    subscriber, row["aid"],
                )  # fmt: skip
                if owner != row["aid"]:
                    raise Problem(409, None, "a subscriber identifier belongs to another account")
            await connection.execute(
                "DELETE FROM subscriber WHERE aid = $1 AND subscriber_id <> ALL($2)", row["aid"], wanted
            )
        return {"accountId": account_id, **body.model_dump(by_alias=True, exclude_none=True)}, row["new"]

    async def set_status(self, brand: str, account_id: str, status: Status) -> bool:
        """Change an account's status and tell its sessions; False for an unknown account.

        One that is terminated has no subscriber identifiers any more: only `put` brings it back. Raises Problem 409.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                "SELECT aid, status FROM account WHERE brand = $1 AND account_id = $2 FOR NO KEY UPDATE",
                brand,
                account_id,
            )
            if row is None:
                return False
            if row["status"] == "terminated" and status != "terminated":
                raise Problem(409, None, "the account is terminated and has no subscribers: put it anew with its own")
            await connection.execute("SELECT set_status($1, $2)", row["aid"], status)
            return True

    async def grant(self, brand: str, account_id: str, grant: Grant) -> dict[str, Any] | None:
        """Add buckets, once a request identifier; None for an unknown account. Raises Problem 409."""
        buckets = [bucket.model_dump(mode="json", by_alias=True) for bucket in grant.buckets]
        for bucket in buckets:
            # As it was before there were any: see the digest.
            if bucket["throttle"] is None:
                del bucket["throttle"]
            if bucket["credit"]:
                bucket["priority"] = LAST
            else:
                del bucket["credit"]
        rollover = grant.rollover.model_dump(mode="json", by_alias=True) if grant.rollover else None
        # As it was before there were rollovers: a request that is repeated over an upgrade has the same digest.
        content = buckets if rollover is None else [buckets, rollover]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        made = await self._pool.fetchval(
            "SELECT grant_buckets($1, $2, $3, $4, $5, $6)",
            brand, account_id, grant.request_id, digest, json.dumps(buckets),
            None if rollover is None else json.dumps(rollover),
        )  # fmt: skip
        if made is None:
            return None
        answer = json.loads(made)
        if answer["conflict"]:
            raise Problem(409, None, "this requestId came before with another content")
        return {"requestId": str(grant.request_id), "buckets": answer["buckets"]}

    async def balances(self, brand: str, account_id: str) -> dict[str, Any] | None:
        """Buckets and totals a unit; `available` is what can be used now: what has lapsed or will lapse is not. Of money,
        `credit` is the lines' share in what is granted, and `balance` what is left without them: below zero what is owed."""
        account = await self._pool.fetchrow(
            "SELECT aid, status FROM account WHERE brand = $1 AND account_id = $2", brand, account_id
        )
        if account is None:
            return None
        # `expired` counts what the sweeper has not booked as lapsed yet, too: granted = used + held + available + expired.
        rows = await self._pool.fetch(
            """SELECT id, unit, granted, used, held,
                      CASE WHEN valid_until <= now() THEN 0 ELSE granted - used - held - lapsed END AS available,
                      CASE WHEN valid_until <= now() THEN granted - used - held ELSE lapsed END AS expired,
                      valid_until AS "validUntil", priority, source, throttle, credit
               FROM bucket WHERE aid = $1 ORDER BY priority, valid_until NULLS LAST, id""",
            account["aid"],
        )
        totals: dict[str, dict[str, int]] = {}
        for row in rows:
            total = totals.setdefault(
                row["unit"], dict.fromkeys(("granted", "used", "held", "available", "expired"), 0)
            )
            for key in ("granted", "used", "held", "available", "expired"):
                total[key] += row[key]
            if row["unit"] == "minor":
                own = 0 if row["credit"] else row["granted"] - row["expired"]
                total["balance"] = total.get("balance", 0) + own - row["used"]
                total["credit"] = total.get("credit", 0) + (row["granted"] if row["credit"] else 0)
        return {
            "accountId": account_id,
            "status": account["status"],
            "buckets": [dict(row) for row in rows],
            "totals": totals,
        }

    async def events(self, brand: str) -> list[dict[str, Any]]:
        """The oldest hundred events that the brand has not taken."""
        rows = await self._pool.fetch(
            """SELECT id::text, at, account_id AS "accountId", type, body FROM account_event
               WHERE brand = $1 ORDER BY n LIMIT 100""",
            brand,
        )
        return [{**row, "body": json.loads(row["body"])} for row in rows]

    async def take_events(self, brand: str, ids: list[uuid.UUID]) -> None:
        """Forget events that the brand has; those that it took before are no error."""
        await self._pool.execute("DELETE FROM account_event WHERE brand = $1 AND id = ANY($2)", brand, ids)

    async def usage(self, brand: str, account_id: str) -> dict[str, Any] | None:
        """The newest hundred sessions, a row a unit, and all use by unit, with what no balance paid for."""
        aid = await self._pool.fetchval(
            "SELECT aid FROM account WHERE brand = $1 AND account_id = $2", brand, account_id
        )
        if aid is None:
            return None
        sessions = await self._pool.fetch(
            """SELECT ref::text AS "chargingDataRef", subscriber_id AS "subscriberId", started_at AS "startedAt",
                      ended_at AS "endedAt", coalesce(u.key, 'octets') AS unit, coalesce(u.value::bigint, 0) AS used, denied
               FROM (SELECT * FROM session WHERE aid = $1 ORDER BY started_at DESC LIMIT 100) s
               LEFT JOIN LATERAL jsonb_each_text(used) u ON true ORDER BY started_at DESC, unit""",
            aid,
        )
        sums = await self._pool.fetch(
            """SELECT unit, sum(amount)::numeric(20)::text AS amount FROM (
                   SELECT unit, used AS amount FROM bucket WHERE aid = $1 AND used > 0
                   UNION ALL SELECT unit, amount FROM entry
                       WHERE aid = $1 AND bucket IS NULL AND credit = 'used') t GROUP BY unit""",
            aid,
        )
        return {
            "accountId": account_id,
            "sessions": [dict(row) for row in sessions],
            "totals": {row["unit"]: int(row["amount"]) for row in sums},
        }
