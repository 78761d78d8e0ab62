"""IPv6 prefixes, router advertisements and the PFCP that goes with them, octet by octet."""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
import struct
from pathlib import Path

import pytest

from mvnobox.core.sim import causes, icmpv6, n4_messages
from mvnobox.core.sim.causes import Refused
from mvnobox.core.sim.n4_messages import Subscription, UeAddresses
from mvnobox.core.sim.pool import Exhausted, PrefixPool
from mvnobox.core.sim.settings import Dnn
from mvnobox.core.sim.smf import _both
from mvnobox.core.sim.smf_router import Link, Router
from mvnobox.core.sim.tun import user_plane_rules
from mvnobox.core.sim.upf_rules import ACCESS, CORE, CP, Session, apply
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType, PfcpError

RECORDED = json.loads((Path(__file__).parents[1] / "n4/data/open5gs_2_7_7.json").read_text())
IDENTIFIER = bytes(7) + b"\x02"


def recorded() -> codec.Message:
    """The establishment of an IPv4v6 session that Open5GS's SMF 2.7.7 sent."""
    return codec.decode(bytes.fromhex(RECORDED["ipv4v6"][0]["hex"]))


def test_an_establishment_of_both_families_is_open5gs_octet_by_octet() -> None:
    theirs = recorded()
    imsi = codec.user_imsi(theirs.first(IeType.USER_ID))
    assert imsi is not None
    subscription = Subscription(imsi, "88602000000" + "02", "internet", 1, "010000", 10**9, 10**9)
    ue = UeAddresses("10.45.0.9", "2001:db8:cafe:1::2")
    own, teid = RECORDED["smf"], 8
    ours = n4_messages.establishment(subscription, ue, 0xC6, own, teid=teid)
    alike = (IeType.CREATE_PDR, IeType.CREATE_FAR, IeType.CREATE_URR, IeType.CREATE_QER, IeType.PDN_TYPE, IeType.F_SEID)
    for kind in alike:
        assert ours.all(kind) == theirs.all(kind), kind.name


def test_what_a_user_plane_makes_of_it() -> None:
    made = Session(1, 2, "10.0.0.9")
    teids = itertools.count(100)
    apply(made, recorded().ies, lambda: next(teids))
    down, up, from_cp, to_cp = (made.pdrs[number] for number in (1, 2, 3, 4))
    assert down.addresses == (bytes([10, 45, 0, 9]), bytes.fromhex("20010db8cafe0001")) and down.source == CORE
    assert down.identifier == IDENTIFIER and up.addresses == ()
    assert (to_cp.source, to_cp.solicitations, made.fars[to_cp.far].destination) == (ACCESS, True, CP)
    assert made.fars[to_cp.far].peer == (RECORDED["smf"], 8)
    assert (from_cp.source, from_cp.far) == (CP, down.far) and from_cp.teid not in (up.teid, None)
    cut = Ie(IeType.UE_IP_ADDRESS, bytes.fromhex("070a2d000920010db8cafe0001"))
    pdi = codec.group(IeType.PDI, [codec.u8(IeType.SOURCE_INTERFACE, 1), cut])
    with pytest.raises(PfcpError, match="cut off"):
        apply(made, [codec.group(IeType.CREATE_PDR, [codec.u16(IeType.PDR_ID, 9), pdi])], lambda: 0)


def test_a_pool_of_prefixes_gives_each_once() -> None:
    pool = PrefixPool(ipaddress.IPv6Network("2001:db8:cafe::/61"), "2001:db8:cafe::1")
    # As Open5GS counts: neither the gateway's /64 nor the last one; interface identifiers from 2.
    taken = [pool.take() for _ in range(6)]
    assert taken == [f"2001:db8:cafe:{n}::{n + 1}" for n in range(1, 7)]
    with pytest.raises(Exhausted):
        pool.take()
    pool.give_back("2001:db8:cafe:4::9")
    with pytest.raises(Exhausted):
        pool.take()
    for number in (4, 2):
        pool.give_back(taken[number - 1])
        pool.give_back(taken[number - 1])
    assert [pool.take(), pool.take()] == [taken[3], taken[1]]


@pytest.mark.parametrize(
    ("asked", "subscribed", "offered", "expected"),
    [
        ("IPv4v6", 3, True, True), ("IPv4v6", 1, True, False), ("IPv4v6", 3, False, False), ("IPv4", 3, True, False),
        ("IPv4", 1, False, False), ("IPv6", 3, True, causes.IPV4V6_ONLY), ("IPv6", 1, True, causes.IPV4_ONLY),
        ("Ethernet", 3, False, causes.IPV4_ONLY), (["IPv4"], 3, True, causes.IPV4V6_ONLY),
        ("IPv4v6", 2, True, causes.IPV6_ONLY),
    ],
)  # fmt: skip
def test_the_type_of_a_session(asked: object, subscribed: int, offered: bool, expected: bool | int) -> None:
    if isinstance(expected, bool):
        assert _both(asked, subscribed, offered=offered) is expected
        return
    with pytest.raises(Refused) as refused:
        _both(asked, subscribed, offered=offered)
    assert refused.value.cause == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [({"gateway6": None}, "go together"), ({"pool6": "fd45::/63"}, "a /62 at least"), ({"mtu": 1279}, "RFC 8200")],
)
def test_settings_that_make_no_ipv6(change: dict[str, object], said: str) -> None:
    whole = {
        "name": "internet",
        "pool": "10.45.0.0/16",
        "gateway": "10.45.0.1",
        "pool6": "fd45::/48",
        "gateway6": "fd45::1",
    }
    Dnn(**whole)
    with pytest.raises(ValueError, match=said):
        Dnn(**{**whole, **change})


def test_a_router_s_words_are_understood_and_rubbish_is_not() -> None:
    asked = icmpv6.solicitation(IDENTIFIER)
    # RFC 4861 sections 4.1 and 6.1.1: to all routers, hop limit 255, a checksum that holds.
    assert icmpv6.is_solicitation(asked) and asked[7] == 255 and asked[24:40] == icmpv6.ALL_ROUTERS
    assert icmpv6.checksum(asked[8:24], asked[24:40], asked[40:]) == 0
    prefix = bytes.fromhex("20010db8cafe0001")
    said = icmpv6.advertisement(prefix, 1400, asked[8:24])
    heard = icmpv6.parse_advertisement(said)
    assert heard == icmpv6.Advertisement(ipaddress.IPv6Network("2001:db8:cafe:1::/64"), 1400)
    assert struct.unpack_from(">H", said, 46)[0] > 0, "a router's lifetime, or there is no default route"
    assert icmpv6.parse_advertisement(asked) is None and not icmpv6.is_solicitation(said)
    rng = random.Random(4861)
    for _ in range(2000):
        spoiled = bytearray(said)
        for _ in range(rng.randint(1, 4)):
            spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        cut = bytes(spoiled[: rng.randint(0, len(spoiled))])
        assert icmpv6.parse_advertisement(cut) is None or cut[40:] == said[40:]
        assert icmpv6.is_solicitation(cut) is False


def test_a_router_answers_only_who_it_knows() -> None:
    sent: list[tuple[bytes, tuple[str, int]]] = []

    class Wire:
        def sendto(self, data: bytes, to: tuple[str, int]) -> None:
            sent.append((data, to))

    router = Router({7: Link(bytes.fromhex("20010db8cafe0001"), 1400, ("10.0.0.3", 0x99))}.get)
    router._transport = Wire()  # type: ignore[assignment]
    asked = icmpv6.solicitation(IDENTIFIER)

    def comes(teid: int, packet: bytes) -> None:
        router.datagram_received(struct.pack(">BBHI", 0x30, 255, len(packet), teid) + packet, ("10.0.0.3", 2152))

    comes(8, asked)
    comes(7, asked[:40] + b"\x80" + asked[41:])
    comes(7, asked[:44])
    router.datagram_received(b"", ("10.0.0.3", 2152))
    assert sent == []
    comes(7, asked)
    [(data, to)] = sent
    assert to == ("10.0.0.3", 2152) and data[:8] == struct.pack(">BBHI", 0x30, 255, len(data) - 8, 0x99)
    heard = icmpv6.parse_advertisement(data[8:])
    assert heard is not None and str(heard.prefix) == "2001:db8:cafe:1::/64" and data[32:48] == asked[8:24]


def test_only_unique_local_addresses_are_translated() -> None:
    rules = user_plane_rules(["10.45.0.0/16", "fd45::/48", "2001:db8::/48"], ["fd78::4/128"], ["10.0.0.0/8", "::/3"])
    ip, ip6 = rules.split("table ip6 mvno_upf {")
    assert "ip6" not in ip.removesuffix("table ip6 mvno_upf\ndelete table ip6 mvno_upf\n") and "10.0.0.0/8" not in ip6
    assert 'ip6 saddr { fd45::/48 } oifname != "ogstun*" masquerade' in ip6
    assert "ip6 saddr { fd45::/48, 2001:db8::/48 } ip6 daddr { fd78::4/128 } accept" in ip6
    assert "masquerade" not in user_plane_rules(["10.45.0.0/16", "2001:db8::/48"], [], []).split("table ip6")[-1]
    assert "ip6" not in user_plane_rules(["10.45.0.0/16"], ["10.1.1.1/32"], ["10.0.0.0/8"])
    pools = ["10.45.0.0/16", "fd45::/48"]
    assert "masquerade" not in user_plane_rules(pools, [], [], routed=pools)
    assert user_plane_rules(pools, [], [], routed=["fd45::/48"]).count("masquerade") == 1
