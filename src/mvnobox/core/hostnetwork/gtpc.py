"""GTPv2-C messages and information elements on the wire (TS 29.274 clauses 5 and 8)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

PORT = 2123
VERSION = 2
_HEADER = struct.Struct(">BBH")
_IE = struct.Struct(">BHB")
_WITH_TEID = 0x08
# Largest sequence number: 24 bits, the highest bit is for commands' answers (clause 7.6).
SEQUENCES = 1 << 23


class Kind:
    """Message types (clause 6.1). The answer to a request has the next number."""

    ECHO_REQUEST, ECHO_RESPONSE, VERSION_NOT_SUPPORTED = 1, 2, 3
    CREATE_SESSION_REQUEST, CREATE_SESSION_RESPONSE = 32, 33
    DELETE_SESSION_REQUEST, DELETE_SESSION_RESPONSE = 36, 37
    CREATE_BEARER_REQUEST, CREATE_BEARER_RESPONSE = 95, 96
    UPDATE_BEARER_REQUEST, UPDATE_BEARER_RESPONSE = 97, 98
    DELETE_BEARER_REQUEST, DELETE_BEARER_RESPONSE = 99, 100


class Type:
    """Information elements (clause 8.1)."""

    IMSI, CAUSE, RECOVERY, APN, AMBR, EBI = 1, 2, 3, 71, 72, 73
    MEI, MSISDN, INDICATION, PCO, PAA, BEARER_QOS, RAT_TYPE, SERVING_NETWORK = 75, 76, 77, 78, 79, 80, 82, 83
    ULI, F_TEID, BEARER_CONTEXT, CHARGING_ID, CHARGING_CHARACTERISTICS = 86, 87, 93, 94, 95
    PDN_TYPE, APN_RESTRICTION, SELECTION_MODE = 99, 127, 128


class Cause:
    """Values of the Cause (clause 8.4)."""

    ACCEPTED, CONTEXT_NOT_FOUND, INVALID_LENGTH, SERVICE_NOT_SUPPORTED = 16, 64, 67, 68
    MANDATORY_IE_INCORRECT, MANDATORY_IE_MISSING, REQUEST_REJECTED = 69, 70, 94


_WORDS = {
    16: "Request accepted", 17: "Request accepted partially", 18: "New PDN type due to network preference",
    19: "New PDN type due to single address bearer only", 64: "Context not found", 65: "Invalid message format",
    66: "Version not supported by next peer", 67: "Invalid length", 68: "Service not supported",
    69: "Mandatory IE incorrect", 70: "Mandatory IE missing", 72: "System failure", 73: "No resources available",
    78: "Missing or unknown APN", 83: "Preferred PDN type not supported", 84: "All dynamic addresses are occupied",
    92: "User authentication failed", 93: "APN access denied - no subscription",
    94: "Request rejected (reason not specified)", 96: "IMSI/IMEI not known", 100: "Remote peer not responding",
    103: "Conditional IE missing", 110: "Temporarily rejected due to handover in progress", 113: "APN congestion",
    125: "UE not authorised by OCS or external AAA Server",
}  # fmt: skip


def accepts(cause: int) -> bool:
    """Whether a Cause is of the kind that accepts (16 to 63)."""
    return 16 <= cause < 64


def words(cause: int) -> str:
    """A Cause in the specification's words."""
    return f"{_WORDS.get(cause, 'refused')} (GTP cause {cause})"


class Malformed(Exception):
    """Octets that are no GTPv2-C message or element; `cause` is what to answer a request with."""

    def __init__(self, reason: str, cause: int = Cause.INVALID_LENGTH) -> None:
        super().__init__(reason)
        self.cause = cause


class OtherVersion(Exception):
    """A message of another version of GTP-C: it is answered with Version Not Supported Indication (clause 7.1.3)."""


class Ie(NamedTuple):
    """An information element."""

    type: int
    instance: int
    value: bytes


class Message(NamedTuple):
    """A message; `teid` is None where its header has none (echo)."""

    kind: int
    teid: int | None
    sequence: int
    ies: tuple[Ie, ...]

    def find(self, type_: int, instance: int = 0) -> bytes | None:
        """The value of the first such element, None without one."""
        return find(self.ies, type_, instance)

    def need(self, type_: int, instance: int = 0) -> bytes:
        """As `find`. Raises Malformed where it is missing."""
        value = self.find(type_, instance)
        if value is None:
            raise Malformed(f"element {type_}, instance {instance}, is missing", Cause.MANDATORY_IE_MISSING)
        return value


def find(ies: Iterable[Ie], type_: int, instance: int = 0) -> bytes | None:
    """The value of the first element of a type and instance, None without one."""
    return next((ie.value for ie in ies if ie.type == type_ and ie.instance == instance), None)


def ie(type_: int, value: bytes, instance: int = 0) -> bytes:
    """An information element (clause 8.2.1)."""
    return _IE.pack(type_, len(value), instance) + value


def group(type_: int, members: Iterable[bytes], instance: int = 0) -> bytes:
    """A grouped element of encoded members."""
    return ie(type_, b"".join(members), instance)


def encode(kind: int, teid: int | None, sequence: int, ies: Iterable[bytes] = ()) -> bytes:
    """A message of encoded elements (clause 5.1); without TEID for echo and version indications."""
    rest = (sequence & 0xFFFFFF).to_bytes(3, "big") + b"\0" + b"".join(ies)
    if teid is not None:
        rest = teid.to_bytes(4, "big") + rest
    return _HEADER.pack(VERSION << 5 | (0 if teid is None else _WITH_TEID), kind, len(rest)) + rest


def split(data: bytes) -> tuple[Ie, ...]:
    """The elements of a message's or group's value. Raises Malformed."""
    found, start = [], 0
    while start < len(data):
        if len(data) - start < 4:
            raise Malformed("octets left that are no element")
        type_, length, instance = _IE.unpack_from(data, start)
        end = start + 4 + length
        if end > len(data):
            raise Malformed(f"element {type_} is longer than its message")
        found.append(Ie(type_, instance & 0xF, data[start + 4 : end]))
        start = end
    return tuple(found)


def peek(data: bytes) -> tuple[int, int | None, int, int]:
    """(kind, TEID, sequence number, offset of the elements) of a header. Raises Malformed, OtherVersion."""
    if len(data) < 8:
        raise Malformed("shorter than a header")
    first, kind, length = _HEADER.unpack_from(data)
    if first >> 5 != VERSION:
        raise OtherVersion(f"version {first >> 5}")
    start = 12 if first & _WITH_TEID else 8
    if 4 + length > len(data) or 4 + length < start:
        raise Malformed("the header's length is not the message's")
    teid = int.from_bytes(data[4:8], "big") if start == 12 else None
    return kind, teid, int.from_bytes(data[start - 4 : start - 1], "big"), start


def decode(data: bytes) -> Message:
    """A message; what is piggybacked behind it is left. Raises Malformed, OtherVersion."""
    kind, teid, sequence, start = peek(data)
    end = 4 + int.from_bytes(data[2:4], "big")
    return Message(kind, teid, sequence, split(data[start:end]))
