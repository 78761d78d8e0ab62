"""What credit control needs of the ledger, and its part of that on PostgreSQL."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import NamedTuple, Protocol

import asyncpg

from mvnobox.charging.accounts import Accounts
from mvnobox.charging.diameter.currencies import CURRENCIES
from mvnobox.charging.rating.book import Ratings
from mvnobox.charging.rating.document import HOME, OTHER, SERVICES
from mvnobox.charging.rating.price import Terms
from mvnobox.charging.rating.scene import Circumstances, Scenery
from mvnobox.charging.schemas import BucketGrant, Grant, Unit


class Customer(NamedTuple):
    """Whom a subscriber identifier belongs to."""

    subscriber: str
    brand: str
    account: str
    currency: str


class Price(NamedTuple):
    """digits * 10 ** exponent of a currency (ISO 4217 number)."""

    digits: int
    exponent: int
    currency: int


class Book(Protocol):
    """Accounts, as far as credit control asks for them."""

    async def find(self, subscribers: list[str], fresh: bool = False) -> Customer | None:
        """The owner of the first identifier that is known; `fresh`: not as remembered."""
        ...

    async def brand_of(self, ref: uuid.UUID) -> str | None:
        """The brand that a charging session belongs to."""
        ...

    async def available(self, customer: Customer, unit: Unit) -> int:
        """What is left of a unit, reservations taken off."""
        ...

    async def refund(self, customer: Customer, request: uuid.UUID, unit: Unit, amount: int) -> None:
        """Give something back, once a request."""
        ...

    async def price(self, customer: Customer, seen: Circumstances, unit: Unit, amount: int) -> Price | None:
        """What an amount would cost here and now beyond the allowances; None if no tariff says."""
        ...

    async def scenery(self, brand: str) -> Scenery | None:
        """What a brand sells by the unit; None: nothing."""
        ...


class PostgresBook:
    """Book over the ledger's tables. Owners are remembered for a while: they hardly ever change, and a request that
    turns out unknown is looked up again."""

    REMEMBERED_SECONDS = 60.0
    REMEMBERED = 200_000

    def __init__(self, pool: asyncpg.Pool, ratings: Ratings) -> None:
        self._pool, self._accounts, self._ratings = pool, Accounts(pool), ratings
        self._known: dict[str, tuple[float, Customer]] = {}

    async def find(self, subscribers: list[str], fresh: bool = False) -> Customer | None:
        now = time.monotonic()
        if not subscribers:
            return None
        if not fresh:
            hit = self._known.get(subscribers[0])
            if hit is not None and hit[0] > now:
                return hit[1]
        row = await self._pool.fetchrow(
            """SELECT s.subscriber_id, a.brand, a.account_id, a.currency FROM subscriber s JOIN account a USING (aid)
               WHERE s.subscriber_id = ANY ($1) ORDER BY array_position($1, s.subscriber_id) LIMIT 1""",
            subscribers,
            timeout=5,
        )
        if row is None:
            self._known.pop(subscribers[0], None)
            return None
        if len(self._known) >= self.REMEMBERED:
            self._known.clear()
        customer = Customer(*row)
        self._known[subscribers[0]] = (now + self.REMEMBERED_SECONDS, customer)
        return customer

    async def brand_of(self, ref: uuid.UUID) -> str | None:
        brand: str | None = await self._pool.fetchval("SELECT brand FROM session WHERE ref = $1", ref, timeout=5)
        return brand

    async def available(self, customer: Customer, unit: Unit) -> int:
        found = await self._accounts.balances(customer.brand, customer.account)
        return int(found["totals"].get(unit, {}).get("available", 0)) if found else 0

    async def refund(self, customer: Customer, request: uuid.UUID, unit: Unit, amount: int) -> None:
        bucket = BucketGrant(unit=unit, amount=amount, source=f"refund:{request}")
        await self._accounts.grant(customer.brand, customer.account, Grant(request_id=request, buckets=[bucket]))

    async def scenery(self, brand: str) -> Scenery | None:
        return await self._ratings.get(brand)

    async def price(self, customer: Customer, seen: Circumstances, unit: Unit, amount: int) -> Price | None:
        scenery, number = await self._ratings.get(customer.brand), CURRENCIES.get(customer.currency, (None, 2))[0]
        service = SERVICES.get(unit)
        if scenery is None or service is None or number is None:
            return None
        tariff = await self._pool.fetchval(
            "SELECT tariff FROM account WHERE brand = $1 AND account_id = $2",
            customer.brand, customer.account, timeout=5,
        )  # fmt: skip
        scene = scenery.scene(seen, dt.datetime.now(dt.UTC))
        rating = scenery.rating
        rule = rating.rule(tariff, service, scene.zone or HOME, scene.destination or OTHER, scene.band)
        if rule.free:
            return Price(0, 0, number)
        if rule.price is None:
            return None
        return Price(Terms.of(rule, rating.rounding).cost(amount), -rating.minor_digits, number)
