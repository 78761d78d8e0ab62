"""An HTTP/2 client for one server (RFC 9113): one connection, many requests under way on it, none repeated by itself.

Over TCP with prior knowledge, or over TLS for `https`. The protocol is nghttp2's; what a general client adds to it costs
more than the request.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast
from urllib.parse import urlsplit

from mvnobox.service import nghttp2
from mvnobox.service.nghttp2 import End, Sent, Session, pairs

CONNECT_SECONDS = 3.0
# Octets of a response's body; who sends more is not the server that was asked for.
LARGEST = 1 << 20


class NoResponse(Exception):
    """The server gave no response; whether it got the request is not known."""


class Response:
    """A response; header names are in lower case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""


class _Exchange(Sent):
    """A request that is under way, and the response so far."""

    __slots__ = ("answer", "response")

    def __init__(self, out: bytes, answer: asyncio.Future[Response]) -> None:
        super().__init__(out)
        self.response, self.answer = Response(), answer

    def fail(self, why: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(NoResponse(why))


class _Connection(asyncio.Protocol, End):
    """A connection while it lasts. Requests beyond what the server allows at once wait in nghttp2."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = Session(self, server=False, settings={nghttp2.ENABLE_PUSH: 0})
        self._flushing = False
        self._under_way: dict[int, _Exchange] = {}
        self.usable = False
        # When the server was heard of last, by the loop's clock.
        self.heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.usable = cast(asyncio.Transport, transport), True
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self._session is None:
            return
        wrong = self._session.receive(data)
        if wrong is not None:
            self._flush()
            self.drop(f"HTTP/2: {wrong}")
        elif self._session.wants_flush:
            self._flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "the connection was closed")
        if self._session is not None:
            self._session.delete()
            self._session = None

    def drop(self, why: str) -> None:
        """Give the connection up, and what is under way on it."""
        self._fail(why)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        self.usable = False
        for exchange in self._under_way.values():
            exchange.fail(why)

    # -- nghttp2's callbacks

    def header(self, stream_id: int, name: bytes, value: bytes) -> None:
        """A header field of a response."""
        exchange = self._under_way.get(stream_id)
        if exchange is None:
            return
        text = value.decode("latin-1")
        if name == b":status":
            # Also after an interim response, whose fields are not the response's (RFC 9110 section 15.2).
            exchange.response.status, exchange.response.headers = int(text), {}
        else:
            exchange.response.headers[name.decode("latin-1")] = text

    def chunk(self, stream_id: int, data: bytes) -> None:
        """A piece of a body."""
        exchange = self._under_way.get(stream_id)
        if exchange is None:
            return
        response = exchange.response
        if len(response.body) + len(data) > LARGEST:
            exchange.fail(f"a response of more than {LARGEST} octets")
            self._reset(stream_id)
        else:
            response.body += data

    def whole(self, stream_id: int) -> None:
        """A response has come whole."""
        exchange = self._under_way.get(stream_id)
        if exchange is not None and not exchange.answer.done():
            exchange.answer.set_result(exchange.response)

    def end(self, stream_id: int, error: int) -> None:
        """A stream is closed."""
        exchange = self._under_way.pop(stream_id, None)
        if exchange is not None:
            exchange.fail(f"HTTP/2: the stream was closed with error code {error}")

    def goaway(self) -> None:
        """What the server has taken up to here it still answers; new requests go elsewhere."""
        self.usable = False

    def outgoing(self, stream_id: int) -> Sent:
        """A request."""
        return self._under_way[stream_id]

    # -- requests

    async def request(self, fields: list[tuple[bytes, bytes]], body: bytes) -> Response:
        """Raises NoResponse."""
        if not self.usable or self._session is None:
            raise NoResponse("the connection was closed")
        try:
            stream_id = self._session.request(pairs(fields), body=bool(body))
        except ValueError as error:
            # No stream numbers are left, for example.
            self.usable = False
            raise NoResponse(f"HTTP/2: {error}") from None
        exchange = self._under_way[stream_id] = _Exchange(body, self._loop.create_future())
        self._flush_soon()
        try:
            return await exchange.answer
        except asyncio.CancelledError:
            self._reset(stream_id)
            raise

    def _reset(self, stream_id: int) -> None:
        if self._session is not None and stream_id in self._under_way:
            self._session.reset(stream_id, nghttp2.CANCEL)
            self._flush_soon()

    def _flush_soon(self) -> None:
        """What several requests have to say goes out at once."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        transport = self._transport
        if self._session is None or transport is None or transport.is_closing():
            return
        data, at_end = self._session.outgoing()
        if data:
            transport.write(data)
        if at_end:
            self.usable = False
            transport.close()


class Http2:
    """Requests to one server. A connection that fails is replaced by the next request."""

    def __init__(self, base_url: str, headers: dict[str, str], *, seconds: float) -> None:
        """`seconds`: how long a response may take. Raises ValueError for an address that is none."""
        where = urlsplit(base_url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise ValueError(f"{base_url!r} is no address of an HTTP server: it has to be http://HOST[:PORT]")
        tls = where.scheme == "https"
        self._host, self._port = where.hostname, where.port or (443 if tls else 80)
        self._tls = ssl.create_default_context() if tls else None
        if self._tls is not None:
            self._tls.set_alpn_protocols(["h2"])
        self._prefix = where.path.rstrip("/")
        self._first = [
            (b":method", b"POST"), (b":scheme", where.scheme.encode()), (b":authority", where.netloc.encode()),
        ]  # fmt: skip
        self._rest = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._seconds = seconds
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def post(self, path: str, body: bytes) -> Response:
        """Raises NoResponse."""
        fields = [
            *self._first, (b":path", (self._prefix + path).encode()), *self._rest,
            (b"content-length", str(len(body)).encode()),
        ]  # fmt: skip
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connect()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._seconds):
                return await connection.request(fields, body)
        except TimeoutError:
            if connection.heard < begun:
                # Not one word for so long: whoever was there is gone.
                connection.drop("the server is silent")
            raise NoResponse(f"no response within {self._seconds} s") from None

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and self._connection.usable:
                return self._connection
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, made = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
            except (OSError, TimeoutError) as error:
                raise NoResponse(f"no connection: {error or type(error).__name__}") from None
            self._connection = made
            return made

    async def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.drop("closed")
