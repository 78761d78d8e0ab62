"""Brands' ratings in the database, remembered for a moment."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import asyncpg

from mvnobox.charging.rating.document import UNITS, Rating
from mvnobox.charging.rating.scene import Scenery
from mvnobox.service.database import TROUBLE

# A changed rating counts at most so much later, in every replica.
REMEMBERED_SECONDS = 5.0


class Ratings:
    """Over a pool. What a brand's tariffs cost is looked up in the ledger's own transaction; only its zones, hours and
    destinations are remembered here."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._known: dict[str, tuple[float, str | None, Scenery | None]] = {}

    def remembered(self, brand: str) -> tuple[Scenery | None] | None:
        """What `get` says, in a tuple of one, if that takes no look at the database."""
        known = self._known.get(brand)
        return (known[2],) if known is not None and known[0] > time.monotonic() else None

    async def get(self, brand: str) -> Scenery | None:
        """None: the brand has none, and allowances are all that it sells. Raises what asyncpg raises."""
        if (remembered := self.remembered(brand)) is not None:
            return remembered[0]
        known, now = self._known.get(brand), time.monotonic()
        try:
            row = await self._pool.fetchrow(
                """SELECT digest, CASE WHEN digest IS DISTINCT FROM $2 THEN document END AS document
                   FROM rating WHERE brand = $1""",
                brand, known[1] if known else None, timeout=5,
            )  # fmt: skip
        except TROUBLE:
            if known is None:
                raise
            return known[2]
        if row is None:
            fresh: tuple[str | None, Scenery | None] = (None, None)
        elif row["document"] is None and known is not None:
            fresh = known[1:]
        else:
            fresh = (row["digest"], Scenery(Rating.model_validate_json(row["document"])))
        self._known[brand] = (now + REMEMBERED_SECONDS, *fresh)
        return fresh[1]

    async def read(self, brand: str) -> Rating | None:
        """As it stands in the database."""
        document = await self._pool.fetchval("SELECT document FROM rating WHERE brand = $1", brand, timeout=5)
        return None if document is None else Rating.model_validate_json(document)

    async def put(self, brand: str, rating: Rating) -> None:
        """Replace a brand's, in one transaction."""
        document = json.dumps(rating.model_dump(mode="json", by_alias=True), sort_keys=True)
        digest = hashlib.sha256(document.encode()).hexdigest()
        await self._pool.execute(
            "SELECT put_rating($1, $2, $3, $4, $5)", brand, document, digest, rating.low_balance, _rows(brand, rating)
        )
        self._known.pop(brand, None)


def _rows(brand: str, rating: Rating) -> str:
    """The rules as rows of `rating_rule`."""
    rows: list[dict[str, Any]] = []
    for tariff, rules in rating.tariffs.items():
        for number, rule in enumerate(rules):
            row = rule.model_dump(mode="json", exclude={"service", "name"})
            keys = {"brand": brand, "tariff": tariff, "n": number, "unit": UNITS[rule.service]}
            rows.append({**keys, **row, "rounding": rating.rounding})
    return json.dumps(rows)
