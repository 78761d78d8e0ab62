"""GTPv2-C's transactions over UDP (TS 29.274 clause 7.6): repetition of requests, repeated requests, echo."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import cast

from mvnobox.core.hostnetwork import gtpc
from mvnobox.core.hostnetwork.gtpc import Kind, Malformed, Message, OtherVersion

log = logging.getLogger(__name__)
Address = tuple[str, int]
# (TEID, encoded elements) of an answer; None where a request is not answered.
Answer = tuple[int, list[bytes]] | None
REQUESTS = frozenset({Kind.CREATE_BEARER_REQUEST, Kind.UPDATE_BEARER_REQUEST, Kind.DELETE_BEARER_REQUEST})
# Answers that are kept for repeated requests: how many, for how many seconds.
KEPT, KEPT_SECONDS = 256, 60.0


class NoAnswer(Exception):
    """A peer has not answered, or with what is no answer."""


class Endpoint(asyncio.DatagramProtocol):
    """One socket. `handle` answers requests of the peer; `t3` seconds to an answer, `n3` attempts."""

    def __init__(self, handle: Callable[[Message, Address], Answer], restarts: int, t3: float, n3: int) -> None:
        self._handle, self._restarts, self._t3, self._n3 = handle, restarts & 0xFF, t3, n3
        self._transport: asyncio.DatagramTransport | None = None
        self._next = secrets.randbelow(gtpc.SEQUENCES)
        self._waiting: dict[int, tuple[int, asyncio.Future[Message]]] = {}
        self._answered: OrderedDict[tuple[Address, int, int | None, int], tuple[float, bytes]] = OrderedDict()

    @classmethod
    async def open(
        cls, host: str, port: int, handle: Callable[[Message, Address], Answer], *, restarts: int, t3: float, n3: int
    ) -> Endpoint:
        """Bind. Raises OSError."""
        made = cls(handle, restarts, t3, n3)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, local_addr=(host, port))
        return made

    @property
    def recovery(self) -> bytes:
        """Our restart counter as an element."""
        return gtpc.ie(gtpc.Type.RECOVERY, bytes([self._restarts]))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- what we ask

    async def request(self, peer: Address, kind: int, teid: int | None, ies: Iterable[bytes]) -> Message:
        """Send a request until it is answered. Raises NoAnswer."""
        assert self._transport is not None
        self._next = (self._next + 1) % gtpc.SEQUENCES
        sequence, answer = self._next, asyncio.get_running_loop().create_future()
        data = gtpc.encode(kind, teid, sequence, ies)
        self._waiting[sequence] = kind, answer
        try:
            for _ in range(self._n3):
                self._transport.sendto(data, peer)
                try:
                    return await asyncio.wait_for(asyncio.shield(answer), self._t3)
                except TimeoutError:
                    continue
            raise NoAnswer(f"{peer[0]} does not answer after {self._n3} requests")
        finally:
            del self._waiting[sequence]
            answer.cancel()

    async def echo(self, peer: Address) -> int | None:
        """Ask whether a peer is there: its restart counter (TS 23.007 clause 18). Raises NoAnswer."""
        answer = await self.request(peer, Kind.ECHO_REQUEST, None, [self.recovery])
        counter = answer.find(gtpc.Type.RECOVERY)
        return counter[0] if counter else None

    # -- asyncio.DatagramProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, exc: Exception) -> None:
        log.info("GTP-C: %s", exc)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        try:
            self._received(data, addr)
        except Malformed as error:
            log.warning("GTP-C of %s is malformed: %s", addr[0], error)
        except OtherVersion as error:
            log.warning("GTP-C of %s: %s", addr[0], error)
            # An indication is never answered with one.
            if len(data) > 1 and data[1] != Kind.VERSION_NOT_SUPPORTED:
                self._send(gtpc.encode(Kind.VERSION_NOT_SUPPORTED, None, 0), addr)

    def _received(self, data: bytes, addr: Address) -> None:
        kind, teid, sequence, _ = gtpc.peek(data)
        if kind == Kind.ECHO_REQUEST:
            self._send(gtpc.encode(Kind.ECHO_RESPONSE, None, sequence, [self.recovery]), addr)
        elif kind in REQUESTS:
            self._requested(data, addr, (kind, teid, sequence))
        else:
            self._response(data, kind, sequence)

    def _requested(self, data: bytes, addr: Address, header: tuple[int, int | None, int]) -> None:
        kind, _, sequence = header
        key, now = (addr, *header), asyncio.get_running_loop().time()
        if now - self._answered.get(key, (-KEPT_SECONDS, b""))[0] >= KEPT_SECONDS:
            try:
                answer = self._handle(gtpc.decode(data), addr)
            except Malformed as error:
                log.warning("GTP-C request %d of %s: %s", kind, addr[0], error)
                answer = 0, [gtpc.ie(gtpc.Type.CAUSE, bytes([error.cause, 0]))]
            if answer is None:
                return
            self._answered[key] = now, gtpc.encode(kind + 1, answer[0], sequence, answer[1])
            while len(self._answered) > KEPT:
                self._answered.popitem(last=False)
        self._send(self._answered[key][1], addr)

    def _response(self, data: bytes, kind: int, sequence: int) -> None:
        asked, waiting = self._waiting.get(sequence, (0, None))
        if waiting is None or waiting.done():
            return
        if kind == Kind.VERSION_NOT_SUPPORTED:
            waiting.set_exception(NoAnswer("the peer speaks another version of GTP-C"))
        elif kind == asked + 1:
            try:
                waiting.set_result(gtpc.decode(data))
            except Malformed as error:
                waiting.set_exception(NoAnswer(f"the peer's answer is malformed: {error}"))

    def _send(self, data: bytes, peer: Address) -> None:
        if self._transport is not None:
            self._transport.sendto(data, peer)
