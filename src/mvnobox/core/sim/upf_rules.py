"""A user plane's rules: PDR, FAR and URR as the PFCP messages make and change them (TS 29.244 clause 5.2)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType

ACCESS = 0


@dataclass
class Urr:
    """A usage reporting rule with its counters, octets since the last report."""

    id: int
    threshold: int = 0
    total: int = 0
    uplink: int = 0
    downlink: int = 0
    sequence: int = 0

    def report(self, trigger: int) -> list[Ie]:
        """The members of a usage report of what was counted; the counters start anew."""
        members = [
            codec.u32(IeType.URR_ID, self.id),
            codec.u32(IeType.UR_SEQN, self.sequence),
            Ie(IeType.USAGE_REPORT_TRIGGER, bytes([trigger & 0xFF, trigger >> 8, 0])),
            Ie(IeType.VOLUME_MEASUREMENT, b"\x07" + struct.pack(">QQQ", self.total, self.uplink, self.downlink)),
        ]
        self.sequence += 1
        self.total = self.uplink = self.downlink = 0
        return members


@dataclass
class Far:
    """A forwarding action rule; `peer` is (address, TEID) of an outer header, None towards the data network."""

    id: int
    action: int = codec.DROP
    peer: tuple[str, int] | None = None


@dataclass
class Pdr:
    """A packet detection rule."""

    id: int
    source: int
    precedence: int = 0
    teid: int | None = None
    address: bytes | None = None
    far: int = 0
    urrs: list[int] = field(default_factory=list)


@dataclass
class Session:
    """One PFCP session of the user plane."""

    seid: int
    cp_seid: int
    cp_address: str
    pdrs: dict[int, Pdr] = field(default_factory=dict)
    fars: dict[int, Far] = field(default_factory=dict)
    urrs: dict[int, Urr] = field(default_factory=dict)
    unacknowledged: list[list[Ie]] = field(default_factory=list)
    told_of_downlink: bool = False


def _far(far: Far, members: Sequence[Ie]) -> None:
    action = codec.first(members, IeType.APPLY_ACTION)
    if action is not None:
        far.action = codec.number(action, 1)
    parameters = codec.first(members, IeType.FORWARDING_PARAMETERS) or codec.first(
        members, IeType.UPDATE_FORWARDING_PARAMETERS
    )
    outer = codec.first(parameters.children(), IeType.OUTER_HEADER_CREATION) if parameters is not None else None
    if outer is not None and len(outer.data) >= 10:
        (teid,) = struct.unpack_from(">I", outer.data, 2)
        far.peer = (str(ipaddress.IPv4Address(outer.data[6:10])), teid)


def _urr(urr: Urr, members: Sequence[Ie]) -> None:
    threshold = codec.first(members, IeType.VOLUME_THRESHOLD)
    if threshold is not None:
        urr.threshold = codec.parse_volume(threshold)[0]


def _pdr(pdr: Pdr, members: Sequence[Ie], new_teid: int) -> None:
    precedence, far = codec.first(members, IeType.PRECEDENCE), codec.first(members, IeType.FAR_ID)
    if precedence is not None:
        pdr.precedence = codec.number(precedence, 4)
    if far is not None:
        pdr.far = codec.number(far, 4)
    urrs = [codec.number(ie, 4) for ie in members if ie.type == IeType.URR_ID]
    if urrs:
        pdr.urrs = urrs
    pdi = codec.first(members, IeType.PDI)
    if pdi is None:
        return
    parts = pdi.children()
    teid = codec.first(parts, IeType.F_TEID)
    if teid is not None and teid.data:
        # CHOOSE (clause 8.2.3): the user plane picks.
        pdr.teid = new_teid if teid.data[0] & 4 else codec.number(Ie(teid.type, teid.data[1:5]), 4)
    address = codec.first(parts, IeType.UE_IP_ADDRESS)
    if address is not None and len(address.data) >= 5 and address.data[0] & 2:
        pdr.address = address.data[1:5]


def apply(session: Session, ies: Sequence[Ie], new_teid: int) -> list[Pdr]:
    """Make, change and remove rules as a request's elements say; the PDRs that were made. Raises PfcpError."""
    made = []
    for ie in ies:
        if ie.type in (IeType.CREATE_FAR, IeType.UPDATE_FAR):
            members = ie.children()
            identity = codec.number(codec.first(members, IeType.FAR_ID), 4)
            _far(session.fars.setdefault(identity, Far(identity)), members)
        elif ie.type in (IeType.CREATE_URR, IeType.UPDATE_URR):
            members = ie.children()
            identity = codec.number(codec.first(members, IeType.URR_ID), 4)
            _urr(session.urrs.setdefault(identity, Urr(identity)), members)
        elif ie.type in (IeType.CREATE_PDR, IeType.UPDATE_PDR):
            members = ie.children()
            identity = codec.number(codec.first(members, IeType.PDR_ID), 2)
            source = ACCESS
            pdi = codec.first(members, IeType.PDI)
            if pdi is not None:
                source = codec.number(codec.first(pdi.children(), IeType.SOURCE_INTERFACE), 1) & 0xF
            pdr = session.pdrs.setdefault(identity, Pdr(identity, source))
            _pdr(pdr, members, new_teid)
            if ie.type == IeType.CREATE_PDR:
                made.append(pdr)
        elif ie.type == IeType.REMOVE_PDR:
            session.pdrs.pop(codec.number(codec.first(ie.children(), IeType.PDR_ID), 2), None)
        elif ie.type == IeType.REMOVE_FAR:
            session.fars.pop(codec.number(codec.first(ie.children(), IeType.FAR_ID), 4), None)
    return made
