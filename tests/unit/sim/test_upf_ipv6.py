"""IPv6 on the user plane's process: a /64 for each session, anti-spoofing, router solicitations past the gate, idle UEs."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mvnobox.core.sim import gtpu, icmpv6, n4_messages
from mvnobox.core.sim.n4_messages import Subscription, UeAddresses
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, FORW, Cause, IeType

from .test_upf import DOWNLINK_TEID, Script, cause, threshold, usage

pytestmark = pytest.mark.timeout(120)
UE, UE6 = "10.45.0.2", "fd45:6a70:1c00:1::2"
# The tunnel by which solicitations come to the control plane.
CONTROL_TEID = 0x5151
SUBSCRIPTION = Subscription("208930000000001", None, "internet", 1, "000001")


def packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed


def echo6(source: str, target: str, sequence: int = 1) -> bytes:
    """An ICMPv6 echo request of 1,000 octets in all."""
    return icmpv6.packet(packed(source), packed(target), struct.pack(">BBHHH", 128, 0, 0, 7, sequence) + bytes(952), 64)


class Both(Script):
    """A session of both families, counted in both directions as a CTF has it."""

    control: tuple[str, int] = ("", 0)

    async def establish6(self, ue: UeAddresses = UeAddresses(UE, UE6)) -> None:
        message = n4_messages.establishment(SUBSCRIPTION, ue, 0x55, self.core.here, teid=CONTROL_TEID)
        members = [codec.u32(IeType.URR_ID, 1), codec.u8(IeType.MEASUREMENT_METHOD, 2), *threshold(10**9)]
        counted, uplink = codec.u32(IeType.URR_ID, 1), codec.u16(IeType.PDR_ID, n4_messages.UPLINK_PDR)
        ies = [codec.group(IeType.CREATE_URR, members) if ie.type == IeType.CREATE_URR else ie for ie in message.ies]
        message.ies = [
            codec.group(ie.type, [*ie.children(), counted])
            if ie.type == IeType.CREATE_PDR and uplink in ie.children()
            else ie
            for ie in ies
        ]
        answer = await self.ask(message)
        assert cause(answer) == Cause.ACCEPTED
        self.upf_seid = codec.parse_f_seid(answer.need(IeType.F_SEID))[0]
        _, self.uplink_teid = n4_messages.tunnel(answer, n4_messages.UPLINK_PDR)
        self.control = n4_messages.tunnel(answer, n4_messages.FROM_CP_PDR)

    async def activate(self) -> None:
        await self.ask(n4_messages.activate(self.upf_seid, "internet", self.core.here, DOWNLINK_TEID))

    def from_control(self, packet: bytes) -> None:
        header = bytearray(gtpu.HEADROOM)
        gtpu.write_plain_header(header, self.control[1], len(packet))
        self.gtp.sendto(bytes(header[gtpu.HEADROOM - gtpu.PLAIN :]) + packet, (self.core.upf_node, gtpu.PORT))

    async def pong(self, seconds: float = 3) -> bytes | None:
        """The packet that comes for the UE."""
        data = await self.receive(seconds)
        kind, teid, offset = gtpu.payload(data or b"")
        return data[offset:] if data is not None and (kind, teid) == (gtpu.G_PDU, DOWNLINK_TEID) else None

    async def counted(self) -> tuple[int, int, int]:
        query = codec.group(IeType.QUERY_URR, [codec.u32(IeType.URR_ID, 1)])
        return usage((await self.modify(query)).need(IeType.USAGE_REPORT_MODIFICATION))[3]


@pytest.fixture
async def script(plane: Any) -> AsyncIterator[Both]:
    plane.with_ipv6()
    await plane.up("upf")
    made = Both(plane)
    await made.open()
    await made.associate()
    await made.establish6()
    yield made
    made.close()


async def test_packets_of_a_prefix(script: Both) -> None:
    gateway = script.core.gateway6
    await script.activate()
    # Any address in the /64 is the UE's; the answer goes to where the question came from.
    for source in (UE6, "fd45:6a70:1c00:1:dead:beef:0:1"):
        script.send(echo6(source, gateway))
        answer = await script.pong()
        assert answer is not None and answer[24:40] == packed(source) and answer[40] == 129
    assert await script.counted() == (4_000, 2_000, 2_000)
    # Another one's /64, a link-local address and an IPv4 packet in IPv6's clothes are not carried.
    for source in ("fd45:6a70:1c00:2::2", "fe80::2", "::"):
        script.send(echo6(source, gateway))
    script.send(b"\x60" + bytes(19))
    script.send(echo6(UE6, gateway)[:39])
    assert await script.pong(0.3) is None
    assert await script.counted() == (0, 0, 0)
    assert await script.pings(1) == 1


async def test_router_solicitations_go_past_counters_and_gate(script: Both) -> None:
    identifier = packed(UE6)[8:]
    await script.activate()
    # The customer's FARs drop, those of the control plane do not: as a CTF closes a gate.
    twin = [codec.u32(IeType.FAR_ID, 99), codec.Ie(IeType.APPLY_ACTION, bytes([FORW, 0]))]
    there = codec.gtp_u_header(DOWNLINK_TEID, script.core.here)
    twin.append(codec.group(IeType.FORWARDING_PARAMETERS, [codec.u8(IeType.DESTINATION_INTERFACE, 0), there]))
    pdr = [codec.u16(IeType.PDR_ID, n4_messages.FROM_CP_PDR), codec.u32(IeType.FAR_ID, 99)]
    await script.modify(codec.group(IeType.CREATE_FAR, twin), codec.group(IeType.UPDATE_PDR, pdr))
    await script.apply(DROP, n4_messages.DOWNLINK_FAR, n4_messages.UPLINK_FAR)
    for _ in range(2):
        script.send(icmpv6.solicitation(identifier))
        data = await script.receive()
        # Without a QFI, or Open5GS's SMF does not take it.
        assert data is not None and data[:8] == struct.pack(">BBHI", 0x30, 255, 48, CONTROL_TEID)
        assert icmpv6.is_solicitation(data[8:])
        said = icmpv6.advertisement(packed(UE6)[:8], 1400, icmpv6.link_local(identifier))
        script.from_control(said)
        assert await script.pong() == said
    assert await script.counted() == (0, 0, 0)
    # From a stranger's address, or not a solicitation at all: nothing goes to the control plane.
    script.send(icmpv6.solicitation(b"\xff" * 8))
    script.send(icmpv6.packet(icmpv6.link_local(identifier), icmpv6.ALL_ROUTERS, struct.pack(">BBHI", 128, 0, 0, 1)))
    script.send(echo6(UE6, script.core.gateway6))
    assert await script.receive(0.3) is None
    # A tunnel of the control plane's that is gone.
    assert cause(await script.delete()) == Cause.ACCEPTED
    script.from_control(said)
    data = await script.receive() or b""
    assert gtpu.payload(data)[0] == gtpu.ERROR_INDICATION


async def test_what_waits_for_an_idle_ue_comes_once(script: Both) -> None:
    script.send(echo6(UE6, script.core.gateway6))
    said = icmpv6.advertisement(packed(UE6)[:8], 1400, packed("fe80::2"))
    told = await asyncio.wait_for(script.reports.get(), 5)
    assert codec.number(told.first(IeType.REPORT_TYPE), 1) == codec.REPORT_DOWNLINK_DATA
    script.from_control(said)
    assert await script.receive(0.3) is None and script.reports.empty()
    await script.activate()
    came = [await script.pong() for _ in range(2)]
    assert said in came and sorted(packet[40] for packet in came if packet) == [129, 134]
    assert await script.receive(0.3) is None


async def test_a_prefix_that_changes_its_session(script: Both) -> None:
    """One /64, one session: the older one is a left-over."""
    await script.activate()
    old = script.uplink_teid
    await script.establish6(UeAddresses("10.45.0.9", UE6))
    await script.activate()
    script.send(echo6(UE6, script.core.gateway6), teid=old)
    data = await script.receive() or b""
    assert gtpu.payload(data)[0] == gtpu.ERROR_INDICATION
    script.send(echo6(UE6, script.core.gateway6))
    assert await script.pong() is not None
