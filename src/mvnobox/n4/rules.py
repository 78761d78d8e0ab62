"""What the CTF changes in the SMF's rules on their way to the UPF, and nothing else of them."""

from __future__ import annotations

from collections.abc import Sequence

from mvnobox.pfcp.codec import (
    DROP,
    TRIGGER_VOLUME_THRESHOLD,
    Ie,
    IeType,
    first,
    group,
    number,
    parse_volume,
    u8,
    u32,
    volume_threshold,
)

# Source interfaces of the customer's traffic (clause 8.2.2): access (uplink) and core (downlink).
_TRAFFIC = (0, 1)
# Used where an SMF installs no URR of its own.
OWN_URR = 0x00FF
_DROP = bytes([DROP])


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


def urr_ids(ies: Sequence[Ie]) -> list[int]:
    """The URRs that Create URR elements make."""
    return [number(first(ie.children(), IeType.URR_ID), 4) for ie in ies if ie.type == IeType.CREATE_URR]


def removed_fars(ies: Sequence[Ie]) -> list[int]:
    """The FARs that Remove FAR elements take away."""
    return [number(first(ie.children(), IeType.FAR_ID), 4) for ie in ies if ie.type == IeType.REMOVE_FAR]


def _with(members: Sequence[Ie], replacement: Ie) -> list[Ie]:
    """Members with one element put in the place of those of its type, or at the end."""
    out, done = [], False
    for member in members:
        if member.type != replacement.type:
            out.append(member)
        elif not done:
            out.append(replacement)
            done = True
    return out if done else [*out, replacement]


def _triggers(members: Sequence[Ie]) -> Ie:
    old = first(members, IeType.REPORTING_TRIGGERS)
    data = bytearray(old.data if old is not None and old.data else b"\0\0\0")
    data[0] |= TRIGGER_VOLUME_THRESHOLD
    return Ie(IeType.REPORTING_TRIGGERS, bytes(data))


def adapt(
    ies: Sequence[Ie], *, threshold: int, open_: bool, known_urrs: Sequence[int] = ()
) -> tuple[list[Ie], list[int]]:
    """The SMF's elements as the UPF gets them, and the URRs that count.

    Volume thresholds become the quota's; PDRs of the customer's traffic get a URR so that both directions count;
    while the gate is closed every FAR drops.
    """
    created = urr_ids(ies)
    counting = [*known_urrs, *created]
    extra: list[Ie] = []
    if not counting and any(ie.type == IeType.CREATE_PDR for ie in ies):
        # Measurement Method: volume (clause 8.2.40).
        extra.append(
            group(
                IeType.CREATE_URR,
                [
                    u32(IeType.URR_ID, OWN_URR),
                    u8(IeType.MEASUREMENT_METHOD, 2),
                    _triggers([]),
                    volume_threshold(threshold),
                ],
            )
        )
        counting = [OWN_URR]
    out = []
    for ie in ies:
        if ie.type in (IeType.CREATE_URR, IeType.UPDATE_URR):
            members = ie.children()
            out.append(group(ie.type, _with(_with(members, _triggers(members)), volume_threshold(threshold))))
        elif ie.type == IeType.CREATE_PDR:
            members = ie.children()
            pdi = first(members, IeType.PDI)
            source = first(pdi.children(), IeType.SOURCE_INTERFACE) if pdi is not None else None
            traffic = source is not None and source.data and source.data[0] & 0xF in _TRAFFIC
            if traffic and first(members, IeType.URR_ID) is None and counting:
                ie = group(ie.type, [*members, u32(IeType.URR_ID, counting[0])])
            out.append(ie)
        elif ie.type in (IeType.CREATE_FAR, IeType.UPDATE_FAR) and not open_:
            members = ie.children()
            wants = first(members, IeType.APPLY_ACTION)
            out.append(group(ie.type, _with(members, Ie(IeType.APPLY_ACTION, _DROP))) if wants is not None else ie)
        else:
            out.append(ie)
    return [*out, *extra], counting


def gate(fars: dict[int, bytes], *, open_: bool) -> list[Ie]:
    """Update FAR elements that open the gate (what the SMF wants) or close it (drop)."""
    return [
        group(
            IeType.UPDATE_FAR,
            [u32(IeType.FAR_ID, far), Ie(IeType.APPLY_ACTION, action if open_ else _DROP)],
        )
        for far, action in sorted(fars.items())
    ]


def thresholds(urrs: Sequence[int], threshold: int) -> list[Ie]:
    """Update URR elements with a new volume threshold."""
    return [group(IeType.UPDATE_URR, [u32(IeType.URR_ID, urr), volume_threshold(threshold)]) for urr in urrs]


Report = tuple[int, int, tuple[int, int, int]]


def usage_reports(ies: Sequence[Ie]) -> list[Report]:
    """(URR ID, UR-SEQN, (total, uplink, downlink) octets) of every Usage Report."""
    found = []
    for ie in ies:
        if ie.type in (
            IeType.USAGE_REPORT_REPORT,
            IeType.USAGE_REPORT_MODIFICATION,
            IeType.USAGE_REPORT_DELETION,
        ):
            members = ie.children()
            urr = number(first(members, IeType.URR_ID), 4)
            sequence = number(first(members, IeType.UR_SEQN), 4)
            found.append((urr, sequence, parse_volume(first(members, IeType.VOLUME_MEASUREMENT))))
    return found
