"""GTPv2-C on the wire: octets written down from TS 29.274, and octets that are nothing."""

from __future__ import annotations

import random

import pytest

from mvnobox.core.hostnetwork import gtpc, ies
from mvnobox.core.hostnetwork.gtpc import Ie, Kind, Malformed, Message, OtherVersion, Type


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def test_a_header_with_and_without_teid() -> None:
    assert gtpc.encode(Kind.ECHO_REQUEST, None, 0x010203, [gtpc.ie(Type.RECOVERY, b"\7")]) == hexed(
        "40 01 0009 010203 00 03 0001 00 07"
    )
    assert gtpc.encode(Kind.DELETE_SESSION_REQUEST, 0xA1B2C3D4, 5, [gtpc.ie(Type.EBI, b"\5")]) == hexed(
        "48 24 000d a1b2c3d4 000005 00 49 0001 00 05"
    )


def test_a_message_read_back() -> None:
    bearer = [gtpc.ie(Type.EBI, b"\5"), gtpc.ie(Type.CAUSE, b"\x10\0")]
    sent = gtpc.encode(33, 7, 9, [gtpc.ie(Type.CAUSE, b"\x10\0"), gtpc.group(Type.BEARER_CONTEXT, bearer)])
    # What is piggybacked behind a message is left alone (clause 5.5.1).
    for data in (sent, sent + gtpc.encode(Kind.CREATE_BEARER_REQUEST, 7, 10)):
        read = gtpc.decode(data)
        assert read == Message(33, 7, 9, (Ie(2, 0, b"\x10\0"), Ie(93, 0, hexed("49000100050200020010 00"))))
    assert gtpc.find(gtpc.split(read.need(Type.BEARER_CONTEXT)), Type.EBI) == b"\5"
    with pytest.raises(Malformed, match="element 87, instance 1, is missing") as missing:
        read.need(Type.F_TEID, 1)
    assert missing.value.cause == gtpc.Cause.MANDATORY_IE_MISSING


@pytest.mark.parametrize(
    ("made", "octets"),
    [
        (ies.tbcd("001010123456789"), "00010121436587f9"),
        (ies.tbcd("33700000"), "33070000"),
        (ies.plmn("208", "93"), "02f839"),
        (ies.plmn("310", "410"), "130014"),
        (ies.apn("internet"), "08696e7465726e6574"),
        (ies.apn("a.bc"), "0161026263"),
        (ies.paa(), "0100000000"),
        (ies.paa("10.45.128.2"), "010a2d8002"),
        (ies.Fteid(ies.Interface.S8_SGW_GTP_C, 0x01020304, "198.51.100.7").encode(), "8601020304c6336407"),
        (ies.Fteid(ies.Interface.S8_SGW_GTP_U, 1, "192.0.2.1").encode(), "8400000001c0000201"),
        (ies.ambr(1_000_000, 50_000_000), "000003e80000c350"),
        # ARP: may not pre-empt (0x40), priority 8 (0x20), may be pre-empted (0); QCI 9; no rates.
        (ies.bearer_qos(9, 8, may_preempt=False, preemptable=True), "6009" + "00" * 20),
        (ies.bearer_qos(5, 1, may_preempt=True, preemptable=False), "0505" + "00" * 20),
        (ies.uli(bytes.fromhex("02f839"), 1, 0x0ABCDEF), "18" + "02f8390001" + "02f83900abcdef"),
        (ies.pco_request(), "80000d00001000"),
    ],
)
def test_values_of_elements(made: bytes, octets: str) -> None:
    assert made == hexed(octets)


def test_values_read() -> None:
    assert ies.digits(hexed("00010121436587f9")) == "001010123456789"
    # An F-TEID may have an IPv6 address behind the IPv4 one.
    assert ies.fteid(hexed("c5 00000007 0a000001" + "fe80" + "00" * 14)) == ies.Fteid(5, 7, "10.0.0.1")
    assert ies.address(hexed("010a2d8002")) == "10.45.128.2"
    assert ies.cause(hexed("4000")) == 64 and ies.ebi(b"\xf5") == 5
    assert ies.pco(hexed("80 000d04 09090909 8021 02 ffff 001002 0564 000d04 09090908")) == (
        ("9.9.9.9", "9.9.9.8"),
        1380,
    )
    assert ies.pco(hexed("80 000d04 0909")) == ((), None) and ies.pco(b"") == ((), None)


@pytest.mark.parametrize(
    ("read", "octets"),
    [
        (ies.fteid, "85000000"),
        (ies.fteid, "4500000007" + "00" * 16),
        (ies.address, "0100000000"),
        (ies.address, "0200"),
        (ies.address, ""),
        (ies.cause, "10"),
        (ies.ebi, ""),
        (ies.digits, "0a"),
        (ies.digits, ""),
    ],
)
def test_values_that_are_refused(read: object, octets: str) -> None:
    with pytest.raises(Malformed):
        read(hexed(octets))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, "é"])
def test_names_that_are_no_apn(name: str) -> None:
    with pytest.raises(ValueError, match=r"no APN|ordinal not in range"):
        ies.apn(name)


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        ("", Malformed),
        ("48240008", Malformed),
        ("4824ffff 00000001 000001 00", Malformed),
        ("48240004 00000001 000001 00", Malformed),
        ("40010008 000001 00 030001", Malformed),
        ("40010009 000001 00 03000200 07", Malformed),
        ("32010004 00000000", OtherVersion),
        ("60010004 000001 00", OtherVersion),
    ],
)
def test_octets_that_are_no_message(octets: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        gtpc.decode(hexed(octets))


def test_any_octets_are_read_or_refused() -> None:
    chance = random.Random(29274)
    seed = gtpc.encode(
        Kind.CREATE_SESSION_RESPONSE, 1, 2,
        [
            gtpc.ie(Type.CAUSE, b"\x10\0"), gtpc.ie(Type.F_TEID, ies.Fteid(7, 8, "10.0.0.1").encode(), 1),
            gtpc.ie(Type.PAA, ies.paa("10.0.0.2")), gtpc.group(Type.BEARER_CONTEXT, [gtpc.ie(Type.EBI, b"\5")]),
        ],
    )  # fmt: skip
    readers = (ies.fteid, ies.address, ies.cause, ies.ebi, ies.digits, ies.pco, gtpc.split)
    read = 0
    for _ in range(20_000):
        data = bytearray(seed if chance.random() < 0.8 else chance.randbytes(chance.randrange(80)))
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.choice((0, 1, 4, 8, 0x7F, 0xFF, chance.randrange(256)))
        data = data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data
        try:
            message = gtpc.decode(bytes(data))
        except (Malformed, OtherVersion):
            continue
        read += 1
        for one in message.ies:
            for reader in readers:
                try:
                    reader(one.value)
                except Malformed:
                    continue
    assert read > 2_000
