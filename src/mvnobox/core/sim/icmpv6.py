"""Router solicitations and advertisements (RFC 4861) as the packets that a PDU session carries."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

NEXT_HEADER = 58
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
ALL_ROUTERS = ipaddress.IPv6Address("ff02::2").packed
# Where an advertisement comes from.
_ROUTER = ipaddress.IPv6Address("fe80::1").packed
_LINK_LOCAL = ipaddress.IPv6Address("fe80::").packed[:8]
_HEADER = 40
_PREFIX_INFORMATION, _MTU = 3, 5
# Seconds that the router is one, as Open5GS's SMF says; the prefix lasts for ever: as long as the session.
_LIFETIME, _FOR_EVER = 64_800, 0xFFFFFFFF
# On-link and autonomous address configuration (section 4.6.2).
_ON_LINK, _AUTONOMOUS = 0x80, 0x40


@dataclass(frozen=True)
class Advertisement:
    """What a UE reads in one: the /64 to make addresses in, and the link's MTU (None: not said)."""

    prefix: ipaddress.IPv6Network
    mtu: int | None


def checksum(source: bytes, target: bytes, body: bytes) -> int:
    """ICMPv6's checksum over its pseudo-header (RFC 4443 section 2.3)."""
    data = source + target + struct.pack(">II", len(body), NEXT_HEADER) + body + b"\0" * (len(body) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source: bytes, target: bytes, body: bytes, hops: int = 255) -> bytes:
    """An IPv6 packet with an ICMPv6 message, whose checksum (octets 2 and 3) is filled in."""
    body = body[:2] + struct.pack(">H", checksum(source, target, body[:2] + b"\0\0" + body[4:])) + body[4:]
    return struct.pack(">IHBB", 6 << 28, len(body), NEXT_HEADER, hops) + source + target + body


def link_local(identifier: bytes) -> bytes:
    """fe80:: with an interface identifier of eight octets."""
    return _LINK_LOCAL + identifier


def solicitation(identifier: bytes) -> bytes:
    """A router solicitation of the UE with this interface identifier."""
    return packet(link_local(identifier), ALL_ROUTERS, struct.pack(">BBHI", ROUTER_SOLICITATION, 0, 0, 0))


def is_solicitation(data: bytes | memoryview) -> bool:
    """Whether a packet is a router solicitation, to all routers."""
    return (
        len(data) >= _HEADER + 8
        and data[0] >> 4 == 6
        and data[6] == NEXT_HEADER
        and bytes(data[24:40]) == ALL_ROUTERS
        and data[_HEADER] == ROUTER_SOLICITATION
    )


def advertisement(prefix: bytes, mtu: int, target: bytes) -> bytes:
    """The answer: a default router, and a /64 (its eight octets) for address configuration (TS 23.501 clause 5.8.2.2.3)."""
    body = struct.pack(">BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, _LIFETIME, 0, 0)
    flags = _ON_LINK | _AUTONOMOUS
    body += struct.pack(">BBBBIII", _PREFIX_INFORMATION, 4, 64, flags, _FOR_EVER, _FOR_EVER, 0) + prefix + bytes(8)
    body += struct.pack(">BBHI", _MTU, 1, 0, mtu)
    return packet(_ROUTER, target, body)


def parse_advertisement(data: bytes | memoryview) -> Advertisement | None:
    """What a router advertisement says; None for any other packet, and for one that is not valid (section 6.1.2)."""
    data = bytes(data)
    if len(data) < _HEADER + 16 or data[0] >> 4 != 6 or data[6] != NEXT_HEADER or data[_HEADER] != ROUTER_ADVERTISEMENT:
        return None
    source, target, body = data[8:24], data[24:40], data[_HEADER:]
    if data[7] != 255 or source[:8] != _LINK_LOCAL or checksum(source, target, body) != 0:
        return None
    prefix, mtu, offset = None, None, 16
    while offset + 8 <= len(body):
        kind, length = body[offset], body[offset + 1] * 8
        option = body[offset : offset + length]
        if not length or len(option) < length:
            return None
        if kind == _PREFIX_INFORMATION and length == 32 and option[2] == 64 and option[3] & _AUTONOMOUS:
            prefix = ipaddress.IPv6Network((option[16:24] + bytes(8), 64))
        elif kind == _MTU and length == 8:
            mtu = int.from_bytes(option[4:8], "big")
        offset += length
    return Advertisement(prefix, mtu) if prefix is not None else None
