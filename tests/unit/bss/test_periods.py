"""Periods: local midnights, counted from the anchor; no gap, no overlap, no drift, whatever clocks and months do."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.bss.periods import anchor_of, begin, index_at

PARIS, HAVANA = ZoneInfo("Europe/Paris"), ZoneInfo("America/Havana")
ZONES = st.sampled_from(["Europe/Paris", "America/Toronto", "America/Havana", "Africa/Cairo", "Asia/Tehran", "UTC"])
PERIODS = st.sampled_from(["P1D", "P7D", "P30D", "P1W", "P2W", "P1M", "P3M", "P12M"])
MOMENTS = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2040, 1, 1), timezones=st.just(dt.UTC))


def day(moment: dt.datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).isoformat()


def test_months_keep_their_day_where_they_have_it() -> None:
    anchor = dt.date(2026, 1, 31)
    days = [day(begin(anchor, "P1M", PARIS, n), PARIS)[:10] for n in range(1, 5)]
    assert days == ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]
    assert day(begin(dt.date(2027, 11, 30), "P3M", PARIS, 1), PARIS)[:10] == "2028-02-29"


def test_midnight_is_the_customers_over_a_change_of_the_clocks() -> None:
    anchor = dt.date(2026, 3, 15)
    assert [begin(anchor, "P1M", PARIS, n).hour for n in range(0, 2)] == [23, 22]
    # In Havana midnight is skipped in spring (the day begins at one) and comes twice in autumn (the first counts).
    spring, autumn = dt.date(2026, 3, 8), dt.date(2026, 11, 1)
    assert day(begin(spring, "P1D", HAVANA, 0), HAVANA) == "2026-03-08T01:00:00-04:00"
    assert day(begin(autumn, "P1D", HAVANA, 0), HAVANA) == "2026-11-01T00:00:00-04:00"


def test_a_line_of_just_before_midnight_has_its_days() -> None:
    late = dt.datetime(2026, 11, 24, 23, 59, 50, tzinfo=PARIS)
    assert begin(anchor_of(late, "P1D", PARIS), "P1D", PARIS, 1) - late > dt.timedelta(days=1)
    assert begin(anchor_of(late, "P1M", PARIS), "P1M", PARIS, 1) == dt.datetime(2026, 12, 24, tzinfo=PARIS)


@given(MOMENTS, PERIODS, ZONES, st.integers(0, 400))
def test_periods_follow_each_other(moment: dt.datetime, period: str, name: str, index: int) -> None:
    zone = ZoneInfo(name)
    anchor = anchor_of(moment, period, zone)
    first, second = begin(anchor, period, zone, index), begin(anchor, period, zone, index + 1)
    assert first < second
    # Their first and their last moment are theirs, and local days begin them.
    assert index_at(anchor, period, zone, first) == index
    assert index_at(anchor, period, zone, second - dt.timedelta(microseconds=1)) == index
    assert first.astimezone(zone).date() != (first - dt.timedelta(seconds=1)).astimezone(zone).date()


@pytest.mark.parametrize("zone", [PARIS, HAVANA])
def test_before_the_second_period_it_is_the_first(zone: ZoneInfo) -> None:
    assert index_at(dt.date(2026, 5, 1), "P30D", zone, dt.datetime(2025, 1, 1, tzinfo=dt.UTC)) == 0
