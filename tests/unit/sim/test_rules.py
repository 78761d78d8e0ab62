"""What Open5GS's SMF sends, and what a user plane makes of it and of rubbish."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvnobox.core.sim import n4_messages
from mvnobox.core.sim.elements import Also
from mvnobox.core.sim.n4_messages import UeAddresses
from mvnobox.core.sim.upf_rules import ACCESS, CORE, Session, apply
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import BUFF, FORW, NOCP, Ie, IeType, Message, PfcpError

SUBSCRIPTION = n4_messages.Subscription(
    "208930000000001", "33639980001", "internet", 1, "000001", 10_000_000, 50_000_000
)


def establishment() -> Message:
    return n4_messages.establishment(SUBSCRIPTION, UeAddresses("10.45.0.2"), 0x1122334455667788, "10.0.0.9")


def session() -> tuple[Session, list[int]]:
    made = Session(1, 2, "10.0.0.9")
    teids = itertools.count(100)
    pdrs, _ = apply(made, establishment().ies, lambda: next(teids))
    return made, [pdr.teid or 0 for pdr in pdrs]


def test_an_establishment_is_open5gs_octet_by_octet() -> None:
    """Made by hand from the elements that Open5GS 2.7.7 builds (its src/smf/npcf-handler.c and lib/pfcp/build.c)."""
    instance = "0016000908696e7465726e6574"
    n3, n6 = "00a000010b", "00a0000111"
    remove = "005f000106"
    pdrs = [
        "00380002" "0001" "001d0004" "0000ffff" "00020020" "0014000101" + instance + "005d0005060a2d0002" + n6
        + "006c000400000001" "0051000400000001" "006d000400000001",
        "00380002" "0002" "001d0004" "0000ffff" "00020022" "0014000100" "001500020f05" + instance + "007c000101" + n3
        + remove + "006c000400000002" "006d000400000001",
        "00380002" "0003" "001d0004" "000000ff" "0002000a" "0014000103" "0015000107" + remove + "006c000400000001",
        "00380002" "0004" "001d0004" "000000ff" "0002004f" "0014000100" "001500020f05" + instance
        + "0017002e" "0100002a" + b"permit out 58 from ff02::2/128 to assigned".hex() + n3
        + remove + "006c000400000003",
    ]  # fmt: skip
    fars = [
        "006c000400000001002c00020c000058000101",
        "006c000400000002002c0002020000040017002a000101" + instance + n6,
        "006c000400000003002c0002020000040013002a0001030054000a0100000000010a000009",
    ]
    urr = "0051000400000001003e00010200250003020000001f0009010000000006400000"
    qer = "006d0004000000010019000100001a000a0000002710000000c350007c000101"
    expected = [
        (IeType.NODE_ID, "000a000009"),
        (IeType.F_SEID, "0211223344556677880a000009"),
        *((IeType.CREATE_PDR, one) for one in pdrs),
        *((IeType.CREATE_FAR, one) for one in fars),
        (IeType.CREATE_URR, urr),
        (IeType.CREATE_QER, qer),
        (Also.CREATE_BAR, "0058000101"),
        (IeType.PDN_TYPE, "01"),
        (IeType.USER_ID, "050802 98 03 00 00 00 00 f1".replace(" ", "") + "063336990800f1"),
        (IeType.APN_DNN, "08696e7465726e6574"),
        (IeType.S_NSSAI, "01000001"),
    ]
    assert [(ie.type, ie.data.hex()) for ie in establishment().ies] == expected


def test_the_uplink_and_the_router_solicitations_share_a_tunnel() -> None:
    made, teids = session()
    downlink, uplink, from_cp, to_cp = teids
    assert uplink == to_cp != from_cp and downlink == 0 and 0 not in (uplink, from_cp)
    assert made.pdrs[1].address == bytes([10, 45, 0, 2]) and made.pdrs[1].source == CORE
    assert made.pdrs[2].source == ACCESS and not made.pdrs[2].filtered and made.pdrs[4].filtered
    assert made.pdrs[1].urrs == [1] and made.pdrs[2].urrs == []
    assert made.fars[1].action == BUFF | NOCP and made.fars[1].peer is None and made.fars[2].action == FORW
    assert made.urrs[1].threshold == (100 * 2**20, None, None)


def test_activation_points_the_downlink_and_deactivation_keeps_the_tunnel() -> None:
    made, _ = session()
    apply(made, n4_messages.activate(1, "internet", "10.9.8.7", 0xABCD).ies, lambda: 0)
    assert made.fars[1].action == FORW and made.fars[1].peer == ("10.9.8.7", 0xABCD)
    apply(made, n4_messages.deactivate(1).ies, lambda: 0)
    assert made.fars[1].action == BUFF | NOCP and made.fars[1].peer == ("10.9.8.7", 0xABCD)


def test_gates_of_a_qer() -> None:
    made, _ = session()
    update = codec.group(IeType.UPDATE_QER, [codec.u32(IeType.QER_ID, 1), codec.u8(IeType.GATE_STATUS, 0b0100)])
    apply(made, [update], lambda: 0)
    assert (made.qers[1].uplink_open, made.qers[1].downlink_open) == (False, True)


def test_rates_of_a_qer() -> None:
    made, _ = session()
    # kbit/s in the element, octets a second here.
    assert (made.qers[1].uplink.rate, made.qers[1].downlink.rate) == (10_000_000 // 8, 50_000_000 // 8)


def test_a_removed_urr_is_handed_out_for_its_last_report() -> None:
    made, _ = session()
    made.urrs[1].count(77, uplink=False)
    _, removed = apply(made, [codec.group(IeType.REMOVE_URR, [codec.u32(IeType.URR_ID, 1)])], lambda: 0)
    assert [urr.total for urr in removed] == [77] and not made.urrs


def test_a_request_is_taken_as_a_whole_or_not_at_all() -> None:
    made, _ = session()
    good = n4_messages.activate(1, "internet", "10.9.8.7", 5).ies
    threshold = codec.group(IeType.UPDATE_URR, [codec.u32(IeType.URR_ID, 1), codec.volume_threshold(5)])
    broken = Ie(IeType.UPDATE_PDR, codec.group(0, [codec.u16(IeType.PDR_ID, 99)]).data)
    with pytest.raises(PfcpError):
        apply(made, [threshold, *good, broken], lambda: 0)
    assert made.fars[1].action == BUFF | NOCP and made.urrs[1].threshold[0] == 100 * 2**20


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_spoiled_requests_raise_one_kind_of_error(data: st.DataObject) -> None:
    octets = bytearray(establishment().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(16, len(octets) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 40))
    body = bytes(octets[16 : len(octets) - cut])
    try:
        apply(Session(1, 2, ""), codec.decode_ies(body), lambda: 1)
    except PfcpError:
        return
