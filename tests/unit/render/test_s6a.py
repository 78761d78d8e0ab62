"""S6a's peers: what each asks of the HSS, which doors that opens to the host network, and input that is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from mvnobox.errors import BadInput
from mvnobox.render import CoreSlice, DiameterPeer, Epc, Images, Outside, PlatformPlan, platform_releases
from mvnobox.render.s6a import doors
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
BRAND = load_brand(ROOT / "brands/silverline.yaml")
REALM = "epc.mnc093.mcc208.3gppnetwork.org"
IMAGES = Images("kit/services:1", "kit/coresim:1", "kit/postgresql:1")
PLAIN = DiameterPeer("mme1.host.example", "host.example", "198.51.100.7", 3870)
SECURED = DiameterPeer("mme2.host.example", "host.example", "198.51.100.8", tls=True)
STREAMS = DiameterPeer("mme3.host.example", "host.example", "198.51.100.9", transport="SCTP")
# These dial the HSS.
DIALS_SECURED = DiameterPeer("dra1.host.example", "host.example", tls=True)
DIALS_PLAIN = DiameterPeer("dra2.host.example", "host.example")


def epc(*peers: DiameterPeer, **more: Any) -> Epc:
    secret = "hss-tls" if any(peer.tls for peer in peers) else None
    return Epc(REALM, (BRAND.name,), peers, tls_secret=secret, host_networks=("198.51.100.0/24",), **more)


def hss(given: Epc, images: Images = IMAGES) -> dict[str, Any]:
    plan = PlatformPlan("dev", images, core="open5gs", slices=(CoreSlice.of(BRAND),), epc=given)
    functions = (one for release in platform_releases(plan) for one in release.values.get("functions", []))
    return next(one for one in functions if one["name"] == "hss")


def lines(given: Epc) -> list[str]:
    return str(hss(given)["files"]["hss.conf"]).splitlines()


@pytest.mark.parametrize(
    ("peers", "tests", "opened", "reached"),
    [
        # Whom a later setting may name is still unknown.
        ((), False, {"TCP": ["diameter"]}, {}),
        ((PLAIN,), False, {"TCP": ["diameter"]}, {"TCP": [3870]}),
        ((SECURED,), False, {"TCP": ["diameters"]}, {"TCP": [5868]}),
        ((SECURED,), True, {"TCP": ["diameter", "diameters"]}, {"TCP": [5868]}),
        ((STREAMS,), False, {"SCTP": ["diameter-sctp"]}, {"SCTP": [3868]}),
        ((DIALS_SECURED,), False, {"TCP": ["diameters"]}, {}),
        (
            (PLAIN, SECURED, STREAMS, DIALS_SECURED, DIALS_PLAIN),
            False,
            {"TCP": ["diameter", "diameters"], "SCTP": ["diameter-sctp"]},
            {"TCP": [3870, 5868], "SCTP": [3868]},
        ),
    ],
)
def test_only_what_a_peer_needs_is_open(
    peers: tuple[DiameterPeer, ...], tests: bool, opened: dict[str, Any], reached: dict[str, Any]
) -> None:
    given = epc(*peers, test_peers=tests)
    assert (given.values["diameterFrom"], given.values["diameterTo"]) == (opened, reached)
    dialled = {protocol: [one["name"] for one in doors(peers, test_peers=tests) if one["protocol"] == protocol]
               for protocol in opened}  # fmt: skip
    assert dialled == opened
    # The cluster's own MME and the test peers speak plain TCP, whatever the host network does.
    listening = {one["name"] for one in hss(given)["ports"]}
    assert listening == {"diameter", "metrics", *(name for names in opened.values() for name in names)}


def test_without_tls_and_sctp_nothing_of_them_is_there() -> None:
    written, function = lines(epc(PLAIN, DIALS_PLAIN)), hss(epc(PLAIN, DIALS_PLAIN))
    assert "No_SCTP;" in written and "SecPort = 0;" in written and "TLS_" not in "".join(written)
    assert "tlsSecret" not in function
    assert written[-1].endswith('Port = 3870; Realm = "host.example"; No_TLS; };')
    assert "ALLOW_IPSEC dra2.host.example" in function["files"]["hss.acl"].splitlines()


def test_a_peer_of_tls_is_never_spoken_to_without() -> None:
    given = epc(PLAIN, SECURED, DIALS_SECURED, DIALS_PLAIN)
    written, function = lines(given), hss(given)
    assert function["tlsSecret"] == "hss-tls" and "SecPort = 5868;" in written and "No_SCTP;" in written
    assert 'TLS_Cred = "/etc/mvno-tls/tls.crt", "/etc/mvno-tls/tls.key";' in written
    connects = {
        found[1]: found[2] for line in written if (found := re.match(r'ConnectPeer = "([^"]+)" \{(.*)\};$', line))
    }
    assert "No_TLS" in connects[PLAIN.host] and "No_TLS" not in connects[SECURED.host]
    assert "Port = 5868;" in connects[SECURED.host]
    entries = function["files"]["hss.acl"].splitlines()
    assert "dra1.host.example" in entries and "ALLOW_IPSEC dra2.host.example" in entries


def test_each_peer_is_dialled_by_its_own_transport() -> None:
    """freeDiameter tries SCTP first wherever it has it."""
    written = lines(epc(PLAIN, STREAMS))
    assert "No_SCTP;" not in written
    assert written[-2].endswith("No_SCTP; No_TLS; };") and PLAIN.host in written[-2]
    assert written[-1].endswith("No_TCP; No_TLS; };") and STREAMS.host in written[-1]


def test_from_outside_only_the_host_networks_doors_are_dialled() -> None:
    outside = Outside("LoadBalancer", "203.0.113.19")
    block = hss(epc(SECURED, STREAMS, outside=outside))["outside"]
    # The Service keeps its name, and a load balancer its address, whichever ports there are.
    assert block["name"] == hss(epc(PLAIN, outside=outside))["outside"]["name"] == "diameter"
    assert [(one["name"], one["port"], one["protocol"]) for one in block["ports"]] == [
        ("diameters", 5868, "TCP"),
        ("diameter-sctp", 3868, "SCTP"),
    ]


def test_what_is_set_is_read_again() -> None:
    given = epc(PLAIN, SECURED, STREAMS, DIALS_SECURED, DIALS_PLAIN)
    assert Epc.of_setting(given.setting) == given
    assert given.setting["peers"][-1] == {"host": "dra2.host.example", "realm": "host.example"}  # type: ignore[index]


def test_no_sctp_where_tcp_stands_in_for_it() -> None:
    with pytest.raises(BadInput, match=r"mme3\.host\.example speaks SCTP, and the nodes' kernel has none"):
        hss(epc(STREAMS), dataclasses.replace(IMAGES, sctp="localhost/mvno/sctp:1"))


def peer(**more: Any) -> DiameterPeer:
    return DiameterPeer("mme.host.example", "host.example", **more)


@pytest.mark.parametrize(
    ("wrong", "said", "remedy"),
    [
        (lambda: peer(transport="UDP"), "the transport of the Diameter peer mme.host.example is 'UDP'", "TCP, SCTP"),
        (lambda: peer(tls="yes"), "tls of the Diameter peer mme.host.example is 'yes'", "true or false"),
        (lambda: peer(port=True), "the port of the Diameter peer", "1 to 65535"),
        (lambda: peer(tls=True, transport="SCTP"), "DTLS, which freeDiameter has not", '"transport": "TCP"'),
        (lambda: Epc(REALM, peers=(SECURED,)), "the HSS has no certificate", f"tls.crt for hss.{REALM}"),
        (lambda: Epc(REALM, peers=(PLAIN,), tls_secret="hss-tls"), "no Diameter peer speaks TLS", '"tls": true'),
        (lambda: Epc(REALM, peers=(SECURED,), tls_secret="A b"), "tlsSecret of 4G is 'A b'", "a-z, 0-9 and -"),
        (lambda: Epc(REALM, peers=(SECURED,), tls_secret=7), "tlsSecret of 4G is 7", "a-z, 0-9 and -"),
    ],
)
def test_refused(wrong: Any, said: str, remedy: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)) as refused:
        wrong()
    assert remedy in str(refused.value.remedy)
