"""A user plane's rules: PDR, FAR, QER and URR as the PFCP messages make and change them (TS 29.244 clause 5.2)."""

from __future__ import annotations

import copy
import ipaddress
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mvnobox.core.sim.elements import Also
from mvnobox.core.sim.shaper import Shaper
from mvnobox.core.sim.usage import Urr
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType, PfcpError

ACCESS, CORE, CP = 0, 1, 3
# The one filter that is understood: router solicitations, which go to the control plane.
_SOLICITATIONS = b"permit out 58 from ff02::2/128 to assigned"
# Packets that a FAR with BUFF holds back.
BUFFERED_PACKETS = 64


@dataclass
class Far:
    """A forwarding action rule; `peer` is (address, TEID) of an outer header, None towards the data network."""

    id: int
    action: int = codec.DROP
    destination: int = CORE
    peer: tuple[str, int] | None = None
    # Held back packets with the PDR that matched them.
    held: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass
class Qer:
    """A QoS enforcement rule: gates, maximum bit rates, the QFI."""

    id: int
    uplink_open: bool = True
    downlink_open: bool = True
    qfi: int = 1
    uplink: Shaper = field(default_factory=Shaper)
    downlink: Shaper = field(default_factory=Shaper)


@dataclass
class Pdr:
    """A packet detection rule."""

    id: int
    source: int
    precedence: int = 0
    teid: int | None = None
    # The UE's IPv4 address, its /64 and the interface identifier of its link-local address, eight octets each.
    address: bytes | None = None
    prefix: bytes | None = None
    identifier: bytes | None = None
    # Whether it has a filter, and whether that is the one for router solicitations.
    filtered: bool = False
    solicitations: bool = False
    far: int = 0
    qer: int = 0
    urrs: list[int] = field(default_factory=list)

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """What packets for the UE are known by: the IPv4 address (four octets) and the /64 (eight)."""
        return tuple(one for one in (self.address, self.prefix) if one is not None)


@dataclass
class Session:
    """One PFCP session of the user plane."""

    seid: int
    cp_seid: int
    cp_address: str
    node: bytes = b""
    pdrs: dict[int, Pdr] = field(default_factory=dict)
    fars: dict[int, Far] = field(default_factory=dict)
    qers: dict[int, Qer] = field(default_factory=dict)
    urrs: dict[int, Urr] = field(default_factory=dict)
    # Usage reports (their members) that the control plane has not acknowledged.
    unacknowledged: list[list[Ie]] = field(default_factory=list)
    told_of_downlink: bool = False


def _far(far: Far, members: Sequence[Ie]) -> None:
    action = codec.first(members, IeType.APPLY_ACTION)
    if action is not None:
        far.action = codec.number(action, 1)
        if not far.action & (codec.BUFF | codec.FORW):
            far.held.clear()
    parameters = codec.first(members, IeType.FORWARDING_PARAMETERS) or codec.first(
        members, IeType.UPDATE_FORWARDING_PARAMETERS
    )
    told = parameters.children() if parameters is not None else []
    destination = codec.first(told, IeType.DESTINATION_INTERFACE)
    if destination is not None:
        far.destination = codec.number(destination, 1) & 0xF
    outer = codec.first(told, IeType.OUTER_HEADER_CREATION)
    if outer is not None:
        # GTP-U over UDP over IPv4 is what there is (clause 8.2.56, first octet, bit 1).
        if len(outer.data) < 10 or not outer.data[0] & 1:
            raise PfcpError("an outer header other than GTP-U over IPv4")
        (teid,) = struct.unpack_from(">I", outer.data, 2)
        far.peer = (str(ipaddress.IPv4Address(outer.data[6:10])), teid)


def _qer(qer: Qer, members: Sequence[Ie]) -> None:
    gate = codec.first(members, IeType.GATE_STATUS)
    if gate is not None:
        # Clause 8.2.7: uplink in bits 4 and 3, downlink in bits 2 and 1, 0 is open.
        value = codec.number(gate, 1)
        qer.uplink_open, qer.downlink_open = not value >> 2 & 3, not value & 3
    rate = codec.first(members, IeType.MBR)
    if rate is not None:
        # Clause 8.2.8: kbit/s, 5 octets each.
        both = codec.number(rate, 10)
        for shaper, kilobits in ((qer.uplink, both >> 40), (qer.downlink, both & (1 << 40) - 1)):
            shaper.rate = kilobits * 125
    qfi = codec.first(members, IeType.QFI)
    if qfi is not None:
        qer.qfi = codec.number(qfi, 1) & 0x3F


def _pdr(pdr: Pdr, members: Sequence[Ie], choose: Callable[[int | None], int]) -> None:
    for type_, octets, name in (
        (IeType.PRECEDENCE, 4, "precedence"),
        (IeType.FAR_ID, 4, "far"),
        (IeType.QER_ID, 4, "qer"),
    ):
        ie = codec.first(members, type_)
        if ie is not None:
            setattr(pdr, name, codec.number(ie, octets))
    urrs = [codec.number(ie, 4) for ie in members if ie.type == IeType.URR_ID]
    if urrs:
        pdr.urrs = urrs
    pdi = codec.first(members, IeType.PDI)
    if pdi is None:
        return
    parts = pdi.children()
    pdr.source = codec.number(codec.first(parts, IeType.SOURCE_INTERFACE), 1) & 0xF
    teid = codec.first(parts, IeType.F_TEID)
    if teid is not None:
        flags = codec.number(teid, 1)
        if flags & 4:
            # CHOOSE (clause 8.2.3): we pick; rules with the same CHOOSE ID share a tunnel.
            pdr.teid = choose(codec.number(Ie(teid.type, teid.data[1:]), 1) if flags & 8 else None)
        else:
            pdr.teid = codec.number(Ie(teid.type, teid.data[1:]), 4)
    address = codec.first(parts, IeType.UE_IP_ADDRESS)
    if address is not None:
        _ue(pdr, address)
    # Others are not evaluated: what Open5GS's SMF sends in 5G's default flow is about router solicitations only.
    sdf = codec.first(parts, Also.SDF_FILTER)
    pdr.filtered, pdr.solicitations = sdf is not None, sdf is not None and _SOLICITATIONS in sdf.data


def _ue(pdr: Pdr, address: Ie) -> None:
    """The addresses in a UE IP Address (clause 8.2.62)."""
    flags, offset = codec.number(address, 1), 1
    if flags & 2:
        if len(address.data) < offset + 4:
            raise PfcpError("a UE IP Address is cut off")
        pdr.address, offset = address.data[offset : offset + 4], offset + 4
    if flags & 1:
        if len(address.data) < offset + 16:
            raise PfcpError("a UE IP Address is cut off")
        pdr.prefix, pdr.identifier = address.data[offset : offset + 8], address.data[offset + 8 : offset + 16]


def _identity(members: Sequence[Ie], type_: int) -> int:
    return codec.number(codec.first(members, type_), 2 if type_ == IeType.PDR_ID else 4)


def apply(session: Session, ies: Sequence[Ie], new_teid: Callable[[], int]) -> tuple[list[Pdr], list[Urr]]:
    """Make, change and remove rules as a request's elements say: all of them or, with PfcpError, none.

    Gives the PDRs that were made and the URRs that were removed, whose last report is due.
    """
    pdrs = {key: copy.copy(pdr) for key, pdr in session.pdrs.items()}
    fars = {key: copy.copy(far) for key, far in session.fars.items()}
    qers = {key: copy.copy(qer) for key, qer in session.qers.items()}
    urrs = dict(session.urrs)
    changes: list[tuple[Urr, Sequence[Ie]]] = []
    made: list[Pdr] = []
    removed: list[Urr] = []
    chosen: dict[int, int] = {}

    def choose(identity: int | None) -> int:
        return new_teid() if identity is None else chosen.setdefault(identity, new_teid())

    for ie in ies:
        match ie.type:
            case IeType.CREATE_FAR | IeType.UPDATE_FAR:
                members = ie.children()
                identity = _identity(members, IeType.FAR_ID)
                _far(fars.setdefault(identity, Far(identity)), members)
            case IeType.CREATE_URR | IeType.UPDATE_URR:
                members = ie.children()
                identity = _identity(members, IeType.URR_ID)
                urr = urrs.setdefault(identity, Urr(identity))
                # Tried on a copy: a counter that runs must not change with a request that is refused.
                copy.deepcopy(urr).change(members)
                changes.append((urr, members))
            case IeType.CREATE_QER | IeType.UPDATE_QER:
                members = ie.children()
                identity = _identity(members, IeType.QER_ID)
                _qer(qers.setdefault(identity, Qer(identity)), members)
            case IeType.CREATE_PDR | IeType.UPDATE_PDR:
                members = ie.children()
                identity = _identity(members, IeType.PDR_ID)
                if ie.type == IeType.CREATE_PDR:
                    if codec.first(members, IeType.PDI) is None:
                        raise PfcpError("a Create PDR has no PDI")
                    made.append(pdrs.setdefault(identity, Pdr(identity, ACCESS)))
                elif identity not in pdrs:
                    raise PfcpError(f"there is no PDR {identity}")
                _pdr(pdrs[identity], members, choose)
            case IeType.REMOVE_PDR:
                pdrs.pop(_identity(ie.children(), IeType.PDR_ID), None)
            case IeType.REMOVE_FAR:
                fars.pop(_identity(ie.children(), IeType.FAR_ID), None)
            case IeType.REMOVE_QER:
                qers.pop(_identity(ie.children(), IeType.QER_ID), None)
            case IeType.REMOVE_URR:
                gone = urrs.pop(_identity(ie.children(), IeType.URR_ID), None)
                if gone is not None:
                    removed.append(gone)
    for urr, asked in changes:
        urr.change(asked)
    session.pdrs, session.fars, session.qers, session.urrs = pdrs, fars, qers, urrs
    return made, removed
