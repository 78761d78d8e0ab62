"""Rating, live: tariffs over real replicas of the OCS, and the ledger's sums against the pure ones."""

from __future__ import annotations

import datetime as dt
import json
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvnobox.charging.diameter.ports import PostgresBook
from mvnobox.charging.rating.book import Ratings
from mvnobox.charging.rating.price import Terms
from mvnobox.charging.rating.scene import Circumstances

NCHF = "/nchf-convergedcharging/v3/chargingdata"
MINOR = 1_000_000
"""One minor unit in millionths."""

RATING: dict[str, Any] = {
    "country": "FR",
    "timezone": "Europe/Paris",
    "currency": "EUR",
    "home": ["208"],
    "emergency": ["112", "15", "3919"],
    "zones": [{"id": "europe", "networks": ["262", "222"]}],
    "destinations": [{"id": "homes", "numbers": ["+33144000000"]}, {"id": "abroad", "prefixes": ["+1", "+44"]}],
    "lowBalance": 200,
    "tariffs": {
        "pay": [
            {"service": "data", "zones": ["home"], "price": 2 * MINOR, "per": 100, "step": 10},
            {"service": "data", "zones": ["europe"], "included": False, "price": 5 * MINOR, "per": 100, "step": 100},
            {"service": "data", "included": False},
            {"service": "voice", "destinations": ["homes"], "free": True},
            {"service": "voice", "destinations": ["abroad"], "included": False, "price": 60 * MINOR, "per": 60,
             "step": 60, "setup": 10 * MINOR},
            {"service": "voice", "price": 6 * MINOR, "per": 60, "step": 1, "minimum": 30},
        ]
    },
}  # fmt: skip


def usage(group: int, want: bool, used: int = 0, unit: str = "totalVolume", amount: int = 0) -> dict[str, Any]:
    asked: dict[str, Any] = {"ratingGroup": group}
    if want:
        asked["requestedUnit"] = {unit: amount} if amount else {}
    if used:
        asked["usedUnitContainer"] = [{"localSequenceNumber": 1, unit: used}]
    return asked


class Line:
    """A line of a brand with a tariff; `session` opens one and the methods go on with it."""

    def __init__(self, client: httpx.AsyncClient, subscriber: str) -> None:
        self.client, self.subscriber = client, subscriber
        self.account = f"line-{subscriber[-6:]}"
        self.location, self.sequence = "", 0

    async def open(self, tariff: str | None, buckets: list[dict[str, Any]], status: str = "active") -> None:
        body = {"subscriberIds": [self.subscriber], "currency": "EUR", "tariff": tariff}
        (await self.client.put(f"/ocs/v1/accounts/{self.account}", json=body)).raise_for_status()
        if buckets:
            granted = {"requestId": str(uuid.uuid4()), "buckets": [{"source": "test", **one} for one in buckets]}
            answer = await self.client.post(f"/ocs/v1/accounts/{self.account}/grants", json=granted)
            assert answer.status_code == 200, answer.text
        if status != "active":
            await self.client.patch(f"/ocs/v1/accounts/{self.account}", json={"status": status})

    async def ask(self, step: str, *usages: dict[str, Any], sequence: int | None = None, **more: Any) -> dict[str, Any]:
        if sequence is None:
            self.sequence += 1
        body = {
            "subscriberIdentifier": self.subscriber,
            "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
            "invocationTimeStamp": dt.datetime.now(dt.UTC).isoformat(),
            "invocationSequenceNumber": self.sequence if sequence is None else sequence,
            "multipleUnitUsage": list(usages),
            **more,
        }
        answer = await self.client.post(NCHF if step == "create" else f"{self.location}/{step}", json=body)
        assert answer.is_success, answer.text
        if step == "create":
            self.location = answer.headers["location"]
        if step == "release":
            return {}
        made: dict[str, Any] = answer.json()["multipleUnitInformation"][0]
        return made

    async def totals(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = (await self.client.get(f"/ocs/v1/accounts/{self.account}/balances")).json()[
            "totals"
        ]
        return found


def money(amount: int) -> dict[str, Any]:
    return {"unit": "minor", "amount": amount, "priority": 50}


def octets(amount: int) -> dict[str, Any]:
    return {"unit": "octets", "amount": amount}


def ims(called: str) -> dict[str, Any]:
    return {"iMSChargingInformation": {"calledPartyAddress": called}}


def visiting(mcc: str, mnc: str) -> dict[str, Any]:
    plmn = {"servingCNPlmnId": {"mcc": mcc, "mnc": mnc}}
    return {"pDUSessionChargingInformation": {"pduSessionInformation": plmn}}


@pytest.fixture
async def line(shared: Any) -> AsyncIterator[Line]:
    """A line of a brand of its own that has the rating."""
    async with shared.client(f"r{uuid.uuid4().hex[:10]}") as client:
        (await client.put("/ocs/v1/rating", json=RATING)).raise_for_status()
        yield Line(client, f"imsi-2089{uuid.uuid4().int % 10**11:011d}")


async def test_the_balance_pays_where_the_allowance_ends(line: Line) -> None:
    await line.open("pay", [octets(500), money(30)])
    first = await line.ask("create", usage(1, True, amount=1000))
    # 500 of the allowance and 500 at 2 cents a hundred.
    assert first["grantedUnit"] == {"totalVolume": 1000}
    assert "finalUnitIndication" not in first
    assert (await line.totals())["minor"]["held"] == 10
    second = await line.ask("update", usage(1, True, used=755, amount=1000))
    # 255 priced, billed as 260: 5.2 cents so far, 5 taken; 25 cents are left, for 1,250 of which 1,000 are asked.
    assert (await line.totals())["octets"]["used"] == 500
    assert (await line.totals())["minor"]["used"] == 5
    assert second["grantedUnit"] == {"totalVolume": 1000}
    await line.ask("release", usage(1, False, used=245))
    # 500 priced in sum: 10 cents, however it was reported.
    assert (await line.totals())["minor"] == {
        "granted": 30,
        "used": 10,
        "held": 0,
        "available": 20,
        "expired": 0,
        "balance": 20,
        "credit": 0,
    }


async def test_the_last_grant_is_told_to_be_the_last(line: Line) -> None:
    await line.open("pay", [money(3)])
    last = await line.ask("create", usage(1, True, amount=1000))
    assert last["grantedUnit"] == {"totalVolume": 150}
    assert last["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}
    refused = await line.ask("update", usage(1, True, used=150, amount=1000))
    assert refused["resultCode"] == "QUOTA_LIMIT_REACHED"
    assert (await line.totals())["minor"]["available"] == 0
    granted = {"requestId": str(uuid.uuid4()), "buckets": [{"source": "top-up", **money(100)}]}
    await line.client.post(f"/ocs/v1/accounts/{line.account}/grants", json=granted)
    assert (await line.ask("update", usage(1, True, amount=1000)))["grantedUnit"] == {"totalVolume": 1000}


async def test_abroad_the_zone_decides(line: Line) -> None:
    await line.open("pay", [octets(5000), money(100)])
    first = await line.ask("create", usage(1, True, amount=250), **visiting("262", "01"))
    # Not out of the allowance, in steps of 100: 300 for 15 cents.
    assert first["grantedUnit"] == {"totalVolume": 250}
    assert (await line.totals())["octets"]["held"] == 0
    # An update that does not say where it is stands where the session stood.
    await line.ask("update", usage(1, True, used=250, amount=250))
    assert (await line.totals())["minor"]["used"] == 15
    # Back home: the rest is the allowance's.
    await line.ask("update", usage(1, True, used=50, amount=250), **visiting("208", "93"))
    found = await line.totals()
    assert (found["minor"]["used"], found["minor"]["held"], found["octets"]["held"]) == (15, 0, 250)
    await line.ask("release", usage(1, False, used=100))
    assert (await line.totals())["octets"]["used"] == 100


async def test_what_is_not_sold_is_refused_however_much_there_is(line: Line) -> None:
    await line.open("pay", [octets(5000), money(100)])
    refused = await line.ask("create", usage(1, True), **visiting("310", "260"))
    assert refused["resultCode"] == "END_USER_SERVICE_DENIED"
    found = await line.totals()
    assert found["octets"]["held"] == found["minor"]["held"] == 0


async def test_a_free_destination_costs_nothing_and_counts(line: Line) -> None:
    await line.open("pay", [])
    first = await line.ask("create", usage(3, True, unit="time", amount=60), **ims("tel:+33144000000"))
    assert first["grantedUnit"] == {"time": 60}
    await line.ask("release", usage(3, False, used=55, unit="time"))
    spent = (await line.client.get(f"/ocs/v1/accounts/{line.account}/usage")).json()
    assert spent["totals"] == {"seconds": 55}


@pytest.mark.parametrize("number", ["112", "sip:15@ims.example;user=phone", "tel:3919", "urn:service:sos"])
@pytest.mark.parametrize("status", ["active", "suspended"])
async def test_emergency_and_helplines_are_never_blocked(line: Line, number: str, status: str) -> None:
    await line.open("pay", [], status)
    first = await line.ask("create", usage(3, True, unit="time", amount=60), **ims(number))
    assert first["resultCode"] == "SUCCESS"
    assert "finalUnitIndication" not in first
    assert (await line.ask("update", usage(3, True, used=60, unit="time")))["resultCode"] == "SUCCESS"
    await line.ask("release", usage(3, False, used=10, unit="time"))


async def test_a_call_has_a_setup_fee_and_whole_minutes(line: Line) -> None:
    await line.open("pay", [money(500)])
    await line.ask("create", usage(3, True, unit="time", amount=60), **ims("0044 20 7946 0000"))
    assert (await line.totals())["minor"]["held"] == 70
    await line.ask("update", usage(3, True, used=60, unit="time", amount=60))
    assert (await line.totals())["minor"]["held"] == 60
    await line.ask("release", usage(3, False, used=1, unit="time"))
    # Ten for the call, two minutes begun.
    assert (await line.totals())["minor"]["used"] == 130


async def test_a_call_for_help_is_free_without_a_rating_too(tenant: Any) -> None:
    await tenant.put(0)
    await tenant.grant(50, unit="seconds")
    call = Line(tenant.one, tenant.imsi)
    call.account = tenant.account
    first = await call.ask("create", usage(3, True, unit="time", amount=60), **ims("urn:service:sos.ambulance"))
    assert (first["resultCode"], first["grantedUnit"]) == ("SUCCESS", {"time": 60})
    # An update does not say again whom it calls; allowances that there are stay untouched.
    assert (await call.ask("update", usage(3, True, used=60, unit="time", amount=10)))["resultCode"] == "SUCCESS"
    await call.ask("release", usage(3, False, used=5, unit="time"))
    assert (await call.totals())["seconds"]["available"] == 50


async def test_a_setup_is_paid_once_wherever_the_call_goes(line: Line) -> None:
    """Through a zone whose quota is never used, and through one where allowances pay."""
    rating = json.loads(json.dumps(RATING))
    rating["tariffs"]["pay"][:2] = [
        {"service": "data", "zones": ["home"], "price": 2 * MINOR, "per": 100, "setup": 7 * MINOR},
        {"service": "data", "zones": ["europe"], "included": False, "price": 5 * MINOR, "per": 100, "setup": 9 * MINOR},
        {"service": "data"},
    ]
    (await line.client.put("/ocs/v1/rating", json=rating)).raise_for_status()
    await line.open("pay", [money(500)])
    await line.ask("create", usage(1, True, amount=100), **visiting("208", "01"))
    assert (await line.totals())["minor"]["held"] == 9
    # A first: setup and price; B is granted and never used; A again: the price alone.
    await line.ask("update", usage(1, True, used=100, amount=100), **visiting("262", "01"))
    assert (await line.totals())["minor"]["used"] == 9
    assert (await line.totals())["minor"]["held"] == 5
    await line.ask("update", usage(1, True, amount=100), **visiting("208", "01"))
    assert (await line.totals())["minor"]["held"] == 2
    await line.ask("update", usage(1, True, used=100, amount=100), **visiting("310", "260"))
    assert (await line.totals())["minor"]["used"] == 11
    # No terms of money here; use that nobody granted is paid as here, and the setup does not come back with the next.
    await line.ask("update", usage(1, True, amount=100), **visiting("262", "01"))
    await line.ask("update", usage(1, False, used=100))
    await line.ask("release", usage(1, False, used=100))
    assert (await line.totals())["minor"] == {
        "granted": 500,
        "used": 21,
        "held": 0,
        "available": 479,
        "expired": 0,
        "balance": 479,
        "credit": 0,
    }


async def test_a_setup_is_remembered_where_allowances_pay(line: Line) -> None:
    """Also by requests that are charged as a set, which leave prices alone."""
    rating = json.loads(json.dumps(RATING))
    rating["tariffs"]["pay"] = [
        {"service": "data", "zones": ["europe"], "included": False, "price": 5 * MINOR, "per": 100, "setup": 9 * MINOR},
        {"service": "data"},
    ]
    (await line.client.put("/ocs/v1/rating", json=rating)).raise_for_status()
    await line.open("pay", [money(500), octets(1000)])
    await line.ask("create", usage(1, True, amount=100), **visiting("262", "01"))
    await line.ask("update", usage(1, True, used=100, amount=100), **visiting("208", "01"))
    assert (await line.totals())["minor"]["used"] == 14
    for _ in range(2):
        await line.ask("update", usage(1, True, used=100, amount=100), **visiting("208", "01"))
    await line.ask("update", usage(1, True, used=100, amount=100), **visiting("262", "01"))
    found = await line.totals()
    assert (found["octets"]["used"], found["minor"]["held"]) == (300, 5)


async def test_a_minimum_and_then_by_the_second(line: Line) -> None:
    await line.open("pay", [money(500)])
    await line.ask("create", usage(3, True, unit="time", amount=600), **ims("0639980000"))
    await line.ask("release", usage(3, False, used=5, unit="time"))
    assert (await line.totals())["minor"]["used"] == 3


async def test_two_sessions_never_spend_the_same_money(line: Line) -> None:
    await line.open("pay", [money(10)])
    other = Line(line.client, line.subscriber)
    other.account = line.account
    assert (await line.ask("create", usage(1, True, amount=300)))["grantedUnit"] == {"totalVolume": 300}
    second = await other.ask("create", usage(1, True, amount=300), chargingId=7)
    assert second["grantedUnit"] == {"totalVolume": 200}
    await line.ask("release", usage(1, False, used=300))
    await other.ask("release", usage(1, False, used=200))
    assert (await line.totals())["minor"] == {
        "granted": 10,
        "used": 10,
        "held": 0,
        "available": 0,
        "expired": 0,
        "balance": 0,
        "credit": 0,
    }


async def test_a_late_report_is_paid_and_takes_no_quota(line: Line) -> None:
    await line.open("pay", [money(100)])
    await line.ask("create", usage(1, True, amount=500))
    await line.ask("update", usage(1, True, used=100, amount=500), sequence=9)
    await line.ask("update", usage(1, False, used=200), sequence=5)
    found = await line.totals()
    assert (found["minor"]["used"], found["minor"]["held"]) == (6, 10)
    # The same once more: the first answer, and nothing more is taken.
    await line.ask("update", usage(1, False, used=200), sequence=5)
    assert (await line.totals())["minor"]["used"] == 6


async def test_money_that_was_promised_to_nobody_is_an_overrun(line: Line) -> None:
    await line.open("pay", [money(2)])
    await line.ask("create", usage(1, True, amount=100))
    await line.ask("release", usage(1, False, used=400))
    assert (await line.totals())["minor"]["used"] == 2
    spent = (await line.client.get(f"/ocs/v1/accounts/{line.account}/usage")).json()["totals"]
    assert spent == {"octets": 400, "minor": 8}


async def test_a_low_balance_is_told_once(line: Line) -> None:
    await line.open("pay", [money(210)])
    await line.ask("create", usage(1, True, amount=1000))
    await line.ask("update", usage(1, True, used=1000, amount=1000))
    await line.ask("release", usage(1, False, used=1000))
    events = (await line.client.get("/ocs/v1/events")).json()
    low = [one["body"] for one in events if one["type"] == "balance.low"]
    assert low == [{"unit": "minor", "available": 190, "threshold": 200}]


async def test_without_a_tariff_allowances_are_all(line: Line) -> None:
    await line.open(None, [octets(500), money(100)])
    first = await line.ask("create", usage(1, True, amount=800))
    assert first["grantedUnit"] == {"totalVolume": 500}
    assert first["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}


async def test_a_new_price_counts_from_the_next_grant(line: Line) -> None:
    await line.open("pay", [money(100)])
    await line.ask("create", usage(1, True, amount=500))
    dearer = json.loads(json.dumps(RATING))
    dearer["tariffs"]["pay"][0]["price"] = 10 * MINOR
    (await line.client.put("/ocs/v1/rating", json=dearer)).raise_for_status()
    await line.ask("update", usage(1, True, used=500, amount=500))
    found = await line.totals()
    assert (found["minor"]["used"], found["minor"]["held"]) == (10, 50)
    await line.ask("release", usage(1, False, used=100))
    assert (await line.totals())["minor"]["used"] == 20


async def test_a_quota_ends_with_its_hours(line: Line) -> None:
    now = dt.datetime.now(dt.UTC)
    banded = json.loads(json.dumps(RATING))
    # Hours that end within the next half hour, wherever the clock stands.
    start, until = now.hour * 60 + now.minute // 30 * 30, now.hour * 60 + now.minute // 30 * 30 + 30
    banded["timezone"] = "UTC"
    banded["bands"] = [{"id": "now", "days": [1, 2, 3, 4, 5, 6, 7], "start": start, "until": until}]
    banded["tariffs"]["pay"].insert(0, {"service": "data", "bands": ["now"], "price": MINOR, "per": 100})
    (await line.client.put("/ocs/v1/rating", json=banded)).raise_for_status()
    await line.open("pay", [money(100)])
    first = await line.ask("create", usage(1, True, amount=500))
    left = (now.replace(second=0, microsecond=0) - now).total_seconds() + (until - now.hour * 60 - now.minute) * 60
    assert left - 20 <= first["validityTime"] <= left + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timezone": "Mars/Olympus"}, "IANA"),
        ({"tariffs": {"pay": [{"service": "data", "zones": ["moon"]}]}}, "moon"),
        ({"tariffs": {"pay": [{"service": "data", "price": -1}]}}, "greater than or equal to 0"),
        ({"tariffs": {"pay": [{"service": "data", "price": 10**16}]}}, "less than or equal to"),
        ({"tariffs": {"pay": [{"service": "data", "step": 0}]}}, "greater than or equal to 1"),
        ({"home": []}, "at least 1"),
        ({"lowBalance": 1.5}, "valid integer"),
    ],
)
async def test_a_rating_that_leads_nowhere_is_refused(line: Line, change: dict[str, Any], said: str) -> None:
    refused = await line.client.put("/ocs/v1/rating", json={**RATING, **change})
    assert refused.status_code == 400
    assert said in refused.text
    assert (await line.client.get("/ocs/v1/rating")).json()["lowBalance"] == 200


async def test_a_circumstance_of_another_shape_is_refused(line: Line) -> None:
    await line.open("pay", [money(100)])
    with pytest.raises(AssertionError, match="mcc"):
        await line.ask("create", usage(1, True), **visiting("20x", "1"))


TERMS = st.builds(
    Terms,
    price=st.integers(0, 10**12),
    per=st.sampled_from([1, 60, 1000, 10**6, 10**9]),
    step=st.sampled_from([1, 7, 60, 1000, 10**6]),
    minimum=st.sampled_from([0, 1, 30, 60, 5000]),
    setup=st.integers(0, 10**9),
    rounding=st.sampled_from(["half-up", "half-even"]),
)


async def test_the_ledger_counts_as_the_rating_does(shared: Any) -> None:
    cases: list[tuple[Terms, int, int]] = []

    @settings(max_examples=300, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TERMS, st.integers(0, 10**12), st.integers(0, 10**12))
    def collect(terms: Terms, units: int, budget: int) -> None:
        cases.append((terms, units, budget))
        # A budget pays for what it is said to pay for.
        assert terms.cost(min(terms.units(budget), 10**12)) <= budget

    collect()
    connection = await asyncpg.connect(shared.dsn)
    rows = await connection.fetch(
        """SELECT t::text, rate_cost(u, t), rate_units(b, t)
           FROM unnest($1::jsonb[], $2::bigint[], $3::bigint[]) AS x (t, u, b)""",
        [json.dumps(terms._asdict()) for terms, _, _ in cases],
        [units for _, units, _ in cases],
        [budget for _, _, budget in cases],
    )
    await connection.close()
    for (terms, units, budget), (_, cost, paid) in zip(cases, rows, strict=True):
        assert (cost, paid) == (min(terms.cost(units), 2**62), terms.units(budget)), terms


@pytest.mark.parametrize("seed", range(8))
async def test_however_it_is_reported_a_session_costs_what_its_use_costs(line: Line, seed: int) -> None:
    """Sessions side by side, reports late, twice and out of order, quotas honoured or not: nobody pays a cent more or less."""
    dice = random.Random(seed)
    await line.open("pay", [money(dice.choice([40, 400, 4000])), money(300)])
    terms = Terms(2 * MINOR, 100, 10, 0, 0, "half-up")
    sessions: list[tuple[Line, list[tuple[int, int]]]] = []
    for number in range(3):
        session = Line(line.client, line.subscriber)
        session.account = line.account
        await session.ask("create", usage(1, True, amount=dice.randint(1, 900)), chargingId=number)
        sessions.append((session, []))
    for _ in range(25):
        session, reports = dice.choice(sessions)
        if reports and dice.random() < 0.2:
            sequence, used = dice.choice(reports)
        else:
            sequence, used = 2 + 7 * len(reports) % 97, dice.choice([0, 1, 9, 10, 11, dice.randint(1, 700)])
            reports.append((sequence, used))
        await session.ask("update", usage(1, dice.random() < 0.8, used=used, amount=300), sequence=sequence)
    for session, reports in sessions:
        used = dice.randint(0, 99)
        reports.append((10_000, used))
        for _ in range(2):
            await session.ask("release", usage(1, False, used=used), sequence=10_000)
    owed = sum(terms.cost(sum(used for _, used in reports)) for _, reports in sessions)
    spent = (await line.client.get(f"/ocs/v1/accounts/{line.account}/usage")).json()["totals"]
    assert spent.get("minor", 0) == owed
    found = (await line.totals())["minor"]
    assert found["held"] == 0
    assert found["used"] == min(owed, found["granted"])


async def test_a_price_enquiry_is_answered_by_the_tariff(line: Line, shared: Any) -> None:
    await line.open("pay", [])
    async with asyncpg.create_pool(shared.dsn, min_size=1, max_size=1) as pool:
        book = PostgresBook(pool, Ratings(pool))
        customer = await book.find([line.subscriber])
        assert customer is not None
        price = await book.price(customer, Circumstances("26201"), "octets", 250)
        assert price == (15, -2, 978)
        assert await book.price(customer, Circumstances("310260"), "octets", 250) is None
        assert await book.price(customer, Circumstances("20801", "112"), "seconds", 250) == (0, 0, 978)
        assert await book.price(customer, Circumstances(), "minor", 1) is None
