"""What the CTF changes in the SMF's rules on their way to the UPF, and nothing else of them.

The SMF's usage reporting rules stay its own. The CTF adds one rule to every PDR that carries the customer's traffic, so
that one counter stands for the whole session: all QoS flows, both directions, one quota.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvnobox.pfcp.codec import (
    DROP,
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
    volume_quota,
    volume_threshold,
)

# Source interfaces of the customer's traffic (clause 8.2.2): access (uplink) and core (downlink).
_TRAFFIC = (0, 1)
# The highest that Open5GS's UPF takes (OGS_MAX_NUM_OF_URR); its SMF counts from 1.
OWN_URR = 16
# While the gate is closed some user planes (Open5GS) count what they drop. It is reported in portions of this size, by
# which it is known: reports of what passed before may come later than the gate's closing is acknowledged.
CLOSED_THRESHOLD = 65_536
# Measurement Method (clause 8.2.40): volume.
_BY_VOLUME = 2


class UrrTaken(Exception):
    """The SMF uses the number of the CTF's own usage reporting rule."""


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


def far_actions(ies: Sequence[Ie]) -> dict[int, bytes]:
    """FAR ID → Apply Action octets that Create FAR and Update FAR elements ask for."""
    found = {}
    for ie in ies:
        if ie.type in (IeType.CREATE_FAR, IeType.UPDATE_FAR):
            members = ie.children()
            action = first(members, IeType.APPLY_ACTION)
            if action is not None and action.data:
                found[number(first(members, IeType.FAR_ID), 4)] = action.data
    return found


def removed_fars(ies: Sequence[Ie]) -> list[int]:
    """The FARs that Remove FAR elements take away."""
    return [number(first(ie.children(), IeType.FAR_ID), 4) for ie in ies if ie.type == IeType.REMOVE_FAR]


def _dropping(action: bytes) -> bytes:
    """DROP, as long as the SMF's own Apply Action: peers differ in whether they expect one octet or two."""
    return bytes([DROP]).ljust(len(action), b"\0")


def _closed(far: Ie) -> Ie:
    members = [
        Ie(member.type, _dropping(member.data)) if member.type == IeType.APPLY_ACTION else member
        for member in far.children()
    ]
    return group(far.type, members)


def _counted(pdr: Ie, own: int) -> Ie:
    """A PDR with the CTF's rule beside the SMF's."""
    members = pdr.children()
    if pdr.type == IeType.CREATE_PDR:
        pdi = first(members, IeType.PDI)
        source = first(pdi.children(), IeType.SOURCE_INTERFACE) if pdi is not None else None
        counts = source is not None and bool(source.data) and source.data[0] & 0xF in _TRAFFIC
    else:
        # URR IDs in an Update PDR replace those that the PDR had (clause 7.5.4.2).
        counts = first(members, IeType.URR_ID) is not None
    return group(pdr.type, [*members, u32(IeType.URR_ID, own)]) if counts else pdr


def adapt(ies: Sequence[Ie], *, own: int, open_: bool) -> list[Ie]:
    """The SMF's elements as the UPF gets them. Raises UrrTaken, PfcpError."""
    out = []
    for ie in ies:
        if ie.type == IeType.CREATE_URR and number(first(ie.children(), IeType.URR_ID), 4) == own:
            raise UrrTaken(f"URR {own} is the CTF's")
        if ie.type in (IeType.CREATE_PDR, IeType.UPDATE_PDR):
            out.append(_counted(ie, own))
        elif ie.type in (IeType.CREATE_FAR, IeType.UPDATE_FAR) and not open_:
            out.append(_closed(ie))
        else:
            out.append(ie)
    return out


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


def gate(fars: dict[int, bytes], *, open_: bool) -> list[Ie]:
    """Update FAR elements that open the gate (what the SMF wants) or close it (drop)."""
    return [
        group(
            IeType.UPDATE_FAR,
            [u32(IeType.FAR_ID, far), Ie(IeType.APPLY_ACTION, action if open_ else _dropping(action))],
        )
        for far, action in sorted(fars.items())
    ]


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
