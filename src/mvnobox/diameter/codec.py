"""Diameter messages and AVPs on the wire (RFC 6733 sections 3 and 4)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from mvnobox.diameter.codes import MANDATORY, REQUEST, VENDOR, Avp, Result

HEADER_LENGTH = 20
_HEADER = struct.Struct(">IIIII")
_AVP = struct.Struct(">II")
_VENDOR_AVP = struct.Struct(">III")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_I64 = struct.Struct(">q")
_U32_AVP = struct.Struct(">III")
_U64_AVP = struct.Struct(">IIQ")
_VENDOR_U32_AVP = struct.Struct(">IIII")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

# Where an AVP was found: its key (vendor << 32 | code), its flags, where it starts, its value and the value's end.
Found = tuple[int, int, int, int, int]


class DiameterError(Exception):
    """What a message is refused for: Result-Code, and the AVP (encoded) that Failed-AVP has to show."""

    def __init__(self, result: int, reason: str, failed: bytes = b"") -> None:
        super().__init__(reason)
        self.result, self.reason, self.failed = result, reason, failed


class Header(NamedTuple):
    """A message's header; `length` in octets with the header."""

    length: int
    flags: int
    command: int
    application: int
    hop_by_hop: int
    end_to_end: int

    @property
    def is_request(self) -> bool:
        return bool(self.flags & REQUEST)


def read_header(data: bytes, start: int = 0) -> Header:
    """The header at an offset; `data` has at least 20 octets from there. The version is the caller's affair."""
    first, second, application, hop_by_hop, end_to_end = _HEADER.unpack_from(data, start)
    return Header(first & 0xFFFFFF, second >> 24, second & 0xFFFFFF, application, hop_by_hop, end_to_end)


def split(data: bytes, start: int, end: int) -> list[Found]:
    """The AVPs between two offsets, groups not opened. Raises DiameterError 5014 for a length that cannot be."""
    found: list[Found] = []
    append, unpack = found.append, _AVP.unpack_from
    while start < end:
        if end - start < 8:
            raise DiameterError(Result.INVALID_AVP_LENGTH, "octets left that are no AVP")
        key, word = unpack(data, start)
        value = start + 8
        stop = start + (word & 0xFFFFFF)
        if word & 0x80000000:
            value = start + 12
            if value > end:
                raise DiameterError(Result.INVALID_AVP_LENGTH, "an AVP without its vendor", _cut(data, start, end))
            key |= _U32.unpack_from(data, start + 8)[0] << 32
        if stop < value or stop > end:
            raise DiameterError(Result.INVALID_AVP_LENGTH, "an AVP's length is wrong", _cut(data, start, end))
        append((key, word >> 24, start, value, stop))
        # Some stacks leave the padding of a group's last AVP out: the loop then ends a few octets behind the end.
        start = stop + (-stop + start & 3)
    return found


def _cut(data: bytes, start: int, end: int) -> bytes:
    """An AVP with an impossible length, as Failed-AVP has to show it: its header, and a value of no length."""
    code, word = _AVP.unpack_from(data, start)
    if word & 0x80000000 and start + 12 <= end:
        return _VENDOR_AVP.pack(code, word & 0xFF000000 | 12, _U32.unpack_from(data, start + 8)[0])
    return _AVP.pack(code, word & 0x7F000000 | 8)


def raw(data: bytes, avp: Found) -> bytes:
    """An AVP as it stands in a message, padded: what Failed-AVP shows."""
    octets = data[avp[2] : avp[4]]
    return bytes(octets) + _PADDING[len(octets) & 3]


def unsigned32(data: bytes, avp: Found) -> int:
    """Value of an Unsigned32 or Enumerated. Raises DiameterError 5014."""
    if avp[4] - avp[3] != 4:
        raise DiameterError(
            Result.INVALID_AVP_LENGTH, f"AVP {avp[0] & 0xFFFFFFFF} has to have 4 octets", raw(data, avp)
        )
    value: int = _U32.unpack_from(data, avp[3])[0]
    return value


def unsigned64(data: bytes, avp: Found) -> int:
    """Value of an Unsigned64. Raises DiameterError 5014."""
    if avp[4] - avp[3] != 8:
        raise DiameterError(
            Result.INVALID_AVP_LENGTH, f"AVP {avp[0] & 0xFFFFFFFF} has to have 8 octets", raw(data, avp)
        )
    value: int = _U64.unpack_from(data, avp[3])[0]
    return value


def signed32(data: bytes, avp: Found) -> int:
    """Value of an Integer32. Raises DiameterError 5014."""
    value = unsigned32(data, avp)
    return value - (1 << 32) if value >> 31 else value


def signed64(data: bytes, avp: Found) -> int:
    """Value of an Integer64. Raises DiameterError 5014."""
    value = unsigned64(data, avp)
    return value - (1 << 64) if value >> 63 else value


def text(data: bytes, avp: Found) -> str:
    """Value of a UTF8String or DiameterIdentity. Raises DiameterError 5004."""
    try:
        return str(data[avp[3] : avp[4]], "utf-8")
    except UnicodeDecodeError:
        raise DiameterError(Result.INVALID_AVP_VALUE, f"AVP {avp[0]} is not UTF-8", raw(data, avp)) from None


def octets(key: int, value: bytes, flags: int = MANDATORY) -> bytes:
    """An AVP of any kind, padded."""
    length = len(value)
    if key >> 32:
        head = _VENDOR_AVP.pack(key & 0xFFFFFFFF, (flags | VENDOR) << 24 | length + 12, key >> 32)
    else:
        head = _AVP.pack(key, flags << 24 | length + 8)
    return head + value + _PADDING[length & 3]


def u32(key: int, value: int, flags: int = MANDATORY) -> bytes:
    """An AVP of type Unsigned32, Enumerated or Time."""
    if key >> 32:
        return _VENDOR_U32_AVP.pack(key & 0xFFFFFFFF, (flags | VENDOR) << 24 | 16, key >> 32, value)
    return _U32_AVP.pack(key, flags << 24 | 12, value)


def u64(key: int, value: int, flags: int = MANDATORY) -> bytes:
    """An AVP of type Unsigned64 without a vendor."""
    return _U64_AVP.pack(key, flags << 24 | 16, value)


def i32(key: int, value: int) -> bytes:
    """An AVP of type Integer32."""
    return u32(key, value & 0xFFFFFFFF)


def i64(key: int, value: int) -> bytes:
    """An AVP of type Integer64."""
    return octets(key, _I64.pack(value))


def utf8(key: int, value: str, flags: int = MANDATORY) -> bytes:
    """An AVP of type UTF8String or DiameterIdentity."""
    return octets(key, value.encode(), flags)


def group(key: int, members: Iterable[bytes], flags: int = MANDATORY) -> bytes:
    """A grouped AVP; its members are encoded, hence padded."""
    return octets(key, b"".join(members), flags)


def message(flags: int, command: int, application: int, hop_by_hop: int, end_to_end: int, body: bytes) -> bytes:
    """A whole message of padded AVPs."""
    length = HEADER_LENGTH + len(body)
    return _HEADER.pack(1 << 24 | length, flags << 24 | command, application, hop_by_hop, end_to_end) + body


def missing(key: int) -> DiameterError:
    """The error for a required AVP that is not there, with an example of it (RFC 6733 section 7.5)."""
    from mvnobox.diameter.codes import LEAST_LENGTH

    return DiameterError(
        Result.MISSING_AVP, f"AVP {key & 0xFFFFFFFF} is missing", octets(key, bytes(LEAST_LENGTH.get(key, 0)))
    )


def failed_avp(error: DiameterError) -> bytes:
    """Failed-AVP of an answer, or nothing."""
    return octets(Avp.FAILED_AVP, error.failed) if error.failed else b""
