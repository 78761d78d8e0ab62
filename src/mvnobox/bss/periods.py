"""When a line's periods begin: at local midnight, counted from its anchor, so that nothing drifts.

The anchor is the day of activation; for periods of days and weeks the day after, so that a line activated just before
midnight has its days. Months keep the anchor's day where they have it and end on their last day where not: a line of
31 January renews on 28 February and on 31 March. A midnight that a clock change skips is the first moment of that day;
of one that comes twice the first counts.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from zoneinfo import ZoneInfo

_PERIOD = re.compile(r"^P(\d+)([DWM])$")


def _parsed(period: str) -> tuple[int, str]:
    match = _PERIOD.match(period)
    assert match is not None  # the BrandSpec has checked it
    return int(match[1]), match[2]


def anchor_of(moment: dt.datetime, period: str, zone: ZoneInfo) -> dt.date:
    """The anchor of a line that is activated at a moment."""
    day = moment.astimezone(zone).date()
    return day if _parsed(period)[1] == "M" else day + dt.timedelta(days=1)


def anchor_after(end: dt.datetime, period: str, zone: ZoneInfo) -> dt.date:
    """The anchor of a line whose first period of this length comes after what it had until `end`."""
    day = end.astimezone(zone).date()
    begins = dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC) == end
    return day if begins else anchor_of(end, period, zone)


def _day(anchor: dt.date, period: str, index: int) -> dt.date:
    count, unit = _parsed(period)
    if unit != "M":
        return anchor + dt.timedelta(days=index * count * (7 if unit == "W" else 1))
    months = anchor.year * 12 + anchor.month - 1 + index * count
    year, month = divmod(months, 12)
    return dt.date(year, month + 1, min(anchor.day, calendar.monthrange(year, month + 1)[1]))


def ahead(start: dt.datetime, period: str) -> dt.datetime:
    """A period later, at the same time of the day: the end of what was bought once."""
    return dt.datetime.combine(_day(start.date(), period, 1), start.timetz())


def begin(anchor: dt.date, period: str, zone: ZoneInfo, index: int) -> dt.datetime:
    """When period `index` begins, in UTC; the first, which begins with the activation, has index 0."""
    return dt.datetime.combine(_day(anchor, period, index), dt.time(), zone).astimezone(dt.UTC)


def index_at(anchor: dt.date, period: str, zone: ZoneInfo, moment: dt.datetime) -> int:
    """The period that a moment is in; what comes before the second one is the first."""
    count, unit = _parsed(period)
    days = (moment.astimezone(zone).date() - anchor).days
    # From below: the months are shorter than that, the clocks move by less than a day.
    index = max(0, days // (31 * count) if unit == "M" else days // (count * (7 if unit == "W" else 1)) - 1)
    while begin(anchor, period, zone, index + 1) <= moment:
        index += 1
    return index
