"""The access side's data path: the phones' TUN devices and one GTP-U socket towards the user plane."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from mvnobox.core.sim import gtpu, icmpv6
from mvnobox.core.sim.tun import (
    HostError,
    add_address,
    counters,
    forget_routes,
    need_ipv6,
    open_tun,
    route_own_traffic,
)
from mvnobox.core.sim.upf_path import BATCH, LARGEST

ROUTING_TABLE = 450
# Router solicitations, and seconds to an answer (RFC 4861 section 10 has 4, for a radio link).
SOLICITATIONS, SOLICITATION_SECONDS = 3, 1.0


@dataclass
class Tunnel:
    """A phone's device and its tunnel. `received`, `sent`: octets that former devices of the phone have carried."""

    index: int
    name: str
    address: str
    descriptor: int
    downlink_teid: int
    on_lost: Callable[[], None]
    upf: tuple[str, int] | None = None
    uplink_teid: int = 0
    # The IPv6 address, once there is one, and what waits for a router advertisement.
    address6: str | None = None
    advertised: asyncio.Future[icmpv6.Advertisement] | None = None
    received: int = 0
    sent: int = 0

    def octets(self) -> tuple[int, int]:
        """(received, sent) octets of IP packets."""
        with contextlib.suppress(OSError):
            received, sent = counters(self.name)
            return self.received + received, self.sent + sent
        return self.received, self.sent


class Tunnels:
    """All tunnels of an agent."""

    def __init__(self, gtp: socket.socket, *, plain: bool = False) -> None:
        """`plain`: G-PDUs without a PDU Session Container, as 4G has them."""
        self._gtp, self._plain = gtp, plain
        self._by_teid: dict[int, Tunnel] = {}
        self._in = bytearray(LARGEST)
        self._in_view = memoryview(self._in)
        self._out = bytearray(gtpu.HEADROOM + LARGEST)
        self._out_view = memoryview(self._out)
        asyncio.get_running_loop().add_reader(gtp.fileno(), self._downlink)

    def open(self, address: str, mtu: int, on_lost: Callable[[], None], teid: int | None = None) -> Tunnel:
        """A device with an address, whose traffic goes nowhere yet; `teid` where the downlink's is given out already.

        Raises HostError.
        """
        used = {tunnel.index for tunnel in self._by_teid.values()}
        index = next(i for i in range(len(used) + 1) if i not in used)
        name = f"uesimtun{index}"
        descriptor = open_tun(name, [f"{address}/32"], mtu)
        try:
            route_own_traffic(name, address, ROUTING_TABLE + index)
        except HostError:
            os.close(descriptor)
            raise
        tunnel = Tunnel(index, name, address, descriptor, teid or secrets.randbits(31) + 1, on_lost)
        self._by_teid[tunnel.downlink_teid] = tunnel
        asyncio.get_running_loop().add_reader(descriptor, self._uplink, tunnel)
        return tunnel

    async def autoconfigure(self, tunnel: Tunnel, identifier: bytes) -> None:
        """Ask the network for the tunnel's /64 and make the address with an interface identifier of eight octets.

        Without an answer there is none. Not by the kernel, which would ask whenever it likes and route all the pod's
        traffic here. Raises HostError.
        """
        need_ipv6()
        for _ in range(SOLICITATIONS):
            tunnel.advertised = asyncio.get_running_loop().create_future()
            self._send(tunnel, icmpv6.solicitation(identifier))
            try:
                said = await asyncio.wait_for(tunnel.advertised, SOLICITATION_SECONDS)
            except TimeoutError:
                continue
            finally:
                tunnel.advertised = None
            address = str(said.prefix[int.from_bytes(identifier, "big")])
            add_address(tunnel.name, f"{address}/128")
            route_own_traffic(tunnel.name, address, ROUTING_TABLE + tunnel.index)
            tunnel.address6 = address
            return

    def close(self, tunnel: Tunnel) -> None:
        """Take a device away."""
        if self._by_teid.pop(tunnel.downlink_teid, None) is None:
            return
        tunnel.received, tunnel.sent = tunnel.octets()
        asyncio.get_running_loop().remove_reader(tunnel.descriptor)
        os.close(tunnel.descriptor)
        forget_routes(ROUTING_TABLE + tunnel.index)

    def _uplink(self, tunnel: Tunnel) -> None:
        view = self._out_view
        into = [view[gtpu.HEADROOM :]]
        for _ in range(BATCH):
            try:
                size = os.readv(tunnel.descriptor, into)
            except OSError:
                return
            if self._out[gtpu.HEADROOM] >> 4 == 4 or tunnel.address6 is not None:
                self._send_up(tunnel, size)

    def _send(self, tunnel: Tunnel, packet: bytes) -> None:
        """Send a packet of ours, which the device does not count."""
        self._out_view[gtpu.HEADROOM : gtpu.HEADROOM + len(packet)] = packet
        self._send_up(tunnel, len(packet))

    def _send_up(self, tunnel: Tunnel, size: int) -> None:
        """Send the packet in the outgoing buffer."""
        if tunnel.upf is None:
            return
        start = 0
        if self._plain:
            gtpu.write_plain_header(self._out, tunnel.uplink_teid, size)
            start = gtpu.HEADROOM - gtpu.PLAIN
        else:
            gtpu.write_header(self._out, tunnel.uplink_teid, size, 1, uplink=True)
        with contextlib.suppress(OSError):
            self._gtp.sendto(self._out_view[start : gtpu.HEADROOM + size], tunnel.upf)

    def _downlink(self) -> None:
        view = self._in_view
        for _ in range(BATCH):
            try:
                size, peer = self._gtp.recvfrom_into(self._in)
            except OSError:
                return
            kind, teid, offset = gtpu.payload(view[:size])
            if kind == gtpu.G_PDU:
                tunnel = self._by_teid.get(teid)
                with contextlib.suppress(OSError):
                    if tunnel is None:
                        own = self._own_address(peer[0])
                        self._gtp.sendto(gtpu.error_indication(teid, own), (peer[0], gtpu.PORT))
                    elif not self._is_advertisement(tunnel, view[offset:size]):
                        os.write(tunnel.descriptor, view[offset:size])
            elif kind == gtpu.ECHO_REQUEST:
                with contextlib.suppress(OSError):
                    self._gtp.sendto(gtpu.echo_response(view[:size]), peer)
            elif kind == gtpu.ERROR_INDICATION:
                self._lost(gtpu.parse_error_indication(view[:size], offset), peer[0])

    @staticmethod
    def _is_advertisement(tunnel: Tunnel, packet: memoryview) -> bool:
        """Whether a packet is a router advertisement: ours to read, never the kernel's."""
        if len(packet) < 41 or packet[0] >> 4 != 6 or packet[6] != icmpv6.NEXT_HEADER:
            return False
        if packet[40] != icmpv6.ROUTER_ADVERTISEMENT:
            return False
        said = icmpv6.parse_advertisement(packet)
        if said is not None and tunnel.advertised is not None and not tunnel.advertised.done():
            tunnel.advertised.set_result(said)
        return True

    def _lost(self, about: tuple[int, str] | None, sender: str) -> None:
        """An error indication: told once to whom it concerns, who then gets another session."""
        for tunnel in list(self._by_teid.values()):
            if about is None or tunnel.upf is None or tunnel.uplink_teid != about[0]:
                continue
            # A user plane behind a Service names its own address, and its packets come from the Service's.
            if tunnel.upf[0] in (about[1], sender):
                tunnel.upf = None
                tunnel.on_lost()

    @staticmethod
    def _own_address(peer: str) -> str:
        """The address of ours that a peer sees."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, gtpu.PORT))
            return str(probe.getsockname()[0])
