"""PFCP messages and information elements (TS 29.244 clauses 7 and 8).

Lossless: what is not touched goes out as the octets that came in, unknown and vendor-specific elements included.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class PfcpError(ValueError):
    """Octets that are no PFCP, or an element whose content is broken."""


class Type(enum.IntEnum):
    """Message types (table 7.3-1)."""

    HEARTBEAT_REQUEST = 1
    HEARTBEAT_RESPONSE = 2
    ASSOCIATION_SETUP_REQUEST = 5
    ASSOCIATION_SETUP_RESPONSE = 6
    ASSOCIATION_UPDATE_REQUEST = 7
    ASSOCIATION_UPDATE_RESPONSE = 8
    ASSOCIATION_RELEASE_REQUEST = 9
    ASSOCIATION_RELEASE_RESPONSE = 10
    VERSION_NOT_SUPPORTED = 11
    SESSION_ESTABLISHMENT_REQUEST = 50
    SESSION_ESTABLISHMENT_RESPONSE = 51
    SESSION_MODIFICATION_REQUEST = 52
    SESSION_MODIFICATION_RESPONSE = 53
    SESSION_DELETION_REQUEST = 54
    SESSION_DELETION_RESPONSE = 55
    SESSION_REPORT_REQUEST = 56
    SESSION_REPORT_RESPONSE = 57


class IeType(enum.IntEnum):
    """Information elements (table 8.1.2-1), those that the kit reads or writes."""

    CREATE_PDR = 1
    PDI = 2
    CREATE_FAR = 3
    FORWARDING_PARAMETERS = 4
    CREATE_URR = 6
    CREATE_QER = 7
    CREATED_PDR = 8
    UPDATE_PDR = 9
    UPDATE_FAR = 10
    UPDATE_FORWARDING_PARAMETERS = 11
    UPDATE_URR = 13
    UPDATE_QER = 14
    REMOVE_PDR = 15
    REMOVE_FAR = 16
    REMOVE_URR = 17
    REMOVE_QER = 18
    CAUSE = 19
    SOURCE_INTERFACE = 20
    F_TEID = 21
    NETWORK_INSTANCE = 22
    GATE_STATUS = 25
    MBR = 26
    PRECEDENCE = 29
    VOLUME_THRESHOLD = 31
    REPORTING_TRIGGERS = 37
    REPORT_TYPE = 39
    OFFENDING_IE = 40
    DESTINATION_INTERFACE = 42
    UP_FUNCTION_FEATURES = 43
    APPLY_ACTION = 44
    PDR_ID = 56
    F_SEID = 57
    NODE_ID = 60
    MEASUREMENT_METHOD = 62
    USAGE_REPORT_TRIGGER = 63
    VOLUME_MEASUREMENT = 66
    VOLUME_QUOTA = 73
    QUERY_URR = 77
    USAGE_REPORT_MODIFICATION = 78
    USAGE_REPORT_DELETION = 79
    USAGE_REPORT_REPORT = 80
    URR_ID = 81
    DOWNLINK_DATA_REPORT = 83
    OUTER_HEADER_CREATION = 84
    UE_IP_ADDRESS = 93
    OUTER_HEADER_REMOVAL = 95
    RECOVERY_TIME_STAMP = 96
    UR_SEQN = 104
    FAR_ID = 108
    QER_ID = 109
    PDN_TYPE = 113
    QFI = 124
    USER_ID = 141
    APN_DNN = 159
    INTERFACE_TYPE = 160
    S_NSSAI = 257


class Cause(enum.IntEnum):
    """Cause values (table 8.2.1-1)."""

    ACCEPTED = 1
    REJECTED = 64
    SESSION_NOT_FOUND = 65
    MANDATORY_IE_MISSING = 66
    MANDATORY_IE_INCORRECT = 69
    NO_ASSOCIATION = 72
    NO_RESOURCES = 75
    SYSTEM_FAILURE = 77


# Apply Action (clause 8.2.26), first octet.
DROP, FORW, BUFF, NOCP = 1, 2, 4, 8
# Reporting Triggers (clause 8.2.19): octets 5 and 6.
TRIGGER_VOLUME_THRESHOLD, TRIGGER_VOLUME_QUOTA = 2, 1
# Report Type (clause 8.2.21).
REPORT_DOWNLINK_DATA, REPORT_USAGE = 1, 2
# Seconds between NTP's epoch and Unix's (RFC 5905).
NTP_OFFSET = 2_208_988_800
DEEPEST = 8


# Header of an element: type and length of its content.
_HEADER = struct.Struct(">HH")
# Headers of a message: flags, type, length; then, with one, the SEID; then sequence number and priority.
_START, _SEID, _TAIL = struct.Struct(">BBH"), struct.Struct(">Q"), struct.Struct(">I")


class Ie(NamedTuple):
    """One information element; a grouped one holds its members' octets."""

    type: int
    data: bytes

    def children(self) -> list[Ie]:
        """The members of a grouped element. Raises PfcpError."""
        return decode_ies(self.data)

    def member(self, type_: int) -> bytes | None:
        """The content of a grouped element's first member of a type, the others left unread. Raises PfcpError."""
        data, offset, end = self.data, 0, len(self.data)
        while offset < end:
            if offset + 4 > end:
                raise PfcpError("an element's header is cut off")
            found, length = _HEADER.unpack_from(data, offset)
            offset += 4
            if offset + length > end:
                raise PfcpError(f"element {found} is cut off")
            if found == type_:
                return data[offset : offset + length]
            offset += length
        return None

    def encode(self) -> bytes:
        return _HEADER.pack(self.type, len(self.data)) + self.data


def group(type_: int, members: Iterable[Ie]) -> Ie:
    """A grouped element."""
    return Ie(type_, b"".join([member.encode() for member in members]))


def decode_ies(data: bytes) -> list[Ie]:
    """The elements in a run of octets. Raises PfcpError."""
    found = []
    unpack = _HEADER.unpack_from
    offset, end = 0, len(data)
    while offset < end:
        if offset + 4 > end:
            raise PfcpError("an element's header is cut off")
        type_, length = unpack(data, offset)
        offset += 4
        last = offset + length
        if last > end:
            raise PfcpError(f"element {type_} is cut off")
        found.append(Ie(type_, data[offset:last]))
        offset = last
    return found


def first(ies: Sequence[Ie], type_: int) -> Ie | None:
    """The first element of a type."""
    for ie in ies:
        if ie.type == type_:
            return ie
    return None


@dataclass(slots=True)
class Message:
    """A PFCP message; `seid` is None for node messages."""

    type: int
    sequence: int
    ies: list[Ie] = field(default_factory=list)
    seid: int | None = None
    priority: int | None = None

    def first(self, type_: int) -> Ie | None:
        return first(self.ies, type_)

    def all(self, type_: int) -> list[Ie]:
        return [ie for ie in self.ies if ie.type == type_]

    def need(self, type_: int) -> Ie:
        """The element, or PfcpError where it is missing."""
        found = self.first(type_)
        if found is None:
            raise PfcpError(f"element {type_} is missing")
        return found

    @property
    def is_request(self) -> bool:
        return self.type in _REQUESTS

    def encode(self) -> bytes:
        body = b"".join([_HEADER.pack(type_, len(data)) + data for type_, data in self.ies])
        flags = 0x20
        tail = _TAIL.pack((self.sequence & 0xFFFFFF) << 8 | ((self.priority or 0) << 4))
        if self.priority is not None:
            flags |= 2
        if self.seid is not None:
            flags |= 1
            tail = _SEID.pack(self.seid) + tail
        return _START.pack(flags, self.type, len(tail) + len(body)) + tail + body


_REQUESTS = frozenset(int(t) for t in Type if t.name.endswith("_REQUEST"))


def decode(data: bytes) -> Message:
    """A message out of a datagram. Raises PfcpError."""
    if len(data) < 8:
        raise PfcpError("shorter than a header")
    flags, type_, length = _START.unpack_from(data)
    if flags >> 5 != 1:
        raise PfcpError(f"version {flags >> 5}")
    if length + 4 > len(data) or length < 4:
        raise PfcpError("the length is not the datagram's")
    offset, seid = 4, None
    if flags & 1:
        if length < 12:
            raise PfcpError("the SEID is cut off")
        (seid,) = _SEID.unpack_from(data, 4)
        offset = 12
    (tail,) = _TAIL.unpack_from(data, offset)
    priority = (tail >> 4) & 0xF if flags & 2 else None
    return Message(type_, tail >> 8, decode_ies(data[offset + 4 : 4 + length]), seid, priority)


# Single elements --------------------------------------------------------------------------------------------------


def number(ie: Ie | None, octets: int) -> int:
    """An unsigned integer of exactly so many octets at an element's start. Raises PfcpError."""
    if ie is None or len(ie.data) < octets:
        raise PfcpError("an element is missing or too short")
    return int.from_bytes(ie.data[:octets], "big")


def u8(type_: int, value: int) -> Ie:
    return Ie(type_, bytes([value]))


def u16(type_: int, value: int) -> Ie:
    return Ie(type_, struct.pack(">H", value))


def u32(type_: int, value: int) -> Ie:
    return Ie(type_, struct.pack(">I", value))


@functools.lru_cache(64)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def node_id(address: str) -> Ie:
    """Node ID of an address (clause 8.2.38)."""
    packed = _packed(address)
    return Ie(IeType.NODE_ID, bytes([0 if len(packed) == 4 else 1]) + packed)


def parse_node_id(ie: Ie | None) -> str | None:
    """The address or the name in a Node ID (clause 8.2.38)."""
    if ie is None or not ie.data:
        return None
    kind, rest = ie.data[0] & 0xF, ie.data[1:]
    if kind == 2:
        return parse_dnn(Ie(ie.type, rest))
    if (kind, len(rest)) not in ((0, 4), (1, 16)):
        raise PfcpError("a Node ID is broken")
    return str(ipaddress.ip_address(rest))


def f_seid(seid: int, address: str) -> Ie:
    """F-SEID of an IPv4 or IPv6 address (clause 8.2.37)."""
    packed = _packed(address)
    return Ie(IeType.F_SEID, bytes([2 if len(packed) == 4 else 1]) + struct.pack(">Q", seid) + packed)


def parse_f_seid(ie: Ie, *, ipv6: bool = False) -> tuple[int, str | None]:
    """(SEID, address) of an F-SEID; of two addresses the one that is asked for."""
    data = ie.data
    if len(data) < 9:
        raise PfcpError("an F-SEID is cut off")
    flags = data[0]
    (seid,) = _SEID.unpack_from(data, 1)
    # IPv4 stands before IPv6 where there are both.
    after = 13 if flags & 2 else 9
    if flags & 1 and len(data) >= after + 16 and (ipv6 or not flags & 2):
        return seid, str(ipaddress.IPv6Address(data[after : after + 16]))
    if flags & 2 and len(data) >= 13:
        return seid, str(ipaddress.IPv4Address(data[9:13]))
    return seid, None


def gtp_u_header(teid: int, address: str) -> Ie:
    """Outer Header Creation of GTP-U over UDP and IPv4 or IPv6 (clause 8.2.56)."""
    packed = _packed(address)
    kind = 0x0100 if len(packed) == 4 else 0x0200
    return Ie(IeType.OUTER_HEADER_CREATION, struct.pack(">HI", kind, teid) + packed)


def recovery(seconds: int) -> Ie:
    """Recovery Time Stamp of Unix seconds (clause 8.2.65)."""
    return u32(IeType.RECOVERY_TIME_STAMP, (seconds + NTP_OFFSET) & 0xFFFFFFFF)


def volume_threshold(total: int) -> Ie:
    """Volume Threshold on the total (clause 8.2.13), octets."""
    return Ie(IeType.VOLUME_THRESHOLD, b"\x01" + struct.pack(">Q", total))


def volume_quota(total: int) -> Ie:
    """Volume Quota on the total (clause 8.2.50), octets."""
    return Ie(IeType.VOLUME_QUOTA, b"\x01" + struct.pack(">Q", total))


def parse_volume(ie: Ie | None) -> tuple[int, int, int]:
    """(total, uplink, downlink) octets of a Volume Threshold or Volume Measurement (clauses 8.2.13, 8.2.44)."""
    if ie is None or not ie.data:
        return 0, 0, 0
    flags, offset, values = ie.data[0], 1, [0, 0, 0]
    for index in range(3):
        if flags & 1 << index:
            if offset + 8 > len(ie.data):
                raise PfcpError("a volume is cut off")
            (values[index],) = struct.unpack_from(">Q", ie.data, offset)
            offset += 8
    if not flags & 1:
        values[0] = values[1] + values[2]
    return values[0], values[1], values[2]


def ue_addresses(ie: Ie | None) -> list[str]:
    """The IPv4 address and the IPv6 prefix in a UE IP Address (clause 8.2.62); none of those that the UPF is to choose.

    An IPv6 address stands for the /64 that the customer has (TS 23.501 clause 5.8.2.2.3), unless the element says how
    many bits were delegated, or how long the prefix is.
    """
    if ie is None or not ie.data:
        return []
    flags, offset, found = ie.data[0], 1, []
    # CHV4 and CHV6 (16, 32): the UPF chooses, there is no address yet.
    if flags & 2 and not flags & 16:
        if len(ie.data) < offset + 4:
            raise PfcpError("a UE IP Address is cut off")
        found.append(str(ipaddress.IPv4Address(ie.data[offset : offset + 4])))
        offset += 4
    if flags & 1 and not flags & 32:
        if len(ie.data) < offset + 16:
            raise PfcpError("a UE IP Address is cut off")
        packed, offset, length = ie.data[offset : offset + 16], offset + 16, 64
        if flags & 8 and len(ie.data) > offset:
            length, offset = max(0, 64 - ie.data[offset]), offset + 1
        elif flags & 64 and len(ie.data) > offset:
            length = min(ie.data[offset], 128)
        found.append(str(ipaddress.IPv6Network((packed, length), strict=False)))
    return found


def user_imsi(ie: Ie | None) -> str | None:
    """The IMSI in a User ID (clause 8.2.101): TBCD digits."""
    if ie is None or not ie.data or not ie.data[0] & 1 or len(ie.data) < 2:
        return None
    length = ie.data[1]
    digits = "".join(f"{octet & 0xF:x}{octet >> 4:x}" for octet in ie.data[2 : 2 + length]).rstrip("f")
    return digits if digits.isdigit() and 5 <= len(digits) <= 15 else None


def user_id(imsi: str) -> Ie:
    """User ID with an IMSI."""
    padded = imsi + "f" * (len(imsi) % 2)
    packed = bytes(int(padded[i + 1] + padded[i], 16) for i in range(0, len(padded), 2))
    return Ie(IeType.USER_ID, bytes([1, len(packed)]) + packed)


def dnn(name: str) -> Ie:
    """APN/DNN (clause 8.2.117): labels with their lengths."""
    return Ie(IeType.APN_DNN, b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")))


def parse_dnn(ie: Ie | None) -> str | None:
    """The name in an APN/DNN."""
    if ie is None:
        return None
    labels, offset = [], 0
    while offset < len(ie.data):
        length = ie.data[offset]
        labels.append(ie.data[offset + 1 : offset + 1 + length].decode("ascii", "replace"))
        offset += 1 + length
    return ".".join(labels)
