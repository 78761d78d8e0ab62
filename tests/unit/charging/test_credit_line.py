"""Credit lines: a balance may fall below zero, down to its line and no further."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_rating import RATING, Line, money, usage  # type: ignore[import-not-found]


async def found(line: Line) -> tuple[int, int, int]:
    """(balance, available, held) of money."""
    total = (await line.totals())["minor"]
    return total["balance"], total["available"], total["held"]


async def grant(line: Line, *buckets: dict[str, Any]) -> int:
    body = {"requestId": str(uuid.uuid4()), "buckets": [{"source": "test", **one} for one in buckets]}
    return (await line.client.post(f"/ocs/v1/accounts/{line.account}/grants", json=body)).status_code


@pytest.fixture
async def line(tenant: Any) -> Line:
    (await tenant.one.put("/ocs/v1/rating", json=RATING)).raise_for_status()
    return Line(tenant.one, tenant.imsi)


async def test_a_balance_falls_to_its_line_and_no_further(line: Line, tenant: Any) -> None:
    await line.open("pay", [{"unit": "minor", "amount": 10, "priority": 1, "credit": True}, money(6)])
    assert await found(line) == (6, 16, 0)
    # 600 octets are 12: 6 of the account's own first, then 6 on credit.
    first = await line.ask("create", usage(1, True, amount=600))
    assert (first["grantedUnit"], await found(line)) == ({"totalVolume": 600}, (6, 4, 12))
    last = await line.ask("update", usage(1, True, used=600, amount=600))
    assert (last["grantedUnit"], await found(line)) == ({"totalVolume": 200}, (-6, 0, 4))
    assert last["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}
    refused = await line.ask("update", usage(1, True, used=200, amount=600))
    assert (refused["resultCode"], await found(line)) == ("QUOTA_LIMIT_REACHED", (-10, 0, 0))
    # What slips through is an overrun, not a debt.
    await line.ask("update", usage(1, False, used=100))
    assert await found(line) == (-10, 0, 0)
    # A top-up raises the balance by what it is; as long as something is owed, the line is shorter by that.
    assert await grant(line, money(25)) == 200
    assert await found(line) == (15, 25, 0)
    again = await line.ask("update", usage(1, True, amount=1000))
    assert (again["grantedUnit"], await found(line)) == ({"totalVolume": 1000}, (15, 5, 20))
    await line.ask("release", usage(1, False, used=1000))
    assert await found(line) == (-5, 5, 0)
    debits = await tenant.database.fetch(
        """SELECT e.debit, e.amount FROM entry e JOIN account USING (aid)
           WHERE brand = $1 AND e.credit = 'available' AND e.debit <> 'held' ORDER BY id""",
        tenant.brand,
    )
    assert [tuple(row) for row in debits] == [("credit", 10), ("source", 6), ("source", 25)]


async def test_a_line_is_of_money_and_used_last(line: Line) -> None:
    await line.open("pay", [{"unit": "minor", "amount": 10, "priority": 0, "credit": True}])
    for wrong in (
        {"unit": "octets", "amount": 10, "credit": True},
        {"unit": "minor", "amount": 10, "credit": True, "throttle": "dl=1;ul=1"},
        {"unit": "minor", "amount": 10, "credit": "yes"},
    ):
        assert await grant(line, wrong) == 400
    buckets = (await line.client.get(f"/ocs/v1/accounts/{line.account}/balances")).json()["buckets"]
    assert [(one["credit"], one["priority"]) for one in buckets] == [(True, 1000)]
