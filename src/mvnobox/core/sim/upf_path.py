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

from mvnobox.core.sim import gtpu
from mvnobox.core.sim.shaper import Shaper
from mvnobox.core.sim.upf_rules import ACCESS, BUFFERED_PACKETS, CORE, Far, Pdr, Session
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
    # Uplink: the TUN device of the pool. Downlink: the peer and its TEID.
    descriptor: int = -1
    address: bytes = b""
    peer: tuple[str, int] = ("", 0)
    teid: int = 0
    qfi: int = 1


@dataclass(frozen=True)
class Tun:
    """A TUN device and the first and last address of the pool behind it."""

    descriptor: int
    first: int
    last: int


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
        self._up: dict[int, Way] = {}
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
        # Lower precedence values come first (clause 8.2.11); the first match for a tunnel or address stays.
        for pdr in sorted(session.pdrs.values(), key=lambda one: one.precedence):
            far = session.fars.get(pdr.far)
            if pdr.filtered or far is None:
                continue
            urrs = tuple(session.urrs[one] for one in pdr.urrs if one in session.urrs)
            limited = any(left is not None for urr in urrs for left in urr.left)
            qer = session.qers.get(pdr.qer)
            shaper = _FREE if qer is None else qer.uplink if pdr.source == ACCESS else qer.downlink
            forward = bool(far.action & codec.FORW)
            if pdr.source == ACCESS and pdr.teid is not None and pdr.teid not in teids:
                teids.append(pdr.teid)
                address = next((p.address for p in session.pdrs.values() if p.source == CORE and p.address), b"")
                self._up[pdr.teid] = Way(
                    session, pdr, far, forward and (qer is None or qer.uplink_open), urrs, limited, shaper,
                    descriptor=self._device(address), address=address,
                )  # fmt: skip
            elif pdr.source == CORE and pdr.address is not None and pdr.address not in addresses:
                addresses.append(pdr.address)
                peer, teid = far.peer or ("", 0)
                if peer:
                    self._peers[(peer, teid)] = session
                self._down[pdr.address] = Way(
                    session, pdr, far, forward and bool(peer) and (qer is None or qer.downlink_open), urrs, limited, shaper,
                    peer=(peer, gtpu.PORT), teid=teid, qfi=qer.qfi if qer is not None else 1,
                )  # fmt: skip
        self._keys[session.seid] = teids, addresses
        for far in session.fars.values():
            if far.action & codec.FORW and far.held:
                held, far.held = far.held, []
                for way in [self._down[address] for address in addresses]:
                    for identity, packet in held:
                        if identity == way.pdr.id and way.forward:
                            self._packet_view[: len(packet)] = packet
                            self._send_down(way, len(packet))

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

    def _device(self, address: bytes) -> int:
        number = int.from_bytes(address, "big")
        return next((tun.descriptor for tun in self._tuns if tun.first <= number <= tun.last), -1)

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
            # A UE sends from its own address only (TS 23.501 clause 5.8.2.4, anti-spoofing).
            if not way.forward or view[offset + 12 : offset + 16] != way.address or size - offset < 20:
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
            if size < 20 or packet[0] >> 4 != 4:
                continue
            way = ways.get(bytes(packet[16:20]))
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
                owner = self._down.get(packet[12:16])
                way = next((w for w in self._ways_of(owner) if w.forward), None) if owner is not None else None
                carried += self._send_up(way, packet) if way is not None else 0
            else:
                way = self._down.get(packet[16:20])
                if way is not None and way.forward:
                    self._packet_view[: len(packet)] = packet
                    carried += self._send_down(way, len(packet))
        if carried:
            OCTETS.labels("uplink" if uplink else "downlink").inc(carried)
        self._schedule(shaper, uplink=uplink)

    def _ways_of(self, owner: Way) -> list[Way]:
        teids, _ = self._keys.get(owner.session.seid, ([], []))
        return [self._up[teid] for teid in teids if teid in self._up]

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
        gtpu.write_header(self._out, way.teid, size, way.qfi, uplink=False)
        try:
            self._gtp.sendto(self._out_view[: gtpu.HEADROOM + size], way.peer)
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
