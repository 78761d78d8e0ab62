"""A user plane's data path: TUN devices on one side, GTP-U on the other, rules and counters in between.

Every packet costs a look-up in a dict and two system calls; what rules say is worked out when they change, not here.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import Counter

from mvnobox.core.sim import gtpu, icmpv6
from mvnobox.core.sim.shaper import Shaper
from mvnobox.core.sim.upf_rules import ACCESS, BUFFERED_PACKETS, CORE, CP, Far, Pdr, Session
from mvnobox.core.sim.usage import Urr
from mvnobox.pfcp import codec

# Packets that are taken from a descriptor before the loop turns to others.
BATCH = 128
LARGEST = 65_536
PACKETS = Counter("upf_packets_total", "Packets that were not forwarded", ["direction", "why"])
OCTETS = Counter("upf_octets_total", "Octets of IP packets that were forwarded", ["direction"])


# For packets without a maximum bit rate.
_FREE = Shaper()


@dataclass(slots=True)
class Way:
    """What happens to the packets that a PDR matches."""

    session: Session
    pdr: Pdr
    far: Far
    forward: bool
    urrs: tuple[Urr, ...]
    # Whether one of them has a quota.
    limited: bool
    shaper: Shaper
    # Uplink: the TUN device of the pool, the UE's own address and /64, where its router solicitations go.
    descriptor: int = -1
    address: bytes = b""
    prefix: bytes = b""
    identifier: bytes = b""
    solicitations: Way | None = None
    # Downlink, and what goes to the control plane and comes from it: the peer and its TEID. No QFI: a plain G-PDU.
    peer: tuple[str, int] = ("", 0)
    teid: int = 0
    qfi: int = 1


@dataclass(frozen=True)
class Tun:
    """A TUN device and the pools behind it: IPv4's first and last address, IPv6's first and last /64 (eight octets)."""

    descriptor: int
    first: bytes
    last: bytes
    first6: bytes = b""
    last6: bytes = b""

    def holds(self, key: bytes) -> bool:
        """Whether a UE's address or /64 is of these pools."""
        return self.first <= key <= self.last if len(key) == 4 else self.first6 <= key <= self.last6


def _source(packet: bytes | memoryview) -> bytes:
    """What a packet's source is known by: the IPv4 address or the /64."""
    return bytes(packet[8:16] if packet[0] >> 4 == 6 else packet[12:16])


def _target(packet: bytes | memoryview) -> bytes:
    """The same of its destination."""
    return bytes(packet[24:32] if packet[0] >> 4 == 6 else packet[16:20])


class DataPath:
    """Forwards packets. `on_due` is told of a URR whose report is due, `on_waiting` of packets for an idle UE,
    `on_error` of a peer that knows a TEID no more."""

    def __init__(
        self,
        gtp: socket.socket,
        own: str,
        tuns: Iterable[Tun],
        on_due: Callable[[Session, Urr, int], None],
        on_waiting: Callable[[Session, Pdr], None],
        on_error: Callable[[Session, int, str], None],
    ) -> None:
        self._gtp, self._own, self._tuns = gtp, own, tuple(tuns)
        self._on_due, self._on_waiting, self._on_error = on_due, on_waiting, on_error
        # By TEID: from the access side, and from the control plane.
        self._up: dict[int, Way] = {}
        # By IPv4 address (four octets) and by /64 (eight).
        self._down: dict[bytes, Way] = {}
        self._keys: dict[int, tuple[list[int], list[bytes]]] = {}
        self._peers: dict[tuple[str, int], Session] = {}
        self._in = bytearray(LARGEST)
        self._in_view = memoryview(self._in)
        self._out = bytearray(gtpu.HEADROOM + LARGEST)
        self._out_view = memoryview(self._out)
        self._packet_view = self._out_view[gtpu.HEADROOM :]

    # Rules ---------------------------------------------------------------------------------------------------------

    def install(self, session: Session) -> None:
        """Put a session's rules into effect, in the place of its former ones; held back packets may go now."""
        self.remove(session)
        teids: list[int] = []
        addresses: list[bytes] = []
        solicitations: dict[int, Way] = {}
        # By PDR: those whose packets may have been held back.
        outward: dict[int, Way] = {}
        # Lower precedence values come first (clause 8.2.11); the first match for a tunnel or address stays.
        for pdr in sorted(session.pdrs.values(), key=lambda one: one.precedence):
            far = session.fars.get(pdr.far)
            if far is None or (pdr.filtered and not (pdr.solicitations and far.destination == CP)):
                continue
            way = self._way(session, pdr, far)
            if pdr.solicitations and pdr.teid is not None:
                solicitations[pdr.teid] = way
            elif pdr.source == ACCESS and pdr.teid is not None and pdr.teid not in teids:
                teids.append(pdr.teid)
                way.solicitations = solicitations.get(pdr.teid)
                self._up[pdr.teid] = way
            elif pdr.source == CP and pdr.teid is not None and pdr.teid not in teids:
                teids.append(pdr.teid)
                self._up[pdr.teid] = outward[pdr.id] = way
            elif pdr.source == CORE:
                for key in pdr.addresses:
                    if key not in addresses:
                        addresses.append(key)
                        self._down[key] = outward[pdr.id] = way
                if far.peer is not None:
                    self._peers[far.peer] = session
        self._keys[session.seid] = teids, addresses
        for far in session.fars.values():
            if far.action & codec.FORW and far.held:
                held, far.held = far.held, []
                for identity, packet in held:
                    if identity in outward and outward[identity].forward:
                        self._packet_view[: len(packet)] = packet
                        self._send_down(outward[identity], len(packet))

    def _way(self, session: Session, pdr: Pdr, far: Far) -> Way:
        """What a PDR and its FAR, QER and URRs come to."""
        urrs = tuple(session.urrs[one] for one in pdr.urrs if one in session.urrs)
        limited = any(left is not None for urr in urrs for left in urr.left)
        qer = session.qers.get(pdr.qer)
        forward = bool(far.action & codec.FORW)
        if pdr.source == ACCESS and far.destination != CP:
            shaper, open_ = (_FREE, True) if qer is None else (qer.uplink, qer.uplink_open)
            ue = next((p for p in session.pdrs.values() if p.source == CORE and p.addresses), pdr)
            return Way(
                session, pdr, far, forward and open_, urrs, limited, shaper,
                descriptor=self._device(ue.addresses), address=ue.address or b"", prefix=ue.prefix or b"",
                identifier=ue.identifier or b"",
            )  # fmt: skip
        shaper, open_ = (_FREE, True) if qer is None else (qer.downlink, qer.downlink_open)
        peer, teid = far.peer or ("", 0)
        own = 1 if pdr.source == CORE else 0
        return Way(
            session, pdr, far, forward and bool(peer) and open_, urrs, limited, shaper,
            peer=(peer, gtpu.PORT), teid=teid, qfi=qer.qfi if qer is not None else own,
        )  # fmt: skip

    def remove(self, session: Session) -> None:
        """Forget a session."""
        teids, addresses = self._keys.pop(session.seid, ([], []))
        for teid in teids:
            if teid in self._up and self._up[teid].session is session:
                del self._up[teid]
        for address in addresses:
            if self.owner(address) is session:
                del self._down[address]
        self._peers = {key: owner for key, owner in self._peers.items() if owner is not session}

    def owner(self, address: bytes) -> Session | None:
        """The session that an IP address belongs to."""
        way = self._down.get(address)
        return way.session if way is not None else None

    def _device(self, addresses: Iterable[bytes]) -> int:
        return next((tun.descriptor for key in addresses for tun in self._tuns if tun.holds(key)), -1)

    # Packets -------------------------------------------------------------------------------------------------------

    def uplink(self) -> None:
        """Packets from the access side, until there are no more or others shall have their turn."""
        receive, buffer, view, ways = self._gtp.recvfrom_into, self._in, self._in_view, self._up
        carried = 0
        for _ in range(BATCH):
            try:
                size, peer = receive(buffer)
            except OSError:
                break
            kind, teid, offset = gtpu.payload(view[:size])
            if kind != gtpu.G_PDU:
                self._path_message(kind, offset, size, peer)
                continue
            way = ways.get(teid)
            if way is None:
                PACKETS.labels("uplink", "unknown").inc()
                self._answer(gtpu.error_indication(teid, self._own), (peer[0], gtpu.PORT))
                continue
            if way.pdr.source == CP:
                self._from_control(way, view[offset:size])
                continue
            version = view[offset] >> 4 if size - offset >= 20 else 0
            if version == 6 and view[offset + 24 : offset + 40] == icmpv6.ALL_ROUTERS:
                self._solicit(way, view[offset:size])
                continue
            # A UE sends from its own address and /64 only (TS 23.501 clause 5.8.2.4, anti-spoofing).
            own = (
                view[offset + 12 : offset + 16] == way.address
                if version == 4
                else version == 6 and size - offset >= 40 and view[offset + 8 : offset + 16] == way.prefix
            )
            if not way.forward or not own:
                PACKETS.labels("uplink", "dropped").inc()
                continue
            if way.shaper.passes(size - offset):
                carried += self._send_up(way, view[offset:size])
            else:
                self._wait(way.shaper, view[offset:size], uplink=True)
        if carried:
            OCTETS.labels("uplink").inc(carried)

    def downlink(self, descriptor: int) -> None:
        """Packets from the data network."""
        into, packet, ways = [self._packet_view], self._packet_view, self._down
        carried = 0
        for _ in range(BATCH):
            try:
                size = os.readv(descriptor, into)
            except OSError:
                break
            version = packet[0] >> 4
            if version == 4 and size >= 20:
                way = ways.get(bytes(packet[16:20]))
            elif version == 6 and size >= 40:
                way = ways.get(bytes(packet[24:32]))
            else:
                continue
            if way is None:
                PACKETS.labels("downlink", "unknown").inc()
            elif not way.forward:
                self._hold(way, size)
            elif way.shaper.passes(size):
                carried += self._send_down(way, size)
            else:
                self._wait(way.shaper, packet[:size], uplink=False)
        if carried:
            OCTETS.labels("downlink").inc(carried)

    def _wait(self, shaper: Shaper, packet: memoryview, *, uplink: bool) -> None:
        """A packet is beyond the maximum bit rate."""
        if not shaper.wait(bytes(packet)):
            PACKETS.labels("uplink" if uplink else "downlink", "rate").inc()
        self._schedule(shaper, uplink=uplink)

    def _schedule(self, shaper: Shaper, *, uplink: bool) -> None:
        delay = shaper.delay()
        if delay is not None and not shaper.scheduled:
            shaper.scheduled = True
            asyncio.get_running_loop().call_later(delay, self._go_on, shaper, uplink)

    def _go_on(self, shaper: Shaper, uplink: bool) -> None:
        """Send what had to wait, by the rules of now."""
        shaper.scheduled = False
        carried = 0
        for packet in shaper.ready():
            if uplink:
                owner = self._down.get(_source(packet))
                way = next((w for w in self._ways_of(owner) if w.forward), None) if owner is not None else None
                carried += self._send_up(way, packet) if way is not None else 0
            else:
                way = self._down.get(_target(packet))
                if way is not None and way.forward:
                    self._packet_view[: len(packet)] = packet
                    carried += self._send_down(way, len(packet))
        if carried:
            OCTETS.labels("uplink" if uplink else "downlink").inc(carried)
        self._schedule(shaper, uplink=uplink)

    def _ways_of(self, owner: Way) -> list[Way]:
        teids, _ = self._keys.get(owner.session.seid, ([], []))
        return [self._up[teid] for teid in teids if teid in self._up and self._up[teid].pdr.source == ACCESS]

    def _from_control(self, way: Way, packet: memoryview) -> None:
        """A packet of the control plane's for the UE."""
        size = len(packet)
        self._packet_view[:size] = packet
        if way.forward:
            self._send_down(way, size)
        else:
            self._hold(way, size)

    def _solicit(self, way: Way, packet: memoryview) -> None:
        """A packet to all routers: the control plane is the router. From the UE's link-local address or its /64 only."""
        to_control = way.solicitations
        own = packet[8:16] == way.prefix or packet[8:24] == icmpv6.link_local(way.identifier)
        if to_control is None or not to_control.forward or not own or not icmpv6.is_solicitation(packet):
            PACKETS.labels("uplink", "dropped").inc()
            return
        self._packet_view[: len(packet)] = packet
        self._send_down(to_control, len(packet))

    def _send_up(self, way: Way, packet: memoryview | bytes) -> int:
        """Give a packet to the data network; the octets of it that were carried."""
        if way.limited and any(urr.exhausted for urr in way.urrs):
            PACKETS.labels("uplink", "quota").inc()
            return 0
        try:
            os.write(way.descriptor, packet)
        except OSError:
            PACKETS.labels("uplink", "refused").inc()
            return 0
        size = len(packet)
        for urr in way.urrs:
            if trigger := urr.count(size, uplink=True):
                self._on_due(way.session, urr, trigger)
        return size

    def _send_down(self, way: Way, size: int) -> int:
        """Send the packet in the outgoing buffer; the octets of it that were carried."""
        if way.limited and any(urr.exhausted for urr in way.urrs):
            PACKETS.labels("downlink", "quota").inc()
            return 0
        start = 0
        if way.qfi:
            gtpu.write_header(self._out, way.teid, size, way.qfi, uplink=False)
        else:
            gtpu.write_plain_header(self._out, way.teid, size)
            start = gtpu.HEADROOM - gtpu.PLAIN
        try:
            self._gtp.sendto(self._out_view[start : gtpu.HEADROOM + size], way.peer)
        except OSError:
            PACKETS.labels("downlink", "refused").inc()
            return 0
        for urr in way.urrs:
            if trigger := urr.count(size, uplink=False):
                self._on_due(way.session, urr, trigger)
        return size

    def _hold(self, way: Way, size: int) -> None:
        action = way.far.action
        if action & codec.BUFF and len(way.far.held) < BUFFERED_PACKETS:
            way.far.held.append((way.pdr.id, bytes(self._packet_view[:size])))
        else:
            PACKETS.labels("downlink", "dropped").inc()
        if action & codec.NOCP and not way.session.told_of_downlink:
            self._on_waiting(way.session, way.pdr)

    def _path_message(self, kind: int, offset: int, size: int, peer: tuple[str, int]) -> None:
        if kind == gtpu.ECHO_REQUEST:
            self._answer(gtpu.echo_response(self._in_view[:size]), peer)
        elif kind == gtpu.ERROR_INDICATION:
            about = gtpu.parse_error_indication(self._in_view[:size], offset)
            session = self._peers.get((peer[0], about[0])) if about is not None else None
            if session is not None and about is not None:
                self._on_error(session, about[0], peer[0])

    def _answer(self, data: bytes, peer: tuple[str, int]) -> None:
        try:
            self._gtp.sendto(data, peer)
        except OSError:
            PACKETS.labels("uplink", "refused").inc()
