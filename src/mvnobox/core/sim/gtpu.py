"""GTP-U (TS 29.281): G-PDUs with and without extension headers, echo."""

from __future__ import annotations

import struct

PORT = 2152
ECHO_REQUEST, ECHO_RESPONSE, ERROR_INDICATION, G_PDU = 1, 2, 26, 255
_HEADER = struct.Struct(">BBHI")
# PDU Session Container (TS 38.415): one unit of 4 octets, downlink (type 0) with a QFI, no further extension.
_EXTENDED = struct.Struct(">BBHIHBBBBBB")


def payload(data: bytes) -> tuple[int, int, int]:
    """(message type, TEID, offset of what is carried); type 0 where the octets are no GTP-U."""
    if len(data) < 8 or data[0] >> 5 != 1:
        return 0, 0, 0
    flags, kind, _, teid = _HEADER.unpack_from(data)
    if not flags & 7:
        return kind, teid, 8
    if len(data) < 12:
        return 0, 0, 0
    offset, following = 12, data[11] if flags & 4 else 0
    while following:
        if offset >= len(data) or data[offset] == 0:
            return 0, 0, 0
        end = offset + data[offset] * 4
        if end > len(data):
            return 0, 0, 0
        following, offset = data[end - 1], end
    return kind, teid, offset


def g_pdu(teid: int, packet: bytes, qfi: int, *, uplink: bool) -> bytes:
    """A G-PDU with a PDU Session Container."""
    return (
        _EXTENDED.pack(0x34, G_PDU, len(packet) + 8, teid, 0, 0, 0x85, 1, 0x10 if uplink else 0, qfi & 0x3F, 0) + packet
    )


def echo_response(request: bytes) -> bytes:
    """The answer to an echo request, with its sequence number and a Recovery element."""
    sequence = request[8:10] if len(request) >= 10 else b"\0\0"
    return _HEADER.pack(0x32, ECHO_RESPONSE, 6, 0) + sequence + b"\0\0" + b"\x0e\0"
