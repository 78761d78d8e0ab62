"""GTP-U (TS 29.281): G-PDUs with and without extension headers, echo, error indication."""

from __future__ import annotations

import socket
import struct

PORT = 2152
ECHO_REQUEST, ECHO_RESPONSE, ERROR_INDICATION, G_PDU = 1, 2, 26, 255
_HEADER = struct.Struct(">BBHI")
# PDU Session Container (TS 38.415): one unit of 4 octets, downlink (type 0) or uplink (type 1) with a QFI.
_EXTENDED = struct.Struct(">BBHIHBBBBBB")
# Octets before the packet in a G-PDU that we make.
HEADROOM = _EXTENDED.size
PLAIN = _HEADER.size
_TEID_DATA, _PEER_ADDRESS, _RECOVERY = 16, 133, 14


def payload(data: bytes | memoryview) -> tuple[int, int, int]:
    """(message type, TEID, offset of what is carried); type 0 where the octets are no GTP-U."""
    size = len(data)
    if size < 8 or data[0] >> 5 != 1:
        return 0, 0, 0
    flags, kind, _, teid = _HEADER.unpack_from(data)
    if not flags & 7:
        return kind, teid, 8
    if size < 12:
        return 0, 0, 0
    offset, following = 12, data[11] if flags & 4 else 0
    while following:
        if offset >= size or data[offset] == 0:
            return 0, 0, 0
        end = offset + data[offset] * 4
        if end > size:
            return 0, 0, 0
        following, offset = data[end - 1], end
    return kind, teid, offset


def write_header(buffer: bytearray, teid: int, length: int, qfi: int, *, uplink: bool) -> None:
    """Put a G-PDU's header with a PDU Session Container into the first `HEADROOM` octets of a buffer."""
    kind = 0x10 if uplink else 0
    _EXTENDED.pack_into(buffer, 0, 0x34, G_PDU, length + 8, teid, 0, 0, 0x85, 1, kind, qfi & 0x3F, 0)


def write_plain_header(buffer: bytearray, teid: int, length: int) -> None:
    """Put a G-PDU's header without extensions, as on S8, into the last `PLAIN` of the first `HEADROOM` octets."""
    _HEADER.pack_into(buffer, HEADROOM - PLAIN, 0x30, G_PDU, length, teid)


def g_pdu(teid: int, packet: bytes, qfi: int, *, uplink: bool) -> bytes:
    """A G-PDU with a PDU Session Container."""
    header = bytearray(HEADROOM)
    write_header(header, teid, len(packet), qfi, uplink=uplink)
    return bytes(header) + packet


def echo_response(request: bytes | memoryview) -> bytes:
    """The answer to an echo request, with its sequence number and a Recovery element (clause 7.2.2)."""
    sequence = bytes(request[8:10]) if len(request) >= 10 else b"\0\0"
    return _HEADER.pack(0x32, ECHO_RESPONSE, 6, 0) + sequence + b"\0\0" + bytes([_RECOVERY, 0])


def error_indication(teid: int, own: str) -> bytes:
    """Said to a peer: "there is no such tunnel here": the TEID of the G-PDU and the address it came to (clause 7.3.1)."""
    elements = struct.pack(">BI", _TEID_DATA, teid) + struct.pack(">BH", _PEER_ADDRESS, 4) + socket.inet_aton(own)
    return _HEADER.pack(0x32, ERROR_INDICATION, 4 + len(elements), 0) + bytes(4) + elements


def parse_error_indication(data: bytes | memoryview, offset: int) -> tuple[int, str] | None:
    """(TEID, address) that an error indication is about; None where it does not say."""
    body = bytes(data[offset:])
    if len(body) < 12 or body[0] != _TEID_DATA or body[5] != _PEER_ADDRESS or body[6:8] != b"\0\x04":
        return None
    return int.from_bytes(body[1:5], "big"), socket.inet_ntoa(body[8:12])
