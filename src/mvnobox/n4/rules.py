"""What the CTF changes in the SMF's rules on their way to the UPF, and nothing else of them.

The SMF's usage reporting rules stay its own. The CTF adds one rule to every PDR that carries the customer's traffic, so
that one counter stands for the whole session: all QoS flows, both directions, one quota.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvnobox.n4.forwarding import (
    ACCESS,
    CORE,
    CP,
    Detour,
    Forwarding,
    NumberTaken,
    adapt_fars,
    renumbered,
    source_of,
)
from mvnobox.pfcp.codec import (
    TRIGGER_VOLUME_QUOTA,
    TRIGGER_VOLUME_THRESHOLD,
    Ie,
    IeType,
    first,
    group,
    number,
    parse_volume,
    u8,
    u32,
    ue_addresses,
    volume_quota,
    volume_threshold,
)

# The highest that Open5GS's UPF takes (OGS_MAX_NUM_OF_URR); its SMF counts from 1.
OWN_URR = 16
# While the gate is closed some user planes (Open5GS) count what they drop. It is reported in portions of this size, by
# which it is known: reports of what passed before may come later than the gate's closing is acknowledged.
CLOSED_THRESHOLD = 65_536
# Measurement Method (clause 8.2.40): volume.
_BY_VOLUME = 2


# MBR (clause 8.2.8): kbit/s in five octets, uplink before downlink; the most that they can say stands for no limit.
_MOST = (1 << 40) - 1


@dataclass(frozen=True, slots=True)
class Throttle:
    """The rates that a session is slowed to, bit/s."""

    uplink: int
    downlink: int

    def mbr(self, wanted: bytes) -> bytes:
        """An MBR's octets: these rates, or the SMF's where it wants lower ones (0 is what SMFs send for none)."""
        both = int.from_bytes(wanted[:10].rjust(10, b"\0"), "big")
        out = b""
        for ours, theirs in ((self.uplink, both >> 40), (self.downlink, both & _MOST)):
            rate = min(max(1, ours // 1000), _MOST)
            out += min(rate, theirs or rate).to_bytes(5, "big")
        return out


@dataclass(frozen=True, slots=True)
class Limits:
    """What the UPF is told in octets since its last report: when to report, when to stop (None: no quota)."""

    threshold: int
    quota: int | None = None

    def ies(self) -> list[Ie]:
        quota = [] if self.quota is None else [volume_quota(self.quota)]
        return [volume_threshold(self.threshold), *quota]


CLOSED = Limits(CLOSED_THRESHOLD)


def is_of_dropped(octets: int) -> bool:
    """Whether a report is as large as those of a closed gate: its threshold and at most a packet more."""
    return CLOSED_THRESHOLD <= octets <= 2 * CLOSED_THRESHOLD


def limits(granted: int, *, quantum: int, final: bool) -> Limits:
    """The limits for a granted quota.

    A report comes well before the quota ends, so that the next one is there in time; at the end of the credit there is
    nothing to ask for any more, and the quota's end itself is what is reported.
    """
    if granted <= 0:
        return CLOSED
    threshold = min(quantum, granted if final else max(1, granted * 4 // 5))
    return Limits(CLOSED_THRESHOLD - 1 if is_of_dropped(threshold) else threshold, granted)


def qer_rates(ies: Sequence[Ie], known: dict[int, bytes]) -> dict[int, bytes]:
    """QER ID → MBR octets (none: empty) that the SMF wants, after a request over what it wanted before."""
    found = dict(known)
    for ie in ies:
        if ie.type == IeType.CREATE_QER:
            found[_identity(ie, IeType.QER_ID)] = ie.member(IeType.MBR) or b""
        elif ie.type == IeType.UPDATE_QER:
            rate = ie.member(IeType.MBR)
            if rate is not None:
                found[_identity(ie, IeType.QER_ID)] = rate
        elif ie.type == IeType.REMOVE_QER:
            found.pop(_identity(ie, IeType.QER_ID), None)
    return found


def addresses(ies: Sequence[Ie]) -> set[str]:
    """The UE's addresses and prefixes in Create PDR, Update PDR and (chosen by the UPF) Created PDR elements."""
    found: set[str] = set()
    for ie in ies:
        if ie.type in (IeType.CREATE_PDR, IeType.UPDATE_PDR):
            pdi = ie.member(IeType.PDI)
            held = Ie(IeType.PDI, pdi).member(IeType.UE_IP_ADDRESS) if pdi is not None else None
        elif ie.type == IeType.CREATED_PDR:
            held = ie.member(IeType.UE_IP_ADDRESS)
        else:
            continue
        if held is not None:
            found.update(ue_addresses(Ie(IeType.UE_IP_ADDRESS, held)))
    return found


def _identity(ie: Ie, type_: int) -> int:
    return number(Ie(type_, ie.member(type_) or b""), 4)


def _pdr(pdr: Ie, own: Ie, forwarding: Forwarding) -> Ie:
    """A PDR with the CTF's rule (its URR ID) beside the SMF's, if it carries the customer's traffic."""
    to = pdr.member(IeType.FAR_ID)
    far = number(Ie(IeType.FAR_ID, to), 4) if to is not None else None
    if pdr.type == IeType.CREATE_PDR:
        source = source_of(pdr)
        carrier = forwarding.control.get(far) if source == CP and far is not None else None
        if carrier is not None and carrier != far:
            return renumbered(pdr, carrier)
        counts = source in (ACCESS, CORE)
    else:
        # URR IDs in an Update PDR replace those that the PDR had (clause 7.5.4.2).
        counts = pdr.member(IeType.URR_ID) is not None
    if far is not None and forwarding.is_control(far):
        counts = False
    return Ie(pdr.type, pdr.data + own.encode()) if counts else pdr


def _throttled(qer: Ie, throttle: Throttle) -> Ie:
    """A QER of the SMF's at no more than the throttle's rate; an update that leaves the rate alone leaves it."""
    members = qer.children()
    wanted = first(members, IeType.MBR)
    if wanted is None and qer.type == IeType.UPDATE_QER:
        return qer
    slowed = Ie(IeType.MBR, throttle.mbr(wanted.data if wanted is not None else b""))
    if wanted is None:
        return group(qer.type, [*members, slowed])
    return group(qer.type, [slowed if member.type == IeType.MBR else member for member in members])


def adapt(
    ies: Sequence[Ie],
    forwarding: Forwarding,
    *,
    own: int,
    open_: bool,
    detour: Detour | None = None,
    throttle: Throttle | None = None,
) -> list[Ie]:
    """The SMF's elements as the UPF gets them; `forwarding` is as they make it. Raises NumberTaken, PfcpError."""
    out: list[Ie] = []
    counts = u32(IeType.URR_ID, own)
    for ie in ies:
        match ie.type:
            case IeType.CREATE_URR if _identity(ie, IeType.URR_ID) == own:
                raise NumberTaken(f"URR {own} is the CTF's")
            case IeType.CREATE_PDR | IeType.UPDATE_PDR:
                out.append(_pdr(ie, counts, forwarding))
            case IeType.CREATE_FAR | IeType.UPDATE_FAR | IeType.REMOVE_FAR:
                out += adapt_fars(ie, forwarding, open_=open_, detour=detour)
            case IeType.CREATE_QER | IeType.UPDATE_QER if throttle is not None:
                out.append(_throttled(ie, throttle))
            case _:
                out.append(ie)
    return out


def rates(qers: dict[int, bytes], throttle: Throttle | None) -> list[Ie]:
    """Update QER elements that slow the session's flows to a throttle, or give back what the SMF wants."""
    free = _MOST.to_bytes(5, "big") * 2
    return [
        group(
            IeType.UPDATE_QER,
            [u32(IeType.QER_ID, qer), Ie(IeType.MBR, (wanted or free) if throttle is None else throttle.mbr(wanted))],
        )
        for qer, wanted in sorted(qers.items())
    ]


def create_urr(own: int, limit: Limits) -> Ie:
    """The CTF's usage reporting rule."""
    # Three octets: Open5GS reads no fewer.
    triggers = Ie(IeType.REPORTING_TRIGGERS, bytes([TRIGGER_VOLUME_THRESHOLD, TRIGGER_VOLUME_QUOTA, 0]))
    return group(
        IeType.CREATE_URR,
        [u32(IeType.URR_ID, own), u8(IeType.MEASUREMENT_METHOD, _BY_VOLUME), triggers, *limit.ies()],
    )


def update_urr(own: int, limit: Limits) -> Ie:
    """New limits for the CTF's rule. The triggers stay: Open5GS 2.7 reads them in reverse order in an update."""
    return group(IeType.UPDATE_URR, [u32(IeType.URR_ID, own), *limit.ies()])


def query_urr(own: int) -> Ie:
    """Asks for what the CTF's rule has counted so far (clause 7.5.4.10)."""
    return group(IeType.QUERY_URR, [u32(IeType.URR_ID, own)])


Report = tuple[int, int, tuple[int, int, int]]
_USAGE = (IeType.USAGE_REPORT_REPORT, IeType.USAGE_REPORT_MODIFICATION, IeType.USAGE_REPORT_DELETION)


def split_usage(ies: Sequence[Ie], own: int) -> tuple[list[Report], list[Ie]]:
    """(URR ID, UR-SEQN, (total, uplink, downlink) octets) of the CTF's own rule, and the elements that are the SMF's."""
    found: list[Report] = []
    rest = []
    for ie in ies:
        members = ie.children() if ie.type in _USAGE else []
        if members and number(first(members, IeType.URR_ID), 4) == own:
            sequence = number(first(members, IeType.UR_SEQN), 4)
            found.append((own, sequence, parse_volume(first(members, IeType.VOLUME_MEASUREMENT))))
        else:
            rest.append(ie)
    return found, rest
