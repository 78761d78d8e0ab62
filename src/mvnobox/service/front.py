"""HTTP/1.1 and HTTP/2 (cleartext, prior knowledge) on one port, for a service whose requests have to be quick.

Both protocols are libraries' (h11, nghttp2) and live in the service's own event loop: what a general server costs more
is the way from its threads and back, twice a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import cast

from mvnobox.service.exchange import Application, Limits
from mvnobox.service.http1 import Http1Connection
from mvnobox.service.http2 import Http2Connection
from mvnobox.service.nghttp2 import library

log = logging.getLogger(__name__)
# RFC 9113 section 3.4. Its first line tells it from every HTTP/1.1 request.
_PREFACE = b"PRI * HTTP/2.0\r\n"
LEAVING_SECONDS = 3.0


class _Opening(asyncio.Protocol):
    """A connection that has not said yet which protocol it speaks."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._front.connections) >= self._front.limits.connections:
            log.warning("too many connections")
            self._transport.abort()
            return
        self._front.connections.add(self)
        seconds = self._front.limits.request_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) < len(_PREFACE) and _PREFACE.startswith(self._data):
            return
        self._forget()
        assert self._transport is not None  # data comes after connection_made
        self._front.take_over(self._transport, self._data, http2=self._data.startswith(_PREFACE))

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def leave(self) -> None:
        """There is nothing under way."""
        if self._transport is not None:
            self._transport.abort()

    drop = leave

    def _forget(self) -> None:
        self._front.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()


Connection = _Opening | Http1Connection | Http2Connection


class Front:
    """Listens, and knows its connections."""

    def __init__(self, app: Application, limits: Limits | None = None) -> None:
        self._app = app
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()

    def take_over(self, transport: asyncio.Transport, data: bytes, *, http2: bool) -> None:
        """A connection's protocol is known, with what it has sent."""
        made = (Http2Connection if http2 else Http1Connection)(self._app, self.limits)
        self.connections.add(made)
        made.closed.add_done_callback(lambda _: self.connections.discard(made))
        transport.set_protocol(made)
        made.connection_made(transport)
        made.data_received(data)

    async def serve(self, host: str, port: int) -> None:
        """Serve until cancelled; requests under way are then answered. Raises OSError."""
        library()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Opening(self), host, port, backlog=1024)
        try:
            await server.serve_forever()
        finally:
            server.close()
            leaving = list(self.connections)
            for connection in leaving:
                connection.leave()
            waits = [one.closed for one in leaving if not isinstance(one, _Opening)]
            if waits:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(waits, timeout=LEAVING_SECONDS)
            for connection in list(self.connections):
                connection.drop()
