"""The codec against octets written out by hand, and against itself for any values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.charging.diameter.calls import session_ref
from mvnobox.charging.diameter.credit import Answers, CreditRequest, Info, Service, granted, service_answer
from mvnobox.charging.diameter.currencies import minor_units
from mvnobox.charging.diameter.notify import notify_uri, read_uri
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError
from mvnobox.diameter.codes import Avp, tgpp
from mvnobox.diameter.shapes import Message

# A CCR-U, octet by octet: one service without a Rating-Group, an AVP that needs padding, one of 3GPP.
CCR = bytes.fromhex(
    "010000e0 c0000110 00000004 0000002a 00000007"  # 224 octets, request and proxiable, 272, application 4
    "00000107 4000000d 733b313b32 000000"  # Session-Id "s;1;2"
    "00000108 4000000b 736d66 00"  # Origin-Host "smf"
    "00000128 40000009 72 000000"  # Origin-Realm "r"
    "0000011b 40000009 72 000000"  # Destination-Realm "r"
    "00000102 4000000c 00000004"  # Auth-Application-Id 4
    "000001cd 40000016 33323235314033677070 2e6f7267 0000"  # Service-Context-Id "32251@3gpp.org"
    "000001a0 4000000c 00000002"  # CC-Request-Type update
    "0000019f 4000000c 00000003"  # CC-Request-Number 3
    "000001bb 40000024 000001c2 4000000c 00000001 000001bc 4000000e 3230383933310000"  # Subscription-Id, IMSI
    "000001c8 40000038"  # Multiple-Services-Credit-Control
    "000001b5 40000008"  # Requested-Service-Unit, empty
    "000001be 40000028 0000019c 40000010 0000000000000005 0000019e 40000010 0000000100000000"  # 5 in, 2^32 out
)


def whole(body: bytes) -> bytes:
    return codec.message(0xC0, 272, 4, 42, 7, body)


def test_a_request_by_hand() -> None:
    header = codec.read_header(CCR)
    assert header == (224, 0xC0, 272, 4, 42, 7) and header.is_request and header.length == len(CCR)
    request = CreditRequest()
    request.read(Message(CCR))
    assert (request.session_id, request.type, request.number) == (b"s;1;2", 2, 3)
    assert (request.origin_host, request.origin_realm, request.destination_realm) == ("smf", "r", "r")
    assert request.subscribers == ["imsi-208931"] and request.grouped
    (service,) = request.services
    assert service.rating_group is None and service.wanted == {}
    assert service.used == [{"octets": 2**32 + 5}]


def test_an_answer_by_hand() -> None:
    request = CreditRequest()
    request.session_id, request.type, request.number = b"s;1;2", 2, 3
    info = {"resultCode": "SUCCESS", "grantedUnit": {"totalVolume": 10}, "validityTime": 60, "volumeQuotaThreshold": 2}
    body = Answers("ocs", "r").credit(request, 2001, [service_answer(Service(rating_group=1), info)])
    assert body == bytes.fromhex(
        "00000107 4000000d 733b313b32 000000"
        "0000010c 4000000c 000007d1"
        "00000108 4000000b 6f6373 00"
        "00000128 40000009 72 000000"
        "00000102 4000000c 00000004"
        "000001a0 4000000c 00000002"
        "0000019f 4000000c 00000003"
        "000001c8 40000054"
        "000001af 40000018 000001a5 40000010 000000000000000a"
        "000001c0 4000000c 0000003c"
        "00000365 c0000010 000028af 00000002"
        "000001b0 4000000c 00000001"
        "0000010c 4000000c 000007d1"
    )


def test_an_answer_that_is_remembered_is_that_of_who_asks() -> None:
    """One reply, peers that are told different things of it."""
    final = {"finalUnitAction": "TERMINATE"}
    info = {"resultCode": "SUCCESS", "volumeQuotaThreshold": 2, "finalUnitIndication": final}
    told = {**info, "grantedUnit": {"totalVolume": 10}}
    shared = Info(told)
    for _ in range(2):
        for rating_group in (None, 1, 2):
            for identifiers in ([], [7], [7, 8]):
                service = Service(rating_group, identifiers)
                for final_units in (True, False):
                    assert shared.answer(service, final_units, False) == service_answer(service, told, final_units)
                    rest = {name: value for name, value in told.items() if name != "volumeQuotaThreshold"}
                    assert shared.answer(service, final_units, True) == service_answer(service, rest, final_units)
    assert shared == told


def test_units_of_every_kind() -> None:
    assert granted({"time": 5}) == bytes.fromhex("000001af40000014 000001a4 4000000c 00000005")
    assert granted({"serviceSpecificUnits": 5}) == bytes.fromhex("000001af40000018 000001a1 40000010 0000000000000005")
    # 2036-02-07T06:28:16Z is second 0 of the next era of Diameter's Time (RFC 6733 section 4.3.1).
    changing = granted({"totalVolume": 1, "tariffTimeChange": 2_085_978_496})
    assert changing == bytes.fromhex("000001af40000024 000001c3 4000000c 00000000 000001a5 40000010 0000000000000001")


@pytest.mark.parametrize(
    ("octets", "failed"),
    [
        ("00000107 40000007 00000000", "00000107 40000008"),  # shorter than its own header
        ("00000107 400000ff 00000000", "00000107 40000008"),  # longer than what it is in
        ("00000107 c000000b 00000000", "00000107 c000000c 00000000"),  # too short for its vendor
        ("00000107 c0000008", "00000107 40000008"),  # a vendor that is not there
        ("00000107", ""),  # no AVP
    ],
)
def test_lengths_that_cannot_be(octets: str, failed: str) -> None:
    data = bytes.fromhex(octets)
    with pytest.raises(DiameterError) as refused:
        codec.split(data, 0, len(data))
    assert (refused.value.result, refused.value.failed) == (5014, bytes.fromhex(failed))


def changed(old: str, new: str) -> bytes:
    body = CCR[20:].replace(bytes.fromhex(old), bytes.fromhex(new))
    assert body != CCR[20:]
    return whole(body)


@pytest.mark.parametrize(
    ("data", "result", "failed"),
    [
        (changed("000001a0 4000000c 00000002", ""), 5005, "000001a0 4000000c 00000000"),
        (changed("000001a0 4000000c 00000002", "000001a0 4000000c 00000009"), 5004, "000001a0 4000000c 00000009"),
        (changed("000001a0 4000000c 00000002", "000001a0 4000000a 00000000"), 5014, "000001a0 4000000a 00000000"),
        (whole(CCR[20:] + bytes.fromhex("0000019f 4000000c 00000004")), 5009, "0000019f 4000000c 00000004"),
        (whole(CCR[20:] + bytes.fromhex("0000ffff 4000000c 00000004")), 5001, "0000ffff 4000000c 00000004"),
        (whole(CCR[20:] + bytes.fromhex("00000037 4100000c 00000004")), 3009, "00000037 4100000c 00000004"),
        (changed("736d66 00", "ff6d66 00"), 5004, "00000108 4000000b ff6d6600"),
        (changed("000001b5 40000008", "0000ffff 40000008"), 5001, "0000ffff 40000008"),
    ],
)
def test_requests_that_are_refused(data: bytes, result: int, failed: str) -> None:
    request = CreditRequest()
    with pytest.raises(DiameterError) as refused:
        request.read(Message(data))
    assert (refused.value.result, refused.value.failed) == (result, bytes.fromhex(failed))
    assert request.session_id == b"s;1;2"  # the refusal can say which session it is of


def test_what_is_not_mandatory_is_read_over() -> None:
    data = whole(CCR[20:] + bytes.fromhex("0000ffff 0000000c 00000004"))
    CreditRequest().read(Message(data))


keys = st.integers(0, 2**32 - 1) | st.builds(
    lambda v, c: v << 32 | c, st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1)
)


@given(st.lists(st.tuples(keys, st.binary(max_size=40)), max_size=8), st.integers(0, 2**32 - 1))
def test_messages_come_back(avps: list[tuple[int, bytes]], number: int) -> None:
    data = codec.message(0x80, 280, 0, number, number ^ 1, b"".join(codec.octets(k, v) for k, v in avps))
    header = codec.read_header(data)
    assert (header.length, header.hop_by_hop, header.end_to_end) == (len(data), number, number ^ 1)
    assert len(data) % 4 == 0
    found = codec.split(data, 20, len(data))
    assert [(one[0], data[one[3] : one[4]]) for one in found] == avps
    assert b"".join(codec.raw(data, one) for one in found) == data[20:]


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1))
def test_integers_come_back(small: int, large: int, unsigned: int) -> None:
    data = (
        codec.i32(429, small)
        + codec.i64(447, large)
        + codec.u64(421, unsigned)
        + codec.u32(tgpp(869), small & 2**32 - 1)
    )
    a, b, c, d = codec.split(data, 0, len(data))
    assert (codec.signed32(data, a), codec.signed64(data, b), codec.unsigned64(data, c)) == (small, large, unsigned)
    assert codec.unsigned32(data, d) == small & 2**32 - 1


@given(st.binary(max_size=200))
def test_any_octets_are_avps_or_refused(data: bytes) -> None:
    try:
        codec.split(data, 0, len(data))
    except DiameterError as error:
        assert error.result == 5014
    try:
        CreditRequest().read(Message(bytes(codec.HEADER_LENGTH) + data))
    except DiameterError as error:
        assert error.result in (3009, 5001, 5004, 5005, 5009, 5014)


@given(st.binary(min_size=1, max_size=60), st.text("abcABC.-", min_size=1), st.text())
def test_addresses_of_notifications_come_back(session: bytes, peer: str, realm: str) -> None:
    host = peer[::-1]
    if not realm or any(0xD800 <= ord(c) <= 0xDFFF for c in realm):
        realm = "r"
    found = read_uri(notify_uri(peer, host, realm, session))
    assert found.session_id == session and found.peer == peer and found.host == host and found.realm == realm


def test_sessions_have_their_own_references_and_neighbours_stay_close() -> None:
    first, second = session_ref(b"smf;1700000000;1;gy"), session_ref(b"smf;1700000000;2;gy")
    assert first != second and first.version == second.version == 8
    assert first.int >> 96 == second.int >> 96
    assert first == session_ref(b"smf;1700000000;1;gy") != session_ref(b"pgw;1700000000;1;gy")
    assert session_ref(b"anything").version == 8


@pytest.mark.parametrize(
    ("money", "minor"),
    [((150, -2, 978, "EUR"), 150), ((15, 0, None, "EUR"), 1500), ((1, -3, 978, "EUR"), None), ((1, 0, 978, "CHF"), None),
     ((7, 0, 392, "JPY"), 7), ((70, -1, 392, "JPY"), 7)],
)  # fmt: skip
def test_minor_units(money: tuple[int, int, int | None, str], minor: int | None) -> None:
    assert minor_units(*money) == minor


def test_the_keys_of_3gpp_hold_their_vendor() -> None:
    assert codec.u32(Avp.VOLUME_QUOTA_THRESHOLD, 1)[8:12] == (10415).to_bytes(4)
