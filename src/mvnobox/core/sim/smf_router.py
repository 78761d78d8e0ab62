"""The control plane's end of GTP-U: the router that IPv6 UEs ask for their prefix (TS 23.501 clause 5.8.2.2.3).

A user plane hands router solicitations to it in a tunnel of their own and takes the advertisement in another, as between
Open5GS's UPF and SMF.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter

from mvnobox.core.sim import gtpu, icmpv6

log = logging.getLogger(__name__)
ADVERTISEMENTS = Counter("sim_smf_router_advertisements_total", "Router advertisements sent to UEs")


@dataclass(frozen=True)
class Link:
    """What the router says to a UE and by which tunnel: its /64 (eight octets), the MTU, (address, TEID)."""

    prefix: bytes
    mtu: int
    tunnel: tuple[str, int]


class Router(asyncio.DatagramProtocol):
    """`find` knows the link of a TEID that we gave out."""

    def __init__(self, find: Callable[[int], Link | None]) -> None:
        self._find = find
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self, host: str) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, gtpu.PORT))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        assert self._transport is not None
        kind, teid, offset = gtpu.payload(data)
        if kind == gtpu.ECHO_REQUEST:
            self._transport.sendto(gtpu.echo_response(data), address)
        if kind != gtpu.G_PDU or not icmpv6.is_solicitation(packet := data[offset:]):
            return
        link = self._find(teid)
        if link is None:
            log.info("a router solicitation of a session that is not known", extra={"peer": address[0]})
            return
        peer, tunnel = link.tunnel
        header = bytearray(gtpu.HEADROOM)
        answer = icmpv6.advertisement(link.prefix, link.mtu, packet[8:24])
        gtpu.write_plain_header(header, tunnel, len(answer))
        self._transport.sendto(bytes(header[gtpu.HEADROOM - gtpu.PLAIN :]) + answer, (peer, gtpu.PORT))
        ADVERTISEMENTS.inc()

    def error_received(self, error: Exception) -> None:
        """A user plane that is away for a moment."""
        log.info("GTP-U: %s", error)
