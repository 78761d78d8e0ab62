"""What the CTF changes in the SMF's forwarding: the gate of a session, and the control plane's own packets past it.

A closed gate drops the customer's packets. Router solicitations, which a UPF hands to the SMF, and the advertisements that
come back (TS 29.244 clause 5.3.3) are the network's own: they are not counted, and a closed gate does not stop them, or a
customer without credit would have no IPv6 address when the credit is back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mvnobox.pfcp.codec import DROP, Ie, IeType, decode_ies, group, gtp_u_header, number, u8, u32

# Interfaces (clause 8.2.2): the customer's traffic comes from access (uplink) and core (downlink).
ACCESS, CORE, CP = 0, 1, 3
# The CTF's own FARs have the highest numbers that a CP function may give (clause 8.2.74).
OWN_FAR, OWN_FARS = 0x7FFF_FFFF, 16
_FARS = (IeType.CREATE_FAR, IeType.UPDATE_FAR)


class NumberTaken(Exception):
    """The SMF uses the number of one of the CTF's own rules."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A session's FARs as the SMF wants them, by FAR ID."""

    # Apply Action octets of those that carry the customer's traffic.
    actions: Mapping[int, bytes] = field(default_factory=dict)
    # The elements that say where, of those that lead to the data network.
    towards: Mapping[int, bytes] = field(default_factory=dict)
    # Those that carry the control plane's packets: themselves, or the CTF's own FAR that does it in their place.
    control: Mapping[int, int] = field(default_factory=dict)

    def after(self, ies: Sequence[Ie], *, ipv6: bool) -> Forwarding:
        """As it is after a request of the SMF's; `ipv6`: whether the UE has that. Raises NumberTaken, PfcpError."""
        actions, towards, control = dict(self.actions), dict(self.towards), dict(self.control)
        for ie in ies:
            if ie.type in _FARS:
                far = far_of(ie)
                if far > OWN_FAR - OWN_FARS:
                    raise NumberTaken(f"FAR {far} is the CTF's")
                action, where = ie.member(IeType.APPLY_ACTION), _destination(ie)
                if action:
                    actions[far] = action
                if where is not None:
                    _note(far, where, towards, control)
            elif ie.type == IeType.REMOVE_FAR:
                for known in (actions, towards, control):
                    known.pop(far_of(ie), None)
        if ipv6:
            control |= _twins(ies, control)
        for far, carrier in control.items():
            if far == carrier:
                actions.pop(far, None)
        return Forwarding(actions, towards, control)

    def is_control(self, far: int) -> bool:
        """Whether a FAR carries the control plane's packets only."""
        return self.control.get(far) == far


def _note(far: int, where: Sequence[Ie], towards: dict[int, bytes], control: dict[int, int]) -> None:
    destination = where[0].data[0] & 0xF if where[0].data else ACCESS
    if destination == CP:
        control[far] = far
    if destination == CORE:
        towards[far] = b"".join(one.encode() for one in where)
    else:
        towards.pop(far, None)


def _twins(ies: Sequence[Ie], control: Mapping[int, int]) -> dict[int, int]:
    """FARs that new PDRs share for packets from the control plane and from the data network: the former get their own."""
    of_traffic, of_control = set(), []
    for ie in ies:
        if ie.type == IeType.CREATE_PDR:
            far = ie.member(IeType.FAR_ID)
            if far is not None:
                found = number(Ie(IeType.FAR_ID, far), 4)
                if source_of(ie) in (ACCESS, CORE):
                    of_traffic.add(found)
                elif source_of(ie) == CP and found not in control:
                    of_control.append(found)
    made: dict[int, int] = {}
    taken = sum(far != carrier for far, carrier in control.items())
    for shared in dict.fromkeys(of_control):
        made[shared] = shared
        if shared in of_traffic and taken < OWN_FARS:
            made[shared], taken = OWN_FAR - taken, taken + 1
    return made


def far_of(ie: Ie) -> int:
    """The FAR ID in a grouped element. Raises PfcpError."""
    return number(Ie(IeType.FAR_ID, ie.member(IeType.FAR_ID) or b""), 4)


def source_of(pdr: Ie) -> int | None:
    """A Create PDR's source interface."""
    pdi = pdr.member(IeType.PDI)
    source = Ie(IeType.PDI, pdi).member(IeType.SOURCE_INTERFACE) if pdi is not None else None
    return source[0] & 0xF if source else None


def _parameters(far: Ie) -> int:
    return IeType.FORWARDING_PARAMETERS if far.type == IeType.CREATE_FAR else IeType.UPDATE_FORWARDING_PARAMETERS


def _destination(far: Ie) -> list[Ie] | None:
    """Destination Interface and its 3GPP type, None where a FAR does not say where."""
    parameters = far.member(_parameters(far))
    if parameters is None:
        return None
    found = [ie for ie in decode_ies(parameters) if ie.type in (IeType.DESTINATION_INTERFACE, IeType.INTERFACE_TYPE)]
    found.sort(key=lambda ie: ie.type)
    return found if found and found[0].type == IeType.DESTINATION_INTERFACE else None


@dataclass(frozen=True, slots=True)
class Detour:
    """A tunnel to nobody, for a user plane that forwards uplink packets whatever the Apply Action says (Open5GS 2.7).

    What does not go to the data network is subject to the action there.
    """

    address: str
    teid: int

    def ies(self) -> list[Ie]:
        return [u8(IeType.DESTINATION_INTERFACE, CP), gtp_u_header(self.teid, self.address)]


def _dropping(action: bytes) -> bytes:
    """DROP, as long as the SMF's own Apply Action: peers differ in whether they expect one octet or two."""
    return bytes([DROP]).ljust(len(action), b"\0")


def closed(far: Ie, detour: Detour | None) -> Ie:
    """A Create FAR or Update FAR as it is behind a closed gate."""
    where = _destination(far) if detour is not None else None
    leads_out = where is not None and where[0].data[:1] != b"" and where[0].data[0] & 0xF == CORE
    out = []
    for member in far.children():
        if member.type == IeType.APPLY_ACTION:
            member = Ie(member.type, _dropping(member.data))
        elif member.type == _parameters(far) and detour is not None and leads_out:
            kept = [ie for ie in member.children() if ie.type != IeType.DESTINATION_INTERFACE]
            member = group(member.type, [*detour.ies(), *kept])
        out.append(member)
    return group(far.type, out)


def adapt_fars(ie: Ie, forwarding: Forwarding, *, open_: bool, detour: Detour | None) -> list[Ie]:
    """A Create, Update or Remove FAR as the UPF gets it, with the CTF's own beside it where there is one."""
    far = far_of(ie)
    if forwarding.is_control(far):
        return [ie]
    carrier = forwarding.control.get(far)
    own = [] if carrier is None else [renumbered(ie, carrier)]
    if ie.type in _FARS and not open_:
        ie = closed(ie, detour)
    return [ie, *own]


def renumbered(ie: Ie, far: int) -> Ie:
    """An element with another FAR ID."""
    members = [u32(IeType.FAR_ID, far) if member.type == IeType.FAR_ID else member for member in ie.children()]
    return group(ie.type, members)


def gate(forwarding: Forwarding, *, open_: bool, detour: Detour | None = None) -> list[Ie]:
    """Update FAR elements that open the gate (what the SMF wants) or close it (drop)."""
    return [_gate_of(forwarding, far, open_=open_, detour=detour) for far in sorted(forwarding.actions)]


def _gate_of(forwarding: Forwarding, far: int, *, open_: bool, detour: Detour | None) -> Ie:
    action = forwarding.actions[far]
    members: Iterable[Ie] = [
        u32(IeType.FAR_ID, far),
        Ie(IeType.APPLY_ACTION, action if open_ else _dropping(action)),
    ]
    if detour is not None and far in forwarding.towards:
        where = decode_ies(forwarding.towards[far]) if open_ else detour.ies()
        members = [*members, group(IeType.UPDATE_FORWARDING_PARAMETERS, where)]
    return group(IeType.UPDATE_FAR, members)
