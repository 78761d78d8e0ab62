"""Consumers' clocks that step. The database's own cannot be stepped here; docs/ledger.md says what it is used for."""

from __future__ import annotations

import uuid
from typing import Any

NCHF = "/nchf-convergedcharging/v3/chargingdata"


async def test_reports_count_whatever_time_they_say(tenant: Any) -> None:
    await tenant.put(2500)
    where, _ = await tenant.create(invocationTimeStamp="2026-06-01T12:00:00Z")
    seconds = "SELECT extract(epoch FROM expires_at - now()) FROM session WHERE ref = $1"
    for sequence, stamp in enumerate(
        ("2026-06-01T13:00:00Z", "1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "2026-06-01T12:00:01Z"), 1
    ):
        body = tenant.body(sequence, 100, invocationTimeStamp=stamp)
        for client in (tenant.one, tenant.two):
            answer = await client.post(f"{where}/update", json=body)
            assert answer.json()["multipleUnitInformation"][0]["validityTime"] == 3600
        # How long it lives, and in which order reports count, is no matter of the consumer's clock.
        left = await tenant.database.fetchval(seconds, uuid.UUID(where.rsplit("/", 1)[1]))
        assert 3590 < left <= 3660
        assert await tenant.totals() == (2500, 100 * sequence, 1000, 1500 - 100 * sequence)
    late = tenant.body(0, 40, invocationTimeStamp="2200-01-01T00:00:00Z")
    assert (await tenant.one.post(f"{where}/update", json=late)).status_code == 400, "0 was the create's"


async def test_a_step_between_two_sessions_under_one_charging_id(tenant: Any) -> None:
    """Forward: the new session is one, the old one's quota comes back. Back: it is taken for a copy of the first create,
    and gets its answer; use that is reported under it counts, and once."""
    await tenant.put(2500)
    first, _ = await tenant.create(3, invocationTimeStamp="2026-06-01T12:00:00Z")
    await tenant.update(first, 1, 100)
    second, _ = await tenant.create(3, invocationTimeStamp="2026-06-01T12:00:01Z")
    assert second != first and await tenant.totals() == (2500, 100, 1000, 1400)
    await tenant.update(second, 1, 50)
    back, granted = await tenant.create(3, invocationTimeStamp="2026-06-01T11:00:00Z")
    assert (back, granted["grantedUnit"]) == (second, {"totalVolume": 1000})
    assert await tenant.totals() == (2500, 150, 1000, 1350)
    # Its numbers begin again: 1 is a repeat, what comes after it goes on.
    await tenant.update(back, 1, 70)
    await tenant.update(back, 2, 70)
    await tenant.release(back, 3, 0)
    assert await tenant.totals() == (2500, 220, 0, 2280)
