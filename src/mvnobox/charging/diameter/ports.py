"""What credit control needs of the ledger, and its part of that on PostgreSQL."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import Literal, NamedTuple, Protocol

import asyncpg

from mvnobox.charging.accounts import Accounts
from mvnobox.charging.diameter.currencies import CURRENCIES
from mvnobox.charging.rating.book import Ratings
from mvnobox.charging.rating.document import HOME, OTHER, SERVICES, Rule, Service
from mvnobox.charging.rating.price import Terms
from mvnobox.charging.rating.scene import Circumstances, Scenery, is_emergency
from mvnobox.charging.schemas import BucketGrant, Grant, Unit


class Customer(NamedTuple):
    """Whom a subscriber identifier belongs to."""

    subscriber: str
    brand: str
    account: str
    currency: str


Credit = Literal["enough", "none", "denied"]


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

    async def credit(self, customer: Customer, seen: Circumstances, wishes: list[tuple[Unit, int]]) -> Credit:
        """Whether all of it could be had here and now, out of what is held for nobody; an amount of 0: any at all."""
        ...

    async def refund(self, customer: Customer, request: uuid.UUID, unit: Unit, amount: int) -> bool:
        """Give something back, once a request. False: the account is terminated."""
        ...

    async def price(self, customer: Customer, seen: Circumstances, unit: Unit, amount: int) -> Price | None:
        """What an amount would cost here and now beyond the allowances; None if no tariff says."""
        ...

    async def scenery(self, brand: str) -> Scenery | None:
        """What a brand sells by the unit; None: nothing."""
        ...

    def remembered(self, brand: str) -> tuple[Scenery | None] | None:
        """The same in a tuple of one, without waiting; None: it has to be waited for."""
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

    async def credit(self, customer: Customer, seen: Circumstances, wishes: list[tuple[Unit, int]]) -> Credit:
        found = await self._accounts.balances(customer.brand, customer.account)
        if found is None:
            return "denied"
        scenery, tariff = await self._ratings.get(customer.brand), await self._tariff(customer)
        left: dict[str, int] = {unit: total["available"] for unit, total in found["totals"].items()}
        for unit, amount in wishes:
            rest, service = max(amount, 1), SERVICES.get(unit)
            rule = _rule(scenery, tariff, service, seen) if service is not None else None
            if is_emergency(scenery, seen.called):
                continue
            if found["status"] != "active" or (rule is not None and rule.not_sold):
                return "denied"
            if rule is not None and rule.free:
                continue
            if rule is None or rule.included:
                taken = min(rest, left.get(unit, 0))
                left[unit] = left.get(unit, 0) - taken
                rest -= taken
            if rest and rule is not None and rule.price is not None and scenery is not None:
                terms, money = Terms.of(rule, scenery.rating.rounding), left.get("minor", 0)
                if terms.units(money) >= rest:
                    left["minor"] = money - terms.cost(rest)
                    rest = 0
            if rest:
                return "none"
        return "enough"

    async def _tariff(self, customer: Customer) -> str | None:
        tariff: str | None = await self._pool.fetchval(
            "SELECT tariff FROM account WHERE brand = $1 AND account_id = $2",
            customer.brand, customer.account, timeout=5,
        )  # fmt: skip
        return tariff

    async def refund(self, customer: Customer, request: uuid.UUID, unit: Unit, amount: int) -> bool:
        # What was refunded before is answered as it was then.
        gone = await self._pool.fetchval(
            """SELECT status = 'terminated' AND NOT EXISTS (
                   SELECT FROM grant_request g WHERE g.brand = a.brand AND g.request_id = $3)
               FROM account a WHERE brand = $1 AND account_id = $2""",
            customer.brand, customer.account, request, timeout=5,
        )  # fmt: skip
        if gone or gone is None:
            return False
        bucket = BucketGrant(unit=unit, amount=amount, source=f"refund:{request}")
        await self._accounts.grant(customer.brand, customer.account, Grant(request_id=request, buckets=[bucket]))
        return True

    async def scenery(self, brand: str) -> Scenery | None:
        return await self._ratings.get(brand)

    def remembered(self, brand: str) -> tuple[Scenery | None] | None:
        return self._ratings.remembered(brand)

    async def price(self, customer: Customer, seen: Circumstances, unit: Unit, amount: int) -> Price | None:
        scenery, number = await self._ratings.get(customer.brand), CURRENCIES.get(customer.currency, (None, 2))[0]
        service = SERVICES.get(unit)
        if scenery is None or service is None or number is None:
            return None
        rating, rule = scenery.rating, _rule(scenery, await self._tariff(customer), service, seen)
        if rule.free:
            return Price(0, 0, number)
        if rule.price is None:
            return None
        return Price(Terms.of(rule, rating.rounding).cost(amount), -rating.minor_digits, number)


def _rule(scenery: Scenery | None, tariff: str | None, service: Service, seen: Circumstances) -> Rule:
    """What decides here and now; of a line that never said where it is, at home."""
    if scenery is None:
        return Rule(service=service)
    scene = scenery.scene(seen, dt.datetime.now(dt.UTC))
    return scenery.rating.rule(tariff, service, scene.zone or HOME, scene.destination or OTHER, scene.band)
