"""The TCP side: bounded connections, bounded messages, no client can hold the others up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import ssl
import time
from collections import deque
from typing import cast

import bson
from prometheus_client import Counter, Gauge, Histogram

from mvnobox.core.directory.commands import Commands
from mvnobox.core.directory.scram import Credential
from mvnobox.core.directory.session import Session
from mvnobox.core.directory.wire import HEADER, LARGEST_GREETING, LARGEST_MESSAGE, WireError, parse, reply

log = logging.getLogger(__name__)
MOST_CONNECTIONS = 1000
# Octets of all clients' messages that wait: a little more than what a hostile crowd can make the process hold.
MOST_WAITING_OCTETS = 32 * LARGEST_MESSAGE
# From a message's first octet to its last; for a new client's first message; for a client to read its answers.
MESSAGE_SECONDS = 10.0
_MOST_WAITING_MESSAGES = 64
COMMANDS = Counter("directory_commands_total", "Commands answered", ["command", "ok"])
CONNECTIONS = Gauge("directory_connections", "Open connections")
REFUSED = Counter("directory_connections_refused_total", "Connections ended by the server", ["reason"])
_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.1, 1.0)
FIND_SECONDS = Histogram("directory_find_seconds", "From a find's turn to its answer", buckets=_BUCKETS)


class DirectoryServer:
    """One asyncio server over the commands."""

    def __init__(self, commands: Commands, users: dict[str, Credential] | None = None) -> None:
        self.commands = commands
        self.users = users or {}
        self.connections: set[Connection] = set()
        self.waiting_octets = 0
        self._counters: dict[tuple[str, bool], Counter] = {}

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """Listen; the caller closes the server and runs `police`."""
        patience = MESSAGE_SECONDS if tls else None
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(self), host, port, backlog=512, ssl=tls, ssl_handshake_timeout=patience
        )

    async def serve(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Serve until cancelled."""
        server = await self.listen(host, port, tls)
        log.info("serving subscribers", extra={"port": port, "tls": tls is not None, "users": len(self.users)})
        try:
            await self.police()
        finally:
            server.close()
            for connection in list(self.connections):
                connection.end()

    async def police(self, every: float = 1.0) -> None:
        """End clients that are too slow; until cancelled."""
        while True:
            await asyncio.sleep(every)
            now = time.monotonic()
            for connection in list(self.connections):
                if reason := connection.overdue(now):
                    connection.end(reason)

    def count(self, name: str, ok: bool) -> None:
        """Count a command; unknown ones under one name."""
        counter = self._counters.get((name, ok))
        if counter is None:
            label = name if self.commands.known(name) else "other"
            counter = COMMANDS.labels(label, str(ok).lower())
            if label == name:
                self._counters[name, ok] = counter
        counter.inc()


class Connection(asyncio.Protocol):
    """One client. Its messages are answered in their order."""

    _numbers = itertools.count(1)

    def __init__(self, server: DirectoryServer) -> None:
        self._server = server
        self._session = Session(server.users)
        self._buffer = bytearray()
        self._frames: deque[tuple[int, int, bytes]] = deque()
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        # When what is awaited of the client began to be awaited; 0: nothing is.
        self._message_since = time.monotonic()
        self._answer_since = 0.0

    # The transport's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if len(self._server.connections) >= MOST_CONNECTIONS:
            REFUSED.labels("too many connections").inc()
            self._transport.abort()
            self._transport = None
            return
        self._server.connections.add(self)
        CONNECTIONS.set(len(self._server.connections))
        if (raw := transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        CONNECTIONS.set(len(self._server.connections))
        self._transport = None
        self._frames.clear()
        self._buffer.clear()
        self._hold(0)
        # A task under way ends by itself; whoever waits to write is let go.
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._answer_since = time.monotonic()

    def resume_writing(self) -> None:
        self._answer_since = 0.0
        self._writable.set()

    def eof_received(self) -> bool:
        # A client may close its side and still read what it asked for.
        if self._task is None:
            return False
        self._reading = False
        return True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._split()
        except WireError as error:
            self.end("protocol", str(error))
            return
        self._hold(len(self._buffer) + sum(len(frame[2]) for frame in self._frames))
        if self._server.waiting_octets > MOST_WAITING_OCTETS:
            self.end("memory", "the messages of all clients are too large together")
            return
        if self._transport is not None and (len(self._frames) > _MOST_WAITING_MESSAGES or self._held > LARGEST_MESSAGE):
            self._transport.pause_reading()
        if self._frames and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    # Messages ------------------------------------------------------------------------------------------------------

    def _hold(self, octets: int) -> None:
        self._server.waiting_octets += octets - self._held
        self._held = octets

    def _split(self) -> None:
        buffer = self._buffer
        offset = 0
        largest = LARGEST_MESSAGE if self._session.allowed else LARGEST_GREETING
        while len(buffer) - offset >= 16:
            length, request_id, _, opcode = HEADER.unpack_from(buffer, offset)
            if not 16 < length <= largest:
                raise WireError(f"a message of {length} octets")
            if len(buffer) - offset < length:
                break
            self._frames.append((request_id, opcode, bytes(buffer[offset + 16 : offset + length])))
            offset += length
        if offset:
            del buffer[:offset]
            self._message_since = time.monotonic() if buffer else 0.0
        elif buffer and not self._message_since:
            self._message_since = time.monotonic()

    async def _work(self) -> None:
        done = 0
        try:
            while self._frames and self._transport is not None:
                await self._answer(*self._frames.popleft())
                done += 1
                if done % 16 == 0:
                    # Answers that wait for nothing would keep the others waiting.
                    await asyncio.sleep(0)
                if not self._frames and self._transport is not None:
                    self._hold(len(self._buffer))
                    if self._reading:
                        self._transport.resume_reading()
        except WireError as error:
            self.end("protocol", str(error))
        finally:
            self._task = None
            if not self._reading and self._transport is not None:
                self._transport.close()

    async def _answer(self, request_id: int, opcode: int, payload: bytes) -> None:
        began = time.monotonic()
        command = parse(request_id, opcode, payload)
        answer = await self._server.commands.run(command, self._session)
        name = command.name.lower()
        if isinstance(answer, bytes):
            self._server.count(name, True)
            data = answer
        else:
            self._server.count(name, answer["ok"] == 1.0)
            data = bson.encode(answer)
        if name == "find":
            FIND_SECONDS.observe(time.monotonic() - began)
        if command.silent or self._transport is None:
            return
        self._transport.write(reply(command, data))
        if not self._writable.is_set():
            await self._writable.wait()

    # Ending --------------------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> str | None:
        """Why the client has to go, if it has."""
        if self._message_since and now - self._message_since > MESSAGE_SECONDS and self._task is None:
            return "slow to send"
        if self._answer_since and now - self._answer_since > MESSAGE_SECONDS:
            return "slow to read"
        return None

    def end(self, reason: str | None = None, detail: str = "") -> None:
        """Close; with a reason it is the client's fault, and what waits to be sent is dropped."""
        if self._transport is None:
            return
        if reason is None:
            self._transport.close()
            return
        REFUSED.labels(reason).inc()
        log.warning("connection ended: %s", detail or reason)
        self._transport.abort()
