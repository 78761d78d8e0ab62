"""The access side's data path: the phones' TUN devices and one GTP-U socket towards the user plane."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from mvnobox.core.sim import gtpu
from mvnobox.core.sim.tun import HostError, counters, forget_routes, open_tun, route_own_traffic
from mvnobox.core.sim.upf_path import BATCH, LARGEST

ROUTING_TABLE = 450


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
        descriptor = open_tun(name, f"{address}/32", mtu)
        try:
            route_own_traffic(name, address, ROUTING_TABLE + index)
        except HostError:
            os.close(descriptor)
            raise
        tunnel = Tunnel(index, name, address, descriptor, teid or secrets.randbits(31) + 1, on_lost)
        self._by_teid[tunnel.downlink_teid] = tunnel
        asyncio.get_running_loop().add_reader(descriptor, self._uplink, tunnel)
        return tunnel

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
            if tunnel.upf is None or self._out[gtpu.HEADROOM] >> 4 != 4:
                continue
            start = 0
            if self._plain:
                gtpu.write_plain_header(self._out, tunnel.uplink_teid, size)
                start = gtpu.HEADROOM - gtpu.PLAIN
            else:
                gtpu.write_header(self._out, tunnel.uplink_teid, size, 1, uplink=True)
            with contextlib.suppress(OSError):
                self._gtp.sendto(view[start : gtpu.HEADROOM + size], tunnel.upf)

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
                    if tunnel is not None:
                        os.write(tunnel.descriptor, view[offset:size])
                    else:
                        own = self._own_address(peer[0])
                        self._gtp.sendto(gtpu.error_indication(teid, own), (peer[0], gtpu.PORT))
            elif kind == gtpu.ECHO_REQUEST:
                with contextlib.suppress(OSError):
                    self._gtp.sendto(gtpu.echo_response(view[:size]), peer)
            elif kind == gtpu.ERROR_INDICATION:
                self._lost(gtpu.parse_error_indication(view[:size], offset), peer[0])

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
