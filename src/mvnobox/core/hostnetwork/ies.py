"""Values of GTPv2-C's information elements (TS 29.274 clause 8). Readers raise gtpc.Malformed."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from mvnobox.core.hostnetwork.gtpc import Cause, Malformed

RAT_EUTRAN = 6
PDN_IPV4 = 1
# Selection mode 0: the APN is in the subscription (clause 8.58).
SUBSCRIBED = 0


class Interface:
    """Interface types of F-TEIDs (clause 8.22)."""

    S8_SGW_GTP_U, S8_PGW_GTP_U, S8_SGW_GTP_C, S8_PGW_GTP_C = 4, 5, 6, 7


@dataclass(frozen=True)
class Fteid:
    """A fully qualified TEID on IPv4."""

    interface: int
    teid: int
    address: str

    def encode(self) -> bytes:
        return struct.pack(">BI", 0x80 | self.interface, self.teid) + ipaddress.IPv4Address(self.address).packed


def fteid(value: bytes) -> Fteid:
    """Read an F-TEID that has an IPv4 address."""
    if len(value) < 9 or not value[0] & 0x80:
        raise Malformed("an F-TEID without an IPv4 address", Cause.MANDATORY_IE_INCORRECT)
    return Fteid(value[0] & 0x3F, int.from_bytes(value[1:5], "big"), str(ipaddress.IPv4Address(value[5:9])))


def tbcd(digits: str) -> bytes:
    """IMSI, MSISDN, MEI: digits in swapped halves of octets, filled with F."""
    padded = digits + "f" * (len(digits) % 2)
    return bytes(int(padded[i + 1] + padded[i], 16) for i in range(0, len(padded), 2))


def digits(value: bytes) -> str:
    """The digits of a TBCD string."""
    text = "".join(f"{octet & 0xF:x}{octet >> 4:x}" for octet in value).rstrip("f")
    if not text.isdecimal():
        raise Malformed("digits that are none", Cause.MANDATORY_IE_INCORRECT)
    return text


def plmn(mcc: str, mnc: str) -> bytes:
    """A PLMN's three octets (TS 24.008 clause 10.5.1.13; Visited-PLMN-Id of TS 29.272 is the same)."""
    third = "f" if len(mnc) == 2 else mnc[2]
    return bytes(int(pair, 16) for pair in (mcc[1] + mcc[0], third + mcc[2], mnc[1] + mnc[0]))


def apn(name: str) -> bytes:
    """An APN as labels (TS 23.003 clause 9.1). Raises ValueError."""
    labels = name.encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"{name!r} is no APN")
    return b"".join(bytes([len(label)]) + label for label in labels)


def paa(address: str = "0.0.0.0") -> bytes:
    """A PDN Address Allocation, IPv4; 0.0.0.0 asks for one."""
    return bytes([PDN_IPV4]) + ipaddress.IPv4Address(address).packed


def address(value: bytes) -> str:
    """The IPv4 address of a PAA."""
    if len(value) != 5 or value[0] & 7 != PDN_IPV4 or value[1:] == bytes(4):
        raise Malformed("a PAA without an IPv4 address", Cause.MANDATORY_IE_INCORRECT)
    return str(ipaddress.IPv4Address(value[1:]))


def ambr(uplink: int, downlink: int) -> bytes:
    """An AMBR of bit/s, on the wire in kbit/s."""
    return struct.pack(">II", min(uplink // 1000, 0xFFFFFFFF), min(downlink // 1000, 0xFFFFFFFF))


def bearer_qos(qci: int, priority: int, *, may_preempt: bool, preemptable: bool) -> bytes:
    """A non-GBR bearer's QoS (clause 8.15): the flags are set where it may not."""
    arp = (not may_preempt) << 6 | (priority & 0xF) << 2 | (not preemptable)
    return bytes([arp, qci]) + bytes(20)


def uli(network: bytes, tac: int, cell: int) -> bytes:
    """User location: TAI and ECGI (clause 8.21)."""
    return b"\x18" + network + tac.to_bytes(2, "big") + network + (cell & 0x0FFFFFFF).to_bytes(4, "big")


def cause(value: bytes) -> int:
    """The number of a Cause."""
    if len(value) < 2:
        raise Malformed("a Cause of less than two octets", Cause.MANDATORY_IE_INCORRECT)
    return value[0]


def ebi(value: bytes) -> int:
    """An EPS bearer's identity."""
    if not value:
        raise Malformed("an EBI without an octet", Cause.MANDATORY_IE_INCORRECT)
    return value[0] & 0xF


# Protocol configuration options (TS 24.008 clause 10.5.6.3): what a UE asks, and what it gets, has the same numbers.
_DNS_IPV4, _MTU_IPV4 = 0x000D, 0x0010


def pco_request() -> bytes:
    """Ask for name servers and the link's MTU."""
    return b"\x80" + struct.pack(">HBHB", _DNS_IPV4, 0, _MTU_IPV4, 0)


def pco(value: bytes) -> tuple[tuple[str, ...], int | None]:
    """(name servers, MTU) of a network's options; what is cut off is not there."""
    servers, mtu, start = [], None, 1
    while start + 3 <= len(value):
        number, length = struct.unpack_from(">HB", value, start)
        content = value[start + 3 : start + 3 + length]
        start += 3 + length
        if number == _DNS_IPV4 and len(content) == 4:
            servers.append(str(ipaddress.IPv4Address(content)))
        elif number == _MTU_IPV4 and len(content) == 2:
            mtu = int.from_bytes(content, "big")
    return tuple(servers), mtu
