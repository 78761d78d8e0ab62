"""PFCP requests of a session with one QoS flow, element by element as Open5GS's SMF 2.7.7 sends them in 5G."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from mvnobox.core.sim.elements import Also
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import BUFF, FORW, NOCP, Ie, IeType, Message, Type

DOWNLINK_PDR, UPLINK_PDR, FROM_CP_PDR, TO_CP_PDR = 1, 2, 3, 4
DOWNLINK_FAR, UPLINK_FAR, TO_CP_FAR = 1, 2, 3
# The threshold of its URR: 100 MiB.
URR_THRESHOLD = 100 * 2**20
_DEFAULT_PRECEDENCE, _CP_PRECEDENCE = 65535, 255
_CHOOSE_ID = 5
# 3GPP interface types (clause 8.2.118).
_N3, _N6 = 11, 17
# Interfaces (clause 8.2.2).
_ACCESS, _CORE, _CP = 0, 1, 3
# Outer Header Removal (clause 8.2.64): GTP-U/UDP/IP whatever the version.
_REMOVE_GTPU = Ie(IeType.OUTER_HEADER_REMOVAL, b"\x06")
# F-TEID (clause 8.2.3): V4, V6, CHOOSE and, for a tunnel that two PDRs share, CHOOSE ID.
_CHOOSE = Ie(IeType.F_TEID, b"\x07")
_CHOOSE_SHARED = Ie(IeType.F_TEID, bytes([0x0F, _CHOOSE_ID]))


@dataclass(frozen=True)
class Subscription:
    """What of a subscriber goes into N4: identity, slice, rates in bit/s, type of the PDU session."""

    imsi: str
    msisdn: str | None
    dnn: str
    sst: int
    sd: str | None
    uplink: int = 0
    downlink: int = 0
    # TS 24.501 clause 9.11.4.11: 1 is IPv4, 2 IPv6, 3 IPv4v6.
    type: int = 1


def _instance(dnn: str) -> Ie:
    return Ie(IeType.NETWORK_INSTANCE, codec.dnn(dnn).data)


def _apply(action: int) -> Ie:
    return Ie(IeType.APPLY_ACTION, bytes([action, 0]))


def _outer(address: str, teid: int) -> Ie:
    """Outer Header Creation: GTP-U/UDP/IPv4 (clause 8.2.56)."""
    return Ie(IeType.OUTER_HEADER_CREATION, struct.pack(">HI", 0x0100, teid) + socket.inet_aton(address))


def _pdr(identity: int, precedence: int, pdi: Iterable[Ie], *rest: Ie) -> Ie:
    head = [codec.u16(IeType.PDR_ID, identity), codec.u32(IeType.PRECEDENCE, precedence)]
    return codec.group(IeType.CREATE_PDR, [*head, codec.group(IeType.PDI, pdi), *rest])


def _source(interface: int) -> Ie:
    return codec.u8(IeType.SOURCE_INTERFACE, interface)


def _tbcd(digits: str) -> bytes:
    padded = digits + "f" * (len(digits) % 2)
    return bytes(int(padded[i + 1] + padded[i], 16) for i in range(0, len(padded), 2))


def _user(subscription: Subscription) -> Ie:
    """User ID with IMSI and MSISDN (clause 8.2.101)."""
    imsi = _tbcd(subscription.imsi)
    data = bytes([len(imsi)]) + imsi
    if subscription.msisdn is None:
        return Ie(IeType.USER_ID, b"\x01" + data)
    msisdn = _tbcd(subscription.msisdn)
    return Ie(IeType.USER_ID, b"\x05" + data + bytes([len(msisdn)]) + msisdn)


def _rate(bits: int) -> bytes:
    return min(-(-bits // 1000), (1 << 40) - 1).to_bytes(5, "big")


def association_setup(own: str, recovery: int) -> Message:
    """Association Setup Request."""
    ies = [codec.node_id(own), codec.recovery(recovery), codec.u8(Also.CP_FUNCTION_FEATURES, 0)]
    return Message(Type.ASSOCIATION_SETUP_REQUEST, 0, ies)


@dataclass(frozen=True)
class UeAddresses:
    """What a UE has: an IPv4 address and perhaps an IPv6 address that stands for its /64."""

    ipv4: str
    ipv6: str | None = None

    def ie(self) -> Ie:
        """UE IP Address as a destination (clause 8.2.62)."""
        if self.ipv6 is None:
            return Ie(IeType.UE_IP_ADDRESS, b"\x06" + socket.inet_aton(self.ipv4))
        packed = socket.inet_aton(self.ipv4) + socket.inet_pton(socket.AF_INET6, self.ipv6)
        return Ie(IeType.UE_IP_ADDRESS, b"\x07" + packed)


def establishment(subscription: Subscription, ue: UeAddresses, seid: int, own: str, *, teid: int = 1) -> Message:
    """Session Establishment Request: the downlink waits until the access network has named its tunnel.

    `teid` is of the tunnel by which router solicitations come to us.
    """
    instance = _instance(subscription.dnn)
    filtered = b"permit out 58 from ff02::2/128 to assigned"
    sdf = Ie(Also.SDF_FILTER, b"\x01\x00" + struct.pack(">H", len(filtered)) + filtered)
    n3, n6 = codec.u8(Also.INTERFACE_TYPE, _N3), codec.u8(Also.INTERFACE_TYPE, _N6)
    qer = codec.u32(IeType.QER_ID, 1)
    pdrs = [
        _pdr(
            DOWNLINK_PDR, _DEFAULT_PRECEDENCE, [_source(_CORE), instance, ue.ie(), n6],
            codec.u32(IeType.FAR_ID, DOWNLINK_FAR), codec.u32(IeType.URR_ID, 1), qer,
        ),
        _pdr(
            UPLINK_PDR, _DEFAULT_PRECEDENCE,
            [_source(_ACCESS), _CHOOSE_SHARED, instance, codec.u8(IeType.QFI, 1), n3],
            _REMOVE_GTPU, codec.u32(IeType.FAR_ID, UPLINK_FAR), qer,
        ),
        _pdr(
            FROM_CP_PDR, _CP_PRECEDENCE, [_source(_CP), _CHOOSE],
            _REMOVE_GTPU, codec.u32(IeType.FAR_ID, DOWNLINK_FAR),
        ),
        _pdr(
            TO_CP_PDR, _CP_PRECEDENCE, [_source(_ACCESS), _CHOOSE_SHARED, instance, sdf, n3],
            _REMOVE_GTPU, codec.u32(IeType.FAR_ID, TO_CP_FAR),
        ),
    ]  # fmt: skip
    fars = [
        codec.group(
            IeType.CREATE_FAR,
            [codec.u32(IeType.FAR_ID, DOWNLINK_FAR), _apply(BUFF | NOCP), codec.u8(Also.BAR_ID, 1)],
        ),
        _forward(UPLINK_FAR, [codec.u8(IeType.DESTINATION_INTERFACE, _CORE), instance, n6]),
        _forward(TO_CP_FAR, [codec.u8(IeType.DESTINATION_INTERFACE, _CP), _outer(own, teid)]),
    ]
    # Measurement Method: volume (clause 8.2.40); one URR, on the downlink PDR alone.
    urr = [
        codec.u32(IeType.URR_ID, 1),
        codec.u8(IeType.MEASUREMENT_METHOD, 2),
        Ie(IeType.REPORTING_TRIGGERS, bytes([codec.TRIGGER_VOLUME_THRESHOLD, 0, 0])),
        codec.volume_threshold(URR_THRESHOLD),
    ]
    flow = [codec.u32(IeType.QER_ID, 1), codec.u8(IeType.GATE_STATUS, 0)]
    if subscription.uplink or subscription.downlink:
        flow.append(Ie(IeType.MBR, _rate(subscription.uplink) + _rate(subscription.downlink)))
    flow.append(codec.u8(IeType.QFI, 1))
    sd = bytes.fromhex(subscription.sd) if subscription.sd else b"\xff\xff\xff"
    ies = [
        codec.node_id(own),
        codec.f_seid(seid, own),
        *pdrs,
        *fars,
        codec.group(IeType.CREATE_URR, urr),
        codec.group(IeType.CREATE_QER, flow),
        codec.group(Also.CREATE_BAR, [codec.u8(Also.BAR_ID, 1)]),
        codec.u8(IeType.PDN_TYPE, 1 if ue.ipv6 is None else 3),
        _user(subscription),
        codec.dnn(subscription.dnn),
        Ie(IeType.S_NSSAI, bytes([subscription.sst]) + sd),
    ]
    return Message(Type.SESSION_ESTABLISHMENT_REQUEST, 0, ies, seid=0)


def _forward(identity: int, parameters: Iterable[Ie]) -> Ie:
    members = [codec.u32(IeType.FAR_ID, identity), _apply(FORW)]
    return codec.group(IeType.CREATE_FAR, [*members, codec.group(IeType.FORWARDING_PARAMETERS, parameters)])


def activate(seid: int, dnn: str, address: str, teid: int) -> Message:
    """Session Modification Request: the downlink goes to the access network's tunnel."""
    parameters = [
        codec.u8(IeType.DESTINATION_INTERFACE, _ACCESS),
        _instance(dnn),
        _outer(address, teid),
        codec.u8(Also.INTERFACE_TYPE, _N3),
    ]
    far = [
        codec.u32(IeType.FAR_ID, DOWNLINK_FAR),
        _apply(FORW),
        codec.group(IeType.UPDATE_FORWARDING_PARAMETERS, parameters),
    ]
    return Message(Type.SESSION_MODIFICATION_REQUEST, 0, [codec.group(IeType.UPDATE_FAR, far)], seid=seid)


def deactivate(seid: int) -> Message:
    """Session Modification Request: the UE is idle, packets for it are held back and reported."""
    far = [codec.u32(IeType.FAR_ID, DOWNLINK_FAR), _apply(BUFF | NOCP), codec.u8(Also.BAR_ID, 1)]
    return Message(Type.SESSION_MODIFICATION_REQUEST, 0, [codec.group(IeType.UPDATE_FAR, far)], seid=seid)


def deletion(seid: int) -> Message:
    """Session Deletion Request."""
    return Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=seid)


def tunnel(answer: Message, pdr: int) -> tuple[str, int]:
    """(address, TEID) that a PDR got in a Session Establishment Response. Raises PfcpError."""
    for created in answer.all(IeType.CREATED_PDR):
        members = created.children()
        if codec.number(codec.first(members, IeType.PDR_ID), 2) == pdr:
            teid = codec.first(members, IeType.F_TEID)
            if teid is not None and len(teid.data) >= 9 and teid.data[0] & 1:
                return socket.inet_ntoa(teid.data[5:9]), int.from_bytes(teid.data[1:5], "big")
    raise codec.PfcpError(f"the user plane has not chosen a tunnel for PDR {pdr}")
