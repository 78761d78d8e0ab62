"""Hours that change within a quota: its validity ends with them, and Tariff-Time-Change is not used."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from diameter_peer import Peer, avp, mscc, octets

MINOR = 1_000_000
BEFORE, AFTER, INDETERMINATE = 0, 1, 2


@pytest.fixture
def peer(brand_peer: tuple[str, Peer]) -> Peer:
    return brand_peer[1]


@pytest.fixture
def imsi(ocs: Any, brand_peer: tuple[str, Peer]) -> str:
    """A line with 1000 minor units, of a brand whose hours change in 25 minutes: 2 for 100 octets now, 50 then."""
    now = dt.datetime.now(dt.UTC)
    minute = now.hour * 60 + now.minute
    start, until = (minute - 5) % 1440, (minute + 25) % 1440 or 1440
    rating = {
        "country": "FR",
        "timezone": "UTC",
        "currency": "EUR",
        "home": ["208"],
        "bands": [{"id": "now", "days": [1, 2, 3, 4, 5, 6, 7], "start": start, "until": until}],
        "tariffs": {
            "pay": [
                {"service": "data", "bands": ["now"], "price": 2 * MINOR, "per": 100},
                {"service": "data", "price": 50 * MINOR, "per": 100},
            ]
        },
    }
    brand, made = brand_peer[0], f"{uuid.uuid4().int % 10**15:015}"
    ocs.call("PUT", "rating", rating, brand=brand)
    ocs.call("PUT", made, {"subscriberIds": [f"imsi-{made}"], "currency": "EUR", "tariff": "pay"}, brand=brand)
    bucket = {"unit": "minor", "amount": 1000, "source": "plan:test"}
    ocs.call("POST", f"{made}/grants", {"requestId": str(uuid.uuid4()), "buckets": [bucket]}, brand=brand)
    return made


async def test_validity_ends_with_the_hours_and_no_tariff_change_is_announced(imsi: str, peer: Peer) -> None:
    answer = await peer.request(272, peer.ccr(1, 0, f"{peer.host};1;{uuid.uuid4()}", mscc(want=[]), imsi=imsi))
    validity = answer.number(456, 448)
    assert validity is not None and 20 * 60 < validity <= 25 * 60
    assert answer.all(456, 431, 451) == []


async def test_a_report_that_is_split_all_the_same_is_charged_once_on_the_grants_terms(imsi: str, peer: Peer) -> None:
    name = f"{peer.host};2;{uuid.uuid4()}"
    await peer.request(272, peer.ccr(1, 0, name, mscc(want=[]), imsi=imsi))
    parts = b"".join(
        avp(446, [avp(452, usage), octets(amount)])
        for usage, amount in ((BEFORE, 300), (AFTER, 100), (INDETERMINATE, 50))
    )
    update = peer.ccr(2, 1, name, mscc(want=[], more=parts), imsi=imsi)
    for _ in range(2):
        assert (await peer.request(272, update)).number(456, 268) == 2001
    await peer.request(272, peer.ccr(3, 2, name, imsi=imsi))
    check = avp(437, [avp(413, [avp(445, [avp(447, 991, wide=True), avp(429, 0xFFFFFFFE)]), avp(425, 978)])])
    # 450 octets at 2 for 100 are 9: 991 are left, and not 992.
    left = peer.ccr(4, 0, f"{peer.host};3;{uuid.uuid4()}", check, imsi=imsi, more=avp(436, 2))
    assert (await peer.request(272, left)).number(422) == 0
    more = peer.ccr(
        4, 0, f"{peer.host};4;{uuid.uuid4()}", check.replace(b"\x03\xdf", b"\x03\xe0"), imsi=imsi, more=avp(436, 2)
    )
    assert (await peer.request(272, more)).number(422) == 1
