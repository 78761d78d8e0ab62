"""Renewals over a real OCS: once a period, by whichever replica, over clock steps; what is left lives on as sold."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from mvnobox.bss import renewals
from mvnobox.bss.__main__ import opened
from mvnobox.bss.context import BssSettings, Context
from mvnobox.bss.notices import take
from mvnobox.bss.outbox import deliver
from mvnobox.bss.periods import begin
from mvnobox.service.settings import load_settings

from .conftest import OCS_KEY, PRODUCTS, Bss, line, until

TORONTO = ZoneInfo("America/Toronto")
MONTHLY: dict[str, Any] = {
    "plans": [
        {
            "id": "monthly", "name": {"en-CA": "Monthly", "fr-CA": "Mensuel"},
            "description": {"en-CA": "A gigabyte.", "fr-CA": "Un gigaoctet."}, "price": "10.00", "period": "P1M",
            "payment": "postpaid", "dnn": "encore", "allowances": {"data": "1 GB", "sms": 10},
            "rollover": {"periods": 2, "limit": "1500 MB"},
        },
        {
            "id": "prepaid", "name": {"en-CA": "Prepaid", "fr-CA": "Prépayé"},
            "description": {"en-CA": "A gigabyte.", "fr-CA": "Un gigaoctet."}, "price": "10.00", "period": "P30D",
            "dnn": "encore", "allowances": {"data": "1 GB"},
        },
        {
            "id": "trusted", "name": {"en-CA": "Trusted", "fr-CA": "Confiance"},
            "description": {"en-CA": "Pay as you go.", "fr-CA": "Au fil des jours."}, "price": "2.00", "period": "P1M",
            "payment": "postpaid", "dnn": "encore", "allowances": {"balance": "1.00"}, "credit": "7.50",
            "rates": [{"service": "data", "price": "0.01", "per": "1 MB"}],
        },
    ],
}  # fmt: skip


@pytest.fixture
def brand(fresh_brand: Any) -> Bss:
    made: Bss = fresh_brand(**MONTHLY).start()
    return made


@pytest.fixture
async def context(brand: Bss, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Context]:
    """The BSS's own context, to renew at times of the test's choice."""
    for name, value in brand.environment().items():
        monkeypatch.setenv(name, value)
    async with opened(load_settings(BssSettings, str(brand.config()))) as made:
        yield made


async def at(context: Context, moment: dt.datetime) -> int:
    """Renew all that is due at a moment, wait until the OCS has done its part; how many renewals there were."""
    count = "SELECT count(*) FROM event WHERE type = 'subscription.renewed'"
    before = await context.pool.fetchval(count)
    while await renewals.renew(context, moment):
        pass

    async def quiet() -> bool:
        # The BSS itself delivers as well.
        await deliver(context)
        return not await context.pool.fetchval("SELECT EXISTS (SELECT FROM outbox WHERE done_at IS NULL)")

    await until(quiet)
    return int(await context.pool.fetchval(count) - before)


async def buckets(brand: Bss, product: str, source: str) -> list[dict[str, Any]]:
    async with brand.ocs() as ocs:
        found = (await ocs.get(f"/ocs/v1/accounts/{product}/balances")).json()["buckets"]
    return sorted((b for b in found if b["source"] == source and b["unit"] == "octets"), key=lambda b: b["validUntil"])


async def anchor(context: Context, product: str) -> dt.date:
    found: dt.date = await context.pool.fetchval("SELECT anchor FROM product WHERE id = $1::uuid", product)
    return found


def ledger_differences(brand: Bss) -> str:
    environment = {"DATABASE_URL": brand.world.dsn("ocs", "ocs-password"), "OCS_TENANT_KEY": OCS_KEY}
    command = [sys.executable, "-m", "mvnobox.charging", "check", "--config", str(brand.world.folder / "ocs.yaml")]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True).stdout


async def test_a_decade_of_months(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        made = await line(client, "monthly")
    day = await anchor(context, made["id"])
    limits = []
    for month in range(1, 121):
        now = begin(day, "P1M", TORONTO, month)
        assert await at(context, now - dt.timedelta(seconds=1)) == 0
        assert await at(context, now) == 1
        assert await at(context, now) == 0
        rolled = [
            b for b in await buckets(brand, made["id"], "rollover:plan:monthly") if b["validUntil"] > now.isoformat()
        ]
        limits.append(sum(b["available"] for b in rolled))
    found = await buckets(brand, made["id"], "plan:monthly")
    ends = [dt.datetime.fromisoformat(b["validUntil"]) for b in found]
    assert ends == [begin(day, "P1M", TORONTO, n) for n in range(1, 122)]
    # A whole unused gigabyte rolls over, with what lives on of the month before at most a gigabyte and a half.
    assert limits[0] == 10**9 and set(limits[1:]) <= {1_500_000_000, 10**9} and max(limits) == 1_500_000_000
    assert all(b["available"] == 0 for b in found[:-1]) and found[-1]["available"] == 10**9
    assert ledger_differences(brand) == "0 differences\n"


async def test_replicas_and_repetitions_renew_once(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        lines = [await line(client, "monthly") for _ in range(3)]
        now = max([begin(await anchor(context, one["id"]), "P1M", TORONTO, 1) for one in lines])
        await asyncio.gather(*(renewals.renew(context, now) for _ in range(8)))
        await at(context, now)
        # The call to the OCS again, as after a kill between its doing and our noting.
        await context.pool.execute("UPDATE outbox SET done_at = NULL WHERE path LIKE '%/grants'")
        await at(context, now)
        for one in lines:
            assert len(await buckets(brand, one["id"], "plan:monthly")) == 2
            [event] = [e for e in (await client.get("/subscriber-event/v1/event?limit=1000")).json()
                       if e["event"]["productId"] == one["id"]]  # fmt: skip
            assert event["eventType"] == "subscription.renewed"
            assert (event["event"]["period"], event["event"]["price"], event["event"]["periodsMissed"]) == (
                1,
                "10.00",
                0,
            )


async def test_months_that_nobody_was_there_for_are_not_made_up_for(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        made = await line(client, "monthly")
    day = await anchor(context, made["id"])
    assert await at(context, begin(day, "P1M", TORONTO, 4)) == 1
    found = await buckets(brand, made["id"], "plan:monthly")
    assert len(found) == 2 and dt.datetime.fromisoformat(found[-1]["validUntil"]) == begin(day, "P1M", TORONTO, 5)
    # What the first month left is no part of the fifth.
    assert await buckets(brand, made["id"], "rollover:plan:monthly") == []
    # A clock that goes back renews nothing, and nothing twice when it is right again.
    await context.pool.execute("UPDATE product SET renews_at = now() WHERE id = $1::uuid", made["id"])
    assert await at(context, begin(day, "P1M", TORONTO, 2)) == 0
    assert await at(context, begin(day, "P1M", TORONTO, 4)) == 0
    assert await at(context, begin(day, "P1M", TORONTO, 5)) == 1


async def test_a_prepaid_plan_waits_until_it_is_paid(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        made = await line(client, "prepaid")
        product = f"{PRODUCTS}/{made['id']}"
        assert (await client.get(product)).json()["productTerm"][0]["autoRenew"] is False
        now = begin(await anchor(context, made["id"]), "P30D", TORONTO, 1)
        assert await at(context, now) == 0 and await at(context, now + dt.timedelta(days=9)) == 0
        [term] = (await client.get(product)).json()["productTerm"]
        assert term["name"] == "lapsed" and "validFor" not in term
        events = (await client.get("/subscriber-event/v1/event?limit=1000")).json()
        assert [e["eventType"] for e in events if e["event"]["productId"] == made["id"]] == ["subscription.lapsed"]
        patched = await client.patch(product, json={"autoRenew": True})
        assert patched.status_code == 200 and patched.json()["productTerm"][0]["autoRenew"] is True
        assert await at(context, now + dt.timedelta(days=9)) == 1
        for body, status in (({"autoRenew": "yes"}, 400), ({}, 400)):
            assert (await client.patch(product, json=body)).status_code == status


async def test_a_suspended_line_renews_when_it_is_back(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        made = await line(client, "monthly")
        now = begin(await anchor(context, made["id"]), "P1M", TORONTO, 1)
        await client.patch(f"{PRODUCTS}/{made['id']}", json={"status": "suspended"})
        await at(context, now)
        assert len(await buckets(brand, made["id"], "plan:monthly")) == 1
        await client.patch(f"{PRODUCTS}/{made['id']}", json={"status": "active"})
        await at(context, now)
        assert len(await buckets(brand, made["id"], "plan:monthly")) == 2


async def test_a_line_of_before_begins_to_count_with_its_start(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        made = await line(client, "monthly")
    await context.pool.execute(
        "UPDATE product SET anchor = NULL, renews_at = NULL, started_at = '2026-01-31T12:00Z' WHERE id = $1::uuid",
        made["id"],
    )
    now = dt.datetime(2026, 3, 30, tzinfo=dt.UTC)
    assert await at(context, now) == 1
    row = await context.pool.fetchrow("SELECT anchor, period, renews_at FROM product WHERE id = $1::uuid", made["id"])
    assert tuple(row) == (dt.date(2026, 1, 31), 1, dt.datetime(2026, 3, 31, tzinfo=TORONTO))


def _weekly(brand: Bss, period: str) -> None:
    """The brand's file with the billed plan's period changed."""
    data = yaml.safe_load(brand.file.read_text())
    data["plans"][0]["period"] = period
    brand.file.write_text(yaml.safe_dump(data))


async def test_a_plan_whose_period_gets_another_length_goes_on(
    fresh_brand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    brand: Bss = fresh_brand(**MONTHLY)
    _weekly(brand, "P1W")
    brand.start()
    async with brand.client() as client:
        made = await line(client, "monthly")
    for name, value in brand.environment().items():
        monkeypatch.setenv(name, value)
    settings = load_settings(BssSettings, str(brand.config()))
    async with opened(settings) as context:
        day = await anchor(context, made["id"])
        for week in range(1, 12):
            assert await at(context, begin(day, "P1W", TORONTO, week)) == 1
    end = begin(day, "P1W", TORONTO, 12)
    ends = [end]
    for period, count in (("P1M", 3), ("P1W", 13)):
        # What was paid for is kept; from its end on the new length counts, and no renewal is taken for an old one.
        _weekly(brand, period)
        async with opened(settings) as context:
            start = ends[-1].astimezone(TORONTO).date()
            for n in range(count):
                now = begin(start, period, TORONTO, n)
                assert await at(context, now - dt.timedelta(seconds=1)) == 0
                assert await at(context, now) == 1 and await at(context, now) == 0
                ends.append(begin(start, period, TORONTO, n + 1))
            found = await buckets(brand, made["id"], "plan:monthly")
            assert [dt.datetime.fromisoformat(b["validUntil"]) for b in found][-len(ends) :] == ends
            # What the last week left lives on in the first months, as sold.
            rolled = await buckets(brand, made["id"], "rollover:plan:monthly")
            if period == "P1M":
                lived = begin(start, period, TORONTO, 2)
                assert [b["granted"] for b in rolled if dt.datetime.fromisoformat(b["validUntil"]) == lived] == [
                    500_000_000
                ]
    assert ledger_differences(brand) == "0 differences\n"


async def test_a_line_of_before_whose_period_had_become_longer_renews(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        made = await line(client, "monthly")
    end = dt.datetime(2027, 3, 31, tzinfo=TORONTO)
    await context.pool.execute(
        "UPDATE product SET period_length = NULL, period = 43, anchor = '2026-05-30', renews_at = $2 WHERE id = $1::uuid",
        made["id"],
        end,
    )
    assert await at(context, end) == 1
    row = await context.pool.fetchrow(
        "SELECT anchor, period, renews_at, period_length FROM product WHERE id = $1::uuid", made["id"]
    )
    assert tuple(row) == (dt.date(2027, 3, 31), 0, dt.datetime(2027, 4, 30, tzinfo=TORONTO), "P1M")


async def test_thresholds_reach_the_brand_once(brand: Bss, context: Context, database: Any) -> None:
    async with brand.client() as client, brand.ocs() as ocs:
        made = await line(client, "monthly")
        body: dict[str, Any] = {
            "subscriberIdentifier": f"msisdn-{made['msisdn']}",
            "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
            "invocationTimeStamp": "2026-01-01T00:00:00Z",
            "invocationSequenceNumber": 0,
        }
        path = "/nchf-convergedcharging/v3/chargingdata"
        where = (await ocs.post(path, json=body)).headers["location"]

        async def use(sequence: int, octets: int) -> None:
            usage = [{"ratingGroup": 1, "usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": octets}]}]
            asked = {**body, "invocationSequenceNumber": sequence, "multipleUnitUsage": usage}
            assert (await ocs.post(f"{where}/update", json=asked)).status_code == 200

        async def told() -> list[int]:
            found = (await client.get("/subscriber-event/v1/event?limit=1000")).json()
            return [e["event"]["percent"] for e in found if e["eventType"] == "balance.threshold"]

        async def tell(count: int) -> Any:
            return len(await told()) == count

        await use(1, 499_999_999)
        await use(2, 2)
        await until(lambda: tell(1))
        # Not again for what comes after it, and of two that one use passes the higher one.
        await use(3, 1)
        await use(4, 499_999_998)
        await until(lambda: tell(2))
        assert await told() == [50, 100]
        # What was taken and not acknowledged comes again, and is kept once.
        await take(context)
        assert await told() == [50, 100] and (await ocs.get("/ocs/v1/events")).json() == []
        other = await ocs.post("/ocs/v1/events/taken", json={"ids": [made["id"]]})
        assert other.status_code == 204


async def test_a_plans_credit_comes_once_with_the_line(brand: Bss, context: Context) -> None:
    async with brand.client() as client:
        made = await line(client, "trusted")

    async def money() -> tuple[list[dict[str, Any]], dict[str, int]]:
        async with brand.ocs() as ocs:
            found = (await ocs.get(f"/ocs/v1/accounts/{made['id']}/balances")).json()
        return [b for b in found["buckets"] if b["credit"]], found["totals"]["minor"]

    [credit], total = await money()
    assert (credit["source"], credit["granted"], credit["validUntil"]) == ("credit:trusted", 750, None)
    assert (total["available"], total["balance"], total["credit"]) == (850, 100, 750)
    now = begin(await anchor(context, made["id"]), "P1M", TORONTO, 1)
    assert await at(context, now) == 1
    lines, total = await money()
    assert [one["id"] for one in lines] == [credit["id"]] and total["credit"] == 750
    assert ledger_differences(brand).strip() == "0 differences"
