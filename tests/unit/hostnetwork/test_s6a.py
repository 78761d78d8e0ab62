"""What the HSS says: read, or refused as a whole."""

from __future__ import annotations

import random

import pytest
from hostnetwork_lab import Lab
from hostnetwork_peers import SIM, Hss, avp, diameter, subscription

from mvnobox.core.hostnetwork import s6a
from mvnobox.core.hostnetwork.s6a import Apn, Content, Rate, Subscription
from mvnobox.diameter.codec import DiameterError

T = 10415


def message(body: bytes) -> bytes:
    return diameter(0x40, 316, 16777251, 1, 1, body)


def test_a_subscription() -> None:
    found = s6a.subscription(Content.of(message(subscription())))
    assert found == Subscription(
        msisdn=bytes.fromhex("330700000010"),
        ambr=Rate(1_000_000, 2_000_000),
        apns=(Apn("internet", 0, 9, 8, False, True, Rate(1_000_000, 2_000_000)),),
        barred=False,
    )
    assert found.apn("Internet") == found.apns[0] if found.apns else False
    assert found.apn("ims") is None and Subscription(apns=(Apn("*"),)).apn("ims") == Apn("*")


@pytest.mark.parametrize(
    ("parts", "barred"),
    [
        ([], None),
        ([avp(1424, 0, vendor=T)], False),
        ([avp(1424, 1, vendor=T)], True),
        ([avp(1424, 0, vendor=T), avp(1425, 1, vendor=T)], True),
        ([avp(1425, 2, vendor=T)], False),
    ],
)
def test_barring(parts: list[bytes], barred: bool | None) -> None:
    found = s6a.subscription(Content.of(message(avp(1400, parts, vendor=T))))
    assert found.barred is barred and found.apns is None
    # What an update does not name stays as it was.
    before = Subscription(b"1", Rate(1, 2), (Apn("internet"),), True, "0800")
    assert before.updated(found).barred is (True if barred is None else barred)
    assert before.updated(found).apns == before.apns


def test_results_of_both_kinds() -> None:
    assert s6a.result(Content.of(message(avp(268, 2001)))) == 2001
    assert s6a.result(Content.of(message(avp(297, [avp(266, T), avp(298, 5420)])))) == 5420
    assert s6a.result(Content.of(message(b""))) == 5012
    with pytest.raises(s6a.Refused, match=r"ULR refused by the HSS: UNKNOWN_EPS_SUBSCRIPTION \(5420\)"):
        s6a.expect_success(Content.of(message(avp(297, [avp(298, 5420)]))), "ULR")


@pytest.mark.parametrize(
    "body",
    [
        avp(1400, [avp(13, "xyz", vendor=T)], vendor=T),
        avp(
            1400,
            [avp(1429, [avp(1430, [avp(1431, [avp(1028, 256, vendor=T)], vendor=T)], vendor=T)], vendor=T)],
            vendor=T,
        ),
        avp(1400, [avp(1424, b"\0", vendor=T)], vendor=T),
        avp(1400, [avp(1429, [avp(1430, [avp(493, b"\xff")], vendor=T)], vendor=T)], vendor=T),
    ],
)
def test_values_that_are_refused(body: bytes) -> None:
    with pytest.raises(DiameterError):
        s6a.subscription(Content.of(message(body)))


@pytest.mark.parametrize("vector", [[], [avp(1447, bytes(16), vendor=T)], [avp(1447, bytes(15), vendor=T)] * 4])
def test_a_vector_that_is_not_whole(vector: list[bytes]) -> None:
    with pytest.raises(DiameterError, match="no E-UTRAN vector"):
        s6a.vector(Content.of(message(avp(1413, [avp(1414, vector, vendor=T)], vendor=T))))


def test_any_octets_are_read_or_refused() -> None:
    chance = random.Random(29272)
    seeds = [message(avp(268, 2001) + subscription()), message(Hss()._vector(b""))]
    read = 0
    for _ in range(10_000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(20, len(data))] = chance.choice((0, 1, 0x40, 0x80, 0xFF, chance.randrange(256)))
        for reader in (s6a.subscription, s6a.vector, s6a.result):
            try:
                reader(Content.of(bytes(data)))
                read += 1
            except DiameterError:
                continue
    assert read > 2_000


async def test_an_apn_that_cannot_be_written_down(lab: Lab) -> None:
    lab.hss.subscription = subscription(apn="a..b")
    answer = await lab.ask("register", sim={**SIM, "dnn": "a..b"})
    assert "'a..b' is no APN" in answer["cause"] and lab.hss.asked[-1][0] == 321
