"""A PFCP endpoint: reliable requests over UDP (TS 29.244 clause 6.4), repeats answered from memory."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable

from mvnobox.pfcp.codec import Message, PfcpError, decode

log = logging.getLogger(__name__)
PORT = 8805
T1_SECONDS = 2.5
N1_REQUESTS = 3
# Longer than a peer goes on repeating a request.
REMEMBER_SECONDS = T1_SECONDS * (N1_REQUESTS + 2)
Address = tuple[str, int]
Handler = Callable[[Message, Address], Awaitable[Message | None]]


class NoAnswer(Exception):
    """A peer did not answer a request and its repetitions."""


class Endpoint(asyncio.DatagramProtocol):
    """One UDP socket. `handler` answers requests; None means that no answer goes out."""

    def __init__(self, handler: Handler, *, t1: float = T1_SECONDS, n1: int = N1_REQUESTS) -> None:
        self._handler, self._t1, self._n1 = handler, t1, n1
        self._transport: asyncio.DatagramTransport | None = None
        self._sequence = secrets.randbelow(1 << 24)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._answered: dict[tuple[Address, int], tuple[float, bytes | None]] = {}
        self._swept = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        # Whether IPv4 peers come as IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2).
        self._mapped = False
        self.malformed = 0

    @classmethod
    async def open(cls, host: str, port: int, handler: Handler, **options: float) -> Endpoint:
        """An endpoint bound to an address."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        if ":" in host:
            # The unspecified address serves IPv4 as well.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setblocking(False)
        sock.bind((host, port))
        made = cls(handler, **options)  # type: ignore[arg-type]
        made._mapped = host == "::"
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, sock=sock)
        return made

    @property
    def port(self) -> int:
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        for task in self._tasks:
            task.cancel()

    def next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFF
        return self._sequence

    async def request(self, message: Message, peer: Address) -> Message:
        """Send a request under a sequence number of our own and await its answer. Raises NoAnswer."""
        message.sequence = self.next_sequence()
        data = message.encode()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Message] = loop.create_future()
        self._waiting[message.sequence] = answer
        left = self._n1

        timer = loop.call_later(self._t1, lambda: again())

        def again() -> None:
            nonlocal left, timer
            if answer.done():
                return
            if left == 0:
                answer.set_exception(NoAnswer(f"{peer[0]} did not answer message {message.type}"))
                return
            left -= 1
            self._send(data, peer)
            timer = loop.call_later(self._t1, again)

        try:
            self._send(data, peer)
            return await answer
        finally:
            timer.cancel()
            del self._waiting[message.sequence]

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        host = str(addr[0])
        peer: Address = (host.removeprefix("::ffff:") if "." in host else host, int(addr[1]))
        try:
            message = decode(data)
        except PfcpError as error:
            self.malformed += 1
            log.debug("malformed datagram", extra={"peer": peer[0], "error": str(error)})
            return
        if not message.is_request:
            waiting = self._waiting.get(message.sequence)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            return
        key = (peer, message.sequence)
        known = self._answered.get(key)
        if known is not None:
            # A repeat: the same answer again, or none while the first is being worked on.
            if known[1] is not None:
                self._send(known[1], peer)
            return
        self._answered[key] = (time.monotonic(), None)
        task = asyncio.ensure_future(self._answer(message, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message, peer: Address) -> None:
        try:
            answer = await self._handler(message, peer)
        except PfcpError as error:
            log.info("request not understood", extra={"type": message.type, "peer": peer[0], "error": str(error)})
            answer = None
        except Exception as error:  # one request's trouble is not the others'
            log.error("request failed", extra={"type": message.type, "error": f"{type(error).__name__}: {error}"})
            answer = None
        if answer is None:
            # Unanswered: a repetition may do better.
            self._answered.pop((peer, message.sequence), None)
        else:
            answer.sequence = message.sequence
            data = answer.encode()
            self._answered[(peer, message.sequence)] = (time.monotonic(), data)
            self._send(data, peer)
        self._sweep()

    def _send(self, data: bytes, peer: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            host, port = peer
            self._transport.sendto(data, (f"::ffff:{host}", port) if self._mapped and ":" not in host else peer)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept < 1:
            return
        self._swept = now
        # In the order of their coming: the first that is young ends the search.
        old = []
        for key, (at, answer) in self._answered.items():
            if now - at <= REMEMBER_SECONDS:
                break
            if answer is not None:
                old.append(key)
        for key in old:
            del self._answered[key]

    def error_received(self, exc: Exception) -> None:
        log.debug("socket: %s", exc)
