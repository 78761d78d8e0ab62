"""Gates of sessions of both families: what is the customer's stops, router solicitations and advertisements do not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chf import Chf

from mvnobox.n4.forwarding import CP, OWN_FAR, Detour, Forwarding, NumberTaken, gate
from mvnobox.n4.rules import OWN_URR, adapt
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import BUFF, DROP, FORW, NOCP, Ie, IeType, Message, Type

from .conftest import CTF, QUANTUM, SMF, Bench, placed, until
from .replay import Replay, actions, messages

pytestmark = pytest.mark.timeout(60)
# Open5GS's rules of a session: 1 downlink, 2 uplink, 3 from the SMF to the UE, 4 router solicitations to the SMF.
# Its FARs: 1 to the gNB (also of what the SMF sends), 2 to the data network, 3 to the SMF.
BOTH = messages("ipv4v6", "establishment-ipv4v6")
ESTABLISHMENT = next(m.ies for _, m in BOTH if m.is_request)
# The gNB has named its tunnel; the same whatever the session's type.
IPV4, ACTIVATION = (m.ies for _, m in messages("ipv4", "establishment") if m.is_request)
DETOUR = Detour(CTF, 0x77)
N6 = [codec.u8(IeType.DESTINATION_INTERFACE, 1), codec.u8(IeType.INTERFACE_TYPE, 17)]


def pdrs(ies: list[Ie]) -> dict[int, tuple[int, list[int]]]:
    """PDR ID → (FAR ID, URR IDs)."""
    found = {}
    for ie in ies:
        if ie.type == IeType.CREATE_PDR:
            members = ie.children()
            urrs = [codec.number(one, 4) for one in members if one.type == IeType.URR_ID]
            found[codec.number(codec.first(members, IeType.PDR_ID), 2)] = (
                codec.number(codec.first(members, IeType.FAR_ID), 4), urrs,
            )  # fmt: skip
    return found


def far(ies: list[Ie], identity: int) -> list[Ie]:
    """The members of a Create FAR or Update FAR but for its number."""
    own = codec.u32(IeType.FAR_ID, identity)
    [members] = [
        ie.children() for ie in ies if ie.type in (IeType.CREATE_FAR, IeType.UPDATE_FAR) and own in ie.children()
    ]
    return [member for member in members if member != own]


def parameters(members: list[Ie]) -> list[Ie]:
    kinds = (IeType.FORWARDING_PARAMETERS, IeType.UPDATE_FORWARDING_PARAMETERS)
    return next((member.children() for member in members if member.type in kinds), [])


def test_both_families_count_and_the_networks_own_packets_do_not() -> None:
    forwarding = Forwarding().after(ESTABLISHMENT, ipv6=True)
    assert set(forwarding.actions) == {1, 2} and forwarding.control == {3: 3, 1: OWN_FAR}
    assert codec.decode_ies(forwarding.towards[2]) == N6 and set(forwarding.towards) == {2}
    adapted = adapt(ESTABLISHMENT, forwarding, own=OWN_URR, open_=True, detour=DETOUR)
    assert pdrs(adapted) == {1: (1, [1, OWN_URR]), 2: (2, [OWN_URR]), 3: (OWN_FAR, []), 4: (3, [])}
    # The twin does what the downlink's FAR does; everything else is the SMF's, octet for octet.
    assert far(adapted, OWN_FAR) == far(ESTABLISHMENT, 1)
    for identity in (1, 2, 3):
        assert far(adapted, identity) == far(ESTABLISHMENT, identity)


def test_without_ipv6_there_is_nothing_to_advertise() -> None:
    forwarding = Forwarding().after(IPV4, ipv6=False)
    assert forwarding.control == {3: 3} and set(forwarding.actions) == {1, 2}
    adapted = adapt(IPV4, forwarding, own=OWN_URR, open_=True)
    assert pdrs(adapted) == {1: (1, [1, OWN_URR]), 2: (2, [OWN_URR]), 3: (1, []), 4: (3, [])}
    assert set(actions(adapted)) == {1, 2, 3}


@pytest.mark.parametrize("detour", [None, DETOUR])
def test_a_session_that_begins_without_credit(detour: Detour | None) -> None:
    forwarding = Forwarding().after(ESTABLISHMENT, ipv6=True)
    adapted = adapt(ESTABLISHMENT, forwarding, own=OWN_URR, open_=False, detour=detour)
    wanted = actions(ESTABLISHMENT)
    assert actions(adapted) == {1: bytes([DROP, 0]), 2: bytes([DROP, 0]), 3: wanted[3], OWN_FAR: wanted[1]}
    uplink = parameters(far(adapted, 2))
    if detour is None:
        assert uplink == parameters(far(ESTABLISHMENT, 2))
    else:
        # Not to the data network, whatever the action; name and type of the interface may stay.
        assert codec.first(uplink, IeType.DESTINATION_INTERFACE) == codec.u8(IeType.DESTINATION_INTERFACE, CP)
        assert codec.first(uplink, IeType.OUTER_HEADER_CREATION) == codec.gtp_u_header(0x77, CTF)
        assert len([ie for ie in uplink if ie.type == IeType.DESTINATION_INTERFACE]) == 1
    assert far(adapted, 3) == far(ESTABLISHMENT, 3)


def test_the_gate_and_what_the_smf_changes_behind_it() -> None:
    forwarding = Forwarding().after(ESTABLISHMENT, ipv6=True)
    closed = gate(forwarding, open_=False, detour=DETOUR)
    assert actions(closed) == {1: bytes([DROP, 0]), 2: bytes([DROP, 0])}
    assert parameters(far(closed, 2)) == DETOUR.ies() and parameters(far(closed, 1)) == []
    # The SMF points the downlink to the gNB: the twin follows, the customer's packets wait for the gate.
    forwarding = forwarding.after(ACTIVATION, ipv6=True)
    adapted = adapt(ACTIVATION, forwarding, own=OWN_URR, open_=False, detour=DETOUR)
    assert actions(adapted) == {1: bytes([DROP, 0]), OWN_FAR: bytes([FORW, 0])}
    assert parameters(far(adapted, OWN_FAR)) == parameters(far(adapted, 1)) == parameters(far(ACTIVATION, 1))
    # The SMF says where the uplink goes, behind the closed gate.
    update = codec.group(
        IeType.UPDATE_FAR,
        [
            codec.u32(IeType.FAR_ID, 2),
            Ie(IeType.APPLY_ACTION, bytes([FORW, 0])),
            codec.group(IeType.UPDATE_FORWARDING_PARAMETERS, N6),
        ],
    )
    forwarding = forwarding.after([update], ipv6=True)
    adapted = adapt([update], forwarding, own=OWN_URR, open_=False, detour=DETOUR)
    assert parameters(far(adapted, 2))[:2] == DETOUR.ies()
    opened = gate(forwarding, open_=True, detour=DETOUR)
    assert actions(opened) == {1: bytes([FORW, 0]), 2: bytes([FORW, 0])}
    assert parameters(far(opened, 2)) == N6 and parameters(far(opened, 1)) == []
    assert all(parameters(far(gate(forwarding, open_=state), 2)) == [] for state in (True, False))
    # Idle: the twin holds back too. Gone: the twin goes.
    idle = codec.group(
        IeType.UPDATE_FAR, [codec.u32(IeType.FAR_ID, 1), Ie(IeType.APPLY_ACTION, bytes([BUFF | NOCP, 0]))]
    )
    assert set(actions(adapt([idle], forwarding, own=OWN_URR, open_=True)).values()) == {bytes([BUFF | NOCP, 0])}
    gone = codec.group(IeType.REMOVE_FAR, [codec.u32(IeType.FAR_ID, 1)])
    removed = adapt([gone], forwarding, own=OWN_URR, open_=False)
    assert [ie.children() for ie in removed] == [[codec.u32(IeType.FAR_ID, n)] for n in (1, OWN_FAR)]
    assert forwarding.after([gone], ipv6=True).control == {3: 3}


def test_an_smf_that_uses_the_ctfs_far_number_is_refused() -> None:
    taken = codec.group(IeType.CREATE_FAR, [codec.u32(IeType.FAR_ID, OWN_FAR), Ie(IeType.APPLY_ACTION, b"\x02")])
    with pytest.raises(NumberTaken):
        Forwarding().after([taken], ipv6=True)


async def established(bench: Bench) -> Replay:
    """A session of both families, whose gNB has not named its tunnel yet."""
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association"))
    await replay.all(BOTH)
    return replay


async def test_credit_ends_and_returns_for_both_families(ignoring: tuple[Bench, Chf]) -> None:
    bench, chf = ignoring
    replay = await established(bench)
    kept = await bench.store.session(replay.seid)
    assert kept is not None and kept.addresses == ("10.45.0.9", "2001:db8:cafe:1::/64")
    modified = bench.upf.asked[Type.SESSION_MODIFICATION_REQUEST]
    before, unit = len(modified), chf.unit
    chf.unit = {}
    await replay.report(QUANTUM, 0)
    await until("the gate's closing", lambda: len(modified) > before)
    closed = modified[-1].ies
    assert actions(closed) == {1: bytes([DROP, 0]), 2: bytes([DROP, 0])}
    assert parameters(far(closed, 2)) == Detour(CTF, replay.seid).ies()
    # A restart of the CTF's knows it all from the database.
    kept = await bench.store.session(replay.seid)
    assert kept is not None and kept.forwarding.control == {3: 3, 1: OWN_FAR} and not kept.open
    await bench.smf.ask(Message(Type.SESSION_MODIFICATION_REQUEST, 0, placed(ACTIVATION, None, SMF), seid=replay.seid))
    assert actions(modified[-1].ies) == {1: bytes([DROP, 0]), OWN_FAR: bytes([FORW, 0])}
    seen = len(modified)
    chf.unit = unit
    assert await bench.ctf.gate.reauthorize(replay.seid)
    await until("the gate's opening", lambda: len(modified) > seen)
    assert actions(modified[-1].ies) == {1: bytes([FORW, 0]), 2: bytes([FORW, 0])}
    assert parameters(far(modified[-1].ies, 2)) == N6


async def test_the_shaper_is_told_of_both_families(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.slow(512_000, 128_000)
    await replay.report(QUANTUM, 0)

    async def slowed() -> Any:
        return await bench.store.throttled()

    [(addresses, throttle)] = await until("the session is slowed", slowed)
    assert addresses == ["10.45.0.9", "2001:db8:cafe:1::/64"] and throttle.downlink == 512_000
