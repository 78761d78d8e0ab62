"""Zones, destinations and hours by pure functions, and explanations against what the ledger does with the same."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.charging.rating.document import Rating
from mvnobox.charging.rating.explain import Balance, explain
from mvnobox.charging.rating.scene import Circumstances, Scenery, told_of

PARIS = ZoneInfo("Europe/Paris")
MINOR = 1_000_000
RATING = Rating.model_validate(
    {
        "country": "FR",
        "timezone": "Europe/Paris",
        "currency": "EUR",
        "home": ["208", "999"],
        "emergency": ["112", "15", "116117", "3919"],
        "zones": [{"id": "europe", "networks": ["262", "222"]}, {"id": "dear", "networks": ["26299"]}],
        "bands": [
            {"id": "night", "days": [1, 2, 3, 4, 5, 6, 7], "start": 1320, "until": 360},
            {"id": "weekend", "days": [6, 7], "start": 480, "until": 1200},
        ],
        "destinations": [
            {"id": "homes", "numbers": ["+33144000000"]},
            {"id": "england", "prefixes": ["+44"]},
            {"id": "jersey", "prefixes": ["+441534"]},
        ],
        "tariffs": {
            "pay": [
                {"service": "voice", "bands": ["night"], "free": True, "zones": ["home"]},
                {"service": "voice", "price": 6 * MINOR, "per": 60, "step": 60},
                {"service": "data", "zones": ["europe"], "included": False},
            ]
        },
    }
)
SCENERY = Scenery(RATING)


@pytest.mark.parametrize(
    ("network", "zone"),
    [
        ("20801", "home"),
        ("99970", "home"),
        ("26201", "europe"),
        ("26299", "dear"),
        ("262991", "dear"),
        ("310260", "elsewhere"),
        ("20", "elsewhere"),
    ],
)
def test_the_longest_network_counts(network: str, zone: str) -> None:
    assert SCENERY.zone(network) == zone


@pytest.mark.parametrize(
    ("dialled", "destination"),
    [
        ("112", "emergency"),
        ("tel:112", "emergency"),
        ("sip:15@ims.example.org;user=phone", "emergency"),
        ("3919", "emergency"),
        ("urn:service:sos", "emergency"),
        ("URN:Service:SOS.Ambulance", "emergency"),
        (" urn:service:sos.fire;x=y", "emergency"),
        ("urn:service:sosa", "other"),
        ("urn:service:test.sos", "other"),
        ("urn:service:counseling", "other"),
        ("0144000000", "homes"),
        ("+33 1 44 00 00 00", "homes"),
        ("0033144000000", "homes"),
        ("33144000000", "homes"),
        ("tel:+44-20-7946-0000;phone-context=x", "england"),
        ("00441534000000", "jersey"),
        ("0612345678", "other"),
        ("", "other"),
        ("sip:nobody@nowhere", "other"),
        ("1" * 300, "other"),
    ],
)
def test_numbers_as_they_are_dialled(dialled: str, destination: str) -> None:
    assert SCENERY.destination(dialled) == destination


@pytest.mark.parametrize(
    ("at", "band", "seconds"),
    [
        (dt.datetime(2026, 11, 24, 12, 0, tzinfo=PARIS), "other", 10 * 3600),
        (dt.datetime(2026, 11, 24, 23, 30, tzinfo=PARIS), "night", 6 * 3600 + 1800),
        (dt.datetime(2026, 11, 28, 7, 59, 30, tzinfo=PARIS), "other", 30),
        (dt.datetime(2026, 11, 28, 8, 0, tzinfo=PARIS), "weekend", 12 * 3600),
        # The clocks go forward within the night: it is an hour shorter; and back: an hour longer.
        (dt.datetime(2027, 3, 27, 22, 0, tzinfo=PARIS), "night", 7 * 3600),
        (dt.datetime(2027, 10, 30, 22, 0, tzinfo=PARIS), "night", 9 * 3600),
        # The second of the two hours between two and three.
        (dt.datetime(2027, 10, 31, 2, 30, fold=1, tzinfo=PARIS), "night", 3 * 3600 + 1800),
    ],
)
def test_hours_end_when_the_clocks_say_so(at: dt.datetime, band: str, seconds: int) -> None:
    assert SCENERY.band(at) == (band, seconds)


@given(st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2028, 1, 1), timezones=st.just(dt.UTC)))
def test_the_limit_is_where_the_hours_change(at: dt.datetime) -> None:
    band, limit = SCENERY.band(at)
    assert limit is not None
    assert SCENERY.band(at + dt.timedelta(seconds=limit - 1))[0] == band
    assert SCENERY.band(at + dt.timedelta(seconds=limit + 1))[0] != band


def test_a_call_for_help_needs_no_rating() -> None:
    assert told_of(None, Circumstances("26201", "urn:service:sos.police"), ["seconds"]) == "*||emergency|other|"
    assert told_of(None, Circumstances("26201", "112"), ["seconds"]) is None
    assert told_of(SCENERY, Circumstances(None, "urn:service:sos"), ["seconds"]).split("|")[:3] == [
        "*",
        "",
        "emergency",
    ]  # type: ignore[union-attr]


def test_what_the_ledger_has_to_look_at() -> None:
    noon = dt.datetime(2026, 11, 24, 12, 0, tzinfo=PARIS)

    def told(seen: Circumstances, service: str) -> str:
        return SCENERY.told(SCENERY.scene(seen, noon), {service}).split("|")[0]  # type: ignore[arg-type]

    # Data at home is plain, abroad it is not, and unknown it depends on the session.
    assert told(Circumstances("20801"), "data") == ""
    assert told(Circumstances("26201"), "data") == "*"
    assert told(Circumstances(), "data") == "?"
    # A rule for the night makes the day's calls special, too: quotas last into it.
    assert told(Circumstances("20801"), "voice") == "*"
    assert told(Circumstances("310260", "112"), "data") == "*"
    assert told(Circumstances("310260"), "sms") == ""


def test_an_explanation_says_who_pays_and_why() -> None:
    noon = dt.datetime(2026, 11, 24, 12, 0, tzinfo=PARIS)
    balances = [
        Balance("credit", "minor", 100, 20),
        Balance("bonus", "minor", 5, 10),
        Balance("plan", "seconds", 30),
        Balance("over", "seconds", 500, 1, noon - dt.timedelta(seconds=1)),
        Balance("data", "octets", 500),
    ]
    found = explain(RATING, "pay", "voice", 100, Circumstances("20801", "0612345678"), noon, balances)
    assert [(one.source, one.units, one.money) for one in found.payments] == [
        ("plan", 30, 0),
        ("bonus", 0, 5),
        ("credit", 70, 7),
    ]
    assert (found.cost, found.unpaid) == (12, 0)
    assert any("20801" in reason for reason in found.reasons)
    # What the balance cannot pay for is not had.
    poor = explain(RATING, "pay", "voice", 100, Circumstances(None, None), noon, [Balance("credit", "minor", 7)])
    assert (poor.cost, poor.unpaid) == (6, 40)
    night = dt.datetime(2026, 11, 24, 23, 0, tzinfo=PARIS)
    free = explain(RATING, "pay", "voice", 100, Circumstances(None, "0612345678"), night, [])
    assert (free.cost, free.unpaid, free.rule.free) == (0, 0, True)
    with pytest.raises(KeyError):
        explain(RATING, "none", "voice", 100, Circumstances(), noon, [])
