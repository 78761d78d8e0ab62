"""Service-Information: where a subscriber is and whom it calls."""

from __future__ import annotations

import pytest

from mvnobox.charging.diameter.circumstances import circumstances
from mvnobox.charging.rating.scene import Circumstances
from mvnobox.diameter import codec
from mvnobox.diameter.codes import Avp
from mvnobox.diameter.shapes import Message


def read(*members: bytes) -> Circumstances:
    message = Message(bytes(codec.HEADER_LENGTH) + codec.group(Avp.SERVICE_INFORMATION, list(members)))
    return circumstances(message, message.avps()[0])


def ps(*members: bytes) -> bytes:
    return codec.group(Avp.PS_INFORMATION, list(members))


# TAI and ECGI of PLMN 262-01, and an SAI of 310-260.
TAI_ECGI = bytes.fromhex("82 62f210 0001 62f210 00000101")
SAI = bytes.fromhex("01 130062 0001 0001")


@pytest.mark.parametrize(
    ("member", "network"),
    [
        (ps(codec.utf8(Avp.SGSN_MCC_MNC, "20801")), "20801"),
        (ps(codec.octets(Avp.USER_LOCATION_INFO, TAI_ECGI)), "26201"),
        (ps(codec.octets(Avp.USER_LOCATION_INFO, SAI)), "310260"),
        # The serving node's own word counts more.
        (ps(codec.octets(Avp.USER_LOCATION_INFO, SAI), codec.utf8(Avp.SGSN_MCC_MNC, "20801")), "20801"),
        (ps(codec.utf8(Avp.SGSN_MCC_MNC, "moon")), None),
        (ps(codec.octets(Avp.USER_LOCATION_INFO, b"\x82\x62")), None),
        (ps(codec.octets(Avp.USER_LOCATION_INFO, b"\x82\xff\xff\xff\x00")), None),
        (ps(codec.octets(Avp.USER_LOCATION_INFO, b"")), None),
        (b"", None),
    ],
)
def test_the_visited_network(member: bytes, network: str | None) -> None:
    assert read(member) == Circumstances(network, None)


def test_the_called_number() -> None:
    call = codec.group(Avp.IMS_INFORMATION, [codec.utf8(Avp.CALLED_PARTY_ADDRESS, "tel:+33144000000")])
    assert read(call) == Circumstances(None, "tel:+33144000000")
    address = codec.group(Avp.RECIPIENT_ADDRESS, [codec.utf8(Avp.ADDRESS_DATA, "33144000000")])
    message = codec.group(Avp.SMS_INFORMATION, [codec.group(Avp.RECIPIENT_INFO, [address])])
    assert read(message, ps(codec.utf8(Avp.SGSN_MCC_MNC, "310260"))) == Circumstances("310260", "33144000000")


def test_what_is_malformed_says_nothing() -> None:
    data = codec.group(Avp.SERVICE_INFORMATION, [ps(codec.utf8(Avp.SGSN_MCC_MNC, "20801"))])
    # A member that claims more octets than there are.
    broken = bytearray(codec.HEADER_LENGTH) + data
    broken[codec.HEADER_LENGTH + 19] += 40
    message = Message(bytes(broken))
    assert circumstances(message, message.avps()[0]) == Circumstances(None, None)
