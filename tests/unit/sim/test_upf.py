"""The user plane's process, driven by a scripted control plane (a CTF's part) and a scripted access network."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mvnobox.core.sim import gtpu, n4_messages
from mvnobox.core.sim.elements import Also
from mvnobox.core.sim.n4_messages import UeAddresses
from mvnobox.core.sim.usage import TERMINATION, VOLUME_QUOTA, VOLUME_THRESHOLD
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, Cause, Ie, IeType, Message, Type
from mvnobox.pfcp.endpoint import Address, Endpoint

pytestmark = pytest.mark.timeout(120)
UE_ADDRESS = "10.45.0.2"
DOWNLINK_TEID = 0x7777
PACKET = 1000


def echo(source: str, target: str, octets: int = PACKET, sequence: int = 1) -> bytes:
    """An ICMP echo request of so many octets in all."""
    body = struct.pack(">BBHHH", 8, 0, 0, 7, sequence) + bytes(octets - 28)
    total = sum(struct.unpack(f">{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + body[4:]
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack(">BBHHHBBH", 0x45, 0, octets, 0, 0, 64, 1, 0) + addresses
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:] + body


class Script:
    """Both peers of the user plane."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.reports: asyncio.Queue[Message] = asyncio.Queue()
        self.acknowledge: int | None = Cause.ACCEPTED
        self.recovery = int(time.time())
        self.upf_seid = self.uplink_teid = 0
        self.gtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.gtp.setblocking(False)
        self.gtp.bind((core.here, gtpu.PORT))
        self.endpoint: Endpoint

    async def open(self) -> None:
        self.endpoint = await Endpoint.open(self.core.here, 8805, self._from_upf, t1=0.5, n1=3)

    def close(self) -> None:
        self.endpoint.close()
        self.gtp.close()

    async def _from_upf(self, message: Message, peer: Address) -> Message | None:
        if message.type != Type.SESSION_REPORT_REQUEST:
            return None
        self.reports.put_nowait(message)
        if self.acknowledge is None:
            return None
        ies = [codec.u8(IeType.CAUSE, self.acknowledge)]
        return Message(Type.SESSION_REPORT_RESPONSE, 0, ies, seid=self.upf_seid)

    async def ask(self, message: Message) -> Message:
        return await self.endpoint.request(message, (self.core.upf_node, 8805))

    async def associate(self, *, anew: bool = True) -> Message:
        self.recovery += anew
        return await self.ask(n4_messages.association_setup(self.core.here, self.recovery))

    async def establish(self, *urr: Ie, both_directions: bool = True) -> Message:
        """A session as a CTF passes it on: its own threshold or quota, uplink counted too; then the gNB's tunnel."""
        subscription = n4_messages.Subscription("208930000000001", None, "internet", 1, "000001")
        message = n4_messages.establishment(subscription, UeAddresses(UE_ADDRESS), 0x55, self.core.here)
        members = [codec.u32(IeType.URR_ID, 1), codec.u8(IeType.MEASUREMENT_METHOD, 2), *urr]
        ies = [codec.group(IeType.CREATE_URR, members) if ie.type == IeType.CREATE_URR else ie for ie in message.ies]
        if both_directions:
            counted = codec.u32(IeType.URR_ID, 1)
            ies = [
                codec.group(ie.type, [*ie.children(), counted])
                if ie.type == IeType.CREATE_PDR and codec.first(ie.children(), IeType.PDR_ID) == codec.u16(56, 2)
                else ie
                for ie in ies
            ]
        message.ies = ies
        answer = await self.ask(message)
        if answer.first(IeType.CAUSE) == codec.u8(IeType.CAUSE, Cause.ACCEPTED):
            self.upf_seid = codec.parse_f_seid(answer.need(IeType.F_SEID))[0]
            _, self.uplink_teid = n4_messages.tunnel(answer, n4_messages.UPLINK_PDR)
            await self.ask(n4_messages.activate(self.upf_seid, "internet", self.core.here, DOWNLINK_TEID))
        return answer

    async def modify(self, *ies: Ie) -> Message:
        return await self.ask(Message(Type.SESSION_MODIFICATION_REQUEST, 0, list(ies), seid=self.upf_seid))

    async def delete(self) -> Message:
        return await self.ask(n4_messages.deletion(self.upf_seid))

    async def apply(self, action: int, *fars: int) -> Message:
        return await self.modify(
            *(
                codec.group(
                    IeType.UPDATE_FAR, [codec.u32(IeType.FAR_ID, far), Ie(IeType.APPLY_ACTION, bytes([action, 0]))]
                )
                for far in fars
            )
        )

    # Packets -------------------------------------------------------------------------------------------------------

    def send(self, packet: bytes, teid: int | None = None) -> None:
        data = gtpu.g_pdu(self.uplink_teid if teid is None else teid, packet, 1, uplink=True)
        self.gtp.sendto(data, (self.core.upf_node, gtpu.PORT))

    async def receive(self, seconds: float = 3) -> bytes | None:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().sock_recv(self.gtp, 65535)
        except TimeoutError:
            return None

    async def pings(self, count: int, sequence: int = 1) -> int:
        """Send echo requests to the gateway, one after the other; how many came back."""
        back = 0
        for number in range(count):
            self.send(echo(UE_ADDRESS, self.core.gateway, sequence=sequence + number))
            data = await self.receive(3 if back == number else 0.3)
            back += data is not None and gtpu.payload(data)[:2] == (gtpu.G_PDU, DOWNLINK_TEID)
        return back

    async def report(self, seconds: float = 5) -> tuple[int, int, int, tuple[int, int, int]]:
        """(URR, UR-SEQN, trigger, volumes) of the next usage report."""
        message = await asyncio.wait_for(self.reports.get(), seconds)
        assert message.seid == 0x55
        return usage(message.need(IeType.USAGE_REPORT_REPORT))


def usage(ie: Ie) -> tuple[int, int, int, tuple[int, int, int]]:
    members = ie.children()
    trigger = int.from_bytes(codec.first(members, IeType.USAGE_REPORT_TRIGGER).data[:2], "little")  # type: ignore[union-attr]
    return (
        codec.number(codec.first(members, IeType.URR_ID), 4),
        codec.number(codec.first(members, IeType.UR_SEQN), 4),
        trigger,
        codec.parse_volume(codec.first(members, IeType.VOLUME_MEASUREMENT)),
    )


def cause(answer: Message) -> int:
    return codec.number(answer.first(IeType.CAUSE), 1)


def threshold(octets: int) -> tuple[Ie, Ie]:
    return Ie(IeType.REPORTING_TRIGGERS, b"\x02\0\0"), codec.volume_threshold(octets)


def quota(octets: int) -> Ie:
    return Ie(IeType.VOLUME_QUOTA, b"\x01" + struct.pack(">Q", octets))


@pytest.fixture
async def script(plane: Any) -> AsyncIterator[Script]:
    await plane.up("upf")
    made = Script(plane)
    await made.open()
    yield made
    made.close()


async def test_sessions_rules_and_reports(script: Script) -> None:
    """One life of a user plane: what follows needs what came before."""
    # No association, no session.
    assert cause(await script.establish(*threshold(10_000))) == Cause.NO_ASSOCIATION
    answer = await script.associate()
    assert cause(answer) == Cause.ACCEPTED
    assert answer.need(IeType.UP_FUNCTION_FEATURES).data[0] & 0x10

    # Both directions count; the report comes at the threshold with all that was carried.
    assert cause(await script.establish(*threshold(10_000))) == Cause.ACCEPTED
    assert await script.pings(5) == 5
    assert await script.report() == (1, 0, VOLUME_THRESHOLD, (10_000, 5_000, 5_000))

    # A report that is not acknowledged is repeated under its number, while the next ones get theirs.
    script.acknowledge = None
    assert await script.pings(5) == 5
    assert await script.report() == (1, 1, VOLUME_THRESHOLD, (10_000, 5_000, 5_000))
    assert await script.report() == (1, 1, VOLUME_THRESHOLD, (10_000, 5_000, 5_000))
    assert await script.pings(2) == 2

    # The deletion's answer carries what was never acknowledged, and the rest.
    answer = await script.delete()
    assert cause(answer) == Cause.ACCEPTED
    last = [usage(ie) for ie in answer.all(IeType.USAGE_REPORT_DELETION)]
    assert last == [
        (1, 1, VOLUME_THRESHOLD, (10_000, 5_000, 5_000)),
        (1, 2, TERMINATION, (4_000, 2_000, 2_000)),
    ]
    script.acknowledge = Cause.ACCEPTED
    assert cause(await script.delete()) == Cause.SESSION_NOT_FOUND
    assert cause(await script.modify()) == Cause.SESSION_NOT_FOUND
    assert await script.pings(1) == 0


async def test_credit_ends_and_returns(script: Script) -> None:
    await script.associate()
    await script.establish(*threshold(1_000_000))
    assert await script.pings(2) == 2

    # The gate: every FAR drops, then forwards again.
    assert cause(await script.apply(DROP, 1, 2, 3)) == Cause.ACCEPTED
    assert await script.pings(3) == 0
    answer = await script.modify(codec.group(IeType.QUERY_URR, [codec.u32(IeType.URR_ID, 1)]))
    assert [usage(ie)[3] for ie in answer.all(IeType.USAGE_REPORT_MODIFICATION)] == [(4_000, 2_000, 2_000)]
    await script.apply(codec.FORW, 1, 2, 3)
    assert await script.pings(1) == 1

    # A threshold that is lowered below what was carried is reported at once.
    lower = codec.group(IeType.UPDATE_URR, [codec.u32(IeType.URR_ID, 1), codec.volume_threshold(1_500)])
    await script.modify(lower)
    assert (await script.report())[3] == (2_000, 1_000, 1_000)

    # A quota ends traffic by itself, to the packet, and says so.
    both = codec.group(
        IeType.UPDATE_URR,
        [
            codec.u32(IeType.URR_ID, 1),
            Ie(IeType.REPORTING_TRIGGERS, b"\x02\x01\0"),
            codec.volume_threshold(10**9),
            quota(5_000),
        ],
    )
    await script.modify(both)
    assert await script.pings(6) == 2
    assert (await script.report())[2:] == (VOLUME_QUOTA, (5_000, 3_000, 2_000))
    await script.modify(codec.group(IeType.UPDATE_URR, [codec.u32(IeType.URR_ID, 1), quota(100_000)]))
    assert await script.pings(2) == 2

    # An idle UE: packets wait, the control plane is told once, then they arrive.
    while not script.reports.empty():
        script.reports.get_nowait()
    await script.ask(n4_messages.deactivate(script.upf_seid))
    for sequence in (1, 2, 3):
        script.send(echo(UE_ADDRESS, script.core.gateway, sequence=sequence))
    told = await asyncio.wait_for(script.reports.get(), 5)
    assert codec.number(told.first(IeType.REPORT_TYPE), 1) == codec.REPORT_DOWNLINK_DATA
    assert await script.receive(0.3) is None and script.reports.empty()
    await script.ask(n4_messages.activate(script.upf_seid, "internet", script.core.here, DOWNLINK_TEID))
    assert all([await script.receive() for _ in range(3)])

    # A control plane that has forgotten the session: nothing is carried that nobody pays for.
    script.acknowledge = Cause.SESSION_NOT_FOUND
    await script.modify(codec.group(IeType.UPDATE_URR, [codec.u32(IeType.URR_ID, 1), codec.volume_threshold(1)]))
    await script.core.until("the session is gone", lambda: "it is deleted" in script.core.log("upf"))
    assert await script.pings(1) == 0


async def test_strangers_and_rubbish(script: Script) -> None:
    await script.associate()
    await script.establish(*threshold(10**9))

    # Another source address than the UE's own; a tunnel that does not exist; an echo.
    script.send(echo("10.45.0.99", script.core.gateway))
    assert await script.receive(0.3) is None
    answer = await script.modify(codec.group(IeType.QUERY_URR, [codec.u32(IeType.URR_ID, 1)]))
    assert usage(answer.need(IeType.USAGE_REPORT_MODIFICATION))[3] == (0, 0, 0)
    script.send(echo(UE_ADDRESS, script.core.gateway), teid=0x0BAD)
    data = await script.receive() or b""
    assert gtpu.parse_error_indication(data, gtpu.payload(data)[2]) == (0x0BAD, script.core.upf_node)
    script.gtp.sendto(bytes.fromhex("320100040000000012340000"), (script.core.upf_node, gtpu.PORT))
    assert await script.receive() == gtpu.echo_response(bytes.fromhex("320100040000000012340000"))

    # The access network does not know its tunnel any more.
    error = gtpu.error_indication(DOWNLINK_TEID, script.core.here)
    script.gtp.sendto(error, (script.core.upf_node, gtpu.PORT))
    told = await asyncio.wait_for(script.reports.get(), 5)
    assert codec.number(told.first(IeType.REPORT_TYPE), 1) == 4
    remote = codec.first(told.need(Also.ERROR_INDICATION_REPORT).children(), IeType.F_TEID)
    assert remote is not None and remote.data[1:5] == struct.pack(">I", DOWNLINK_TEID)

    # Rubbish on both ports leaves it well.
    rng = random.Random(29_244)
    subscription = n4_messages.Subscription("208930000000001", None, "internet", 1, None)
    whole = n4_messages.establishment(subscription, UeAddresses("10.45.0.77"), 9, script.core.here).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((script.core.here, 0))
        for _ in range(300):
            spoiled = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
            stranger.sendto(bytes(spoiled[: rng.randint(1, len(spoiled))]), (script.core.upf_node, 8805))
            stranger.sendto(rng.randbytes(rng.randint(0, 90)), (script.core.upf_node, 8805))
            frame = bytearray(gtpu.g_pdu(script.uplink_teid, echo(UE_ADDRESS, script.core.gateway), 1, uplink=True))
            for _ in range(rng.randint(1, 6)):
                frame[rng.randrange(40)] = rng.randrange(256)
            stranger.sendto(bytes(frame[: rng.randint(1, len(frame))]), (script.core.upf_node, gtpu.PORT))
    answer = await script.ask(Message(Type.HEARTBEAT_REQUEST, 0, [codec.recovery(script.recovery)]))
    assert answer.type == Type.HEARTBEAT_RESPONSE
    while await script.receive(0.2) is not None:
        pass
    assert await script.pings(1) == 1
    assert "Traceback" not in script.core.log("upf")

    # A request that is understood but wrong is answered with a cause, not with silence.
    broken = Message(Type.SESSION_ESTABLISHMENT_REQUEST, 0, [codec.node_id(script.core.here)], seid=0)
    assert cause(await script.ask(broken)) == Cause.MANDATORY_IE_INCORRECT

    # A control plane with a new time stamp has lost its sessions; the same one again has not.
    await script.associate(anew=False)
    assert await script.pings(1) == 1
    await script.associate()
    assert await script.pings(1) == 0


async def test_a_stop_reports_what_was_not_reported(script: Script) -> None:
    await script.associate()
    await script.establish(*threshold(10**9))
    assert await script.pings(3) == 3
    stopped = asyncio.ensure_future(asyncio.to_thread(script.core.stop, "upf"))
    assert (await script.report())[2:] == (TERMINATION, (6_000, 3_000, 3_000))
    began = time.monotonic()
    assert await stopped == 0
    assert time.monotonic() - began < 5
