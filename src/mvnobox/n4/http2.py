"""An HTTP/2 client for one server (RFC 9113): one connection, many requests under way on it, none repeated by itself.

Over TCP with prior knowledge, or over TLS for `https`. The protocol is the h2 library's; what a general client adds to it
costs more than the request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions

CONNECT_SECONDS = 3.0


class NoResponse(Exception):
    """The server gave no response; whether it got the request is not known."""


class Response:
    """A response; header names are in lower case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""


_Exchange = tuple[Response, "asyncio.Future[Response]"]


class _Connection(asyncio.Protocol):
    """A connection while it lasts."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[int, _Exchange] = {}
        # Those that wait for a stream or for room in the flow control window.
        self._turns: deque[asyncio.Future[None]] = deque()
        self._flushing = False
        self.usable = False
        # When the server was heard of last, by the loop's clock.
        self.heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.usable = transport, True  # type: ignore[assignment]
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self._flush()
            self.drop(f"HTTP/2: {error}")
            return
        for event in events:
            self._take(event)
        self._flush_soon()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                exchange = self._under_way.get(event.stream_id or 0)
                if exchange is not None:
                    headers = {str(name): str(value) for name, value in event.headers or ()}
                    exchange[0].status, exchange[0].headers = int(headers.pop(":status", "0")), headers
            case h2.events.DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                exchange = self._under_way.get(event.stream_id or 0)
                if exchange is not None:
                    exchange[0].body += event.data or b""
            case h2.events.StreamEnded():
                exchange = self._under_way.get(event.stream_id or 0)
                if exchange is not None and not exchange[1].done():
                    exchange[1].set_result(exchange[0])
            case h2.events.StreamReset():
                exchange = self._under_way.get(event.stream_id or 0)
                if exchange is not None and not exchange[1].done():
                    exchange[1].set_exception(NoResponse(f"HTTP/2: reset with error code {event.error_code}"))
            case h2.events.ConnectionTerminated():
                # What the server has taken up to here it still answers; new requests go elsewhere.
                self.usable = False
                last = event.last_stream_id or 0
                for stream, (_, answer) in self._under_way.items():
                    if stream > last and not answer.done():
                        answer.set_exception(NoResponse("HTTP/2: the server is leaving"))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._next_turns()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "the connection was closed")

    def drop(self, why: str) -> None:
        """Give the connection up, and what is under way on it."""
        self._fail(why)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        self.usable = False
        for _, answer in self._under_way.values():
            if not answer.done():
                answer.set_exception(NoResponse(why))
        self._next_turns()

    def _next_turns(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)

    def _flush_soon(self) -> None:
        """What several requests have to say goes out at once."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def request(self, headers: list[tuple[str, str]], body: bytes) -> Response:
        """Raises NoResponse."""
        connection = self._h2
        while self.usable and (
            connection.open_outbound_streams >= connection.remote_settings.max_concurrent_streams
            or connection.outbound_flow_control_window < len(body)
        ):
            turn: asyncio.Future[None] = self._loop.create_future()
            self._turns.append(turn)
            await turn
        if not self.usable:
            raise NoResponse("the connection was closed")
        exchange: _Exchange = (Response(), self._loop.create_future())
        stream = 0
        try:
            stream = connection.get_next_available_stream_id()
            self._under_way[stream] = exchange
            connection.send_headers(stream, headers)
            connection.send_data(stream, body, end_stream=True)
            self._flush_soon()
            return await exchange[1]
        except h2.exceptions.ProtocolError as error:
            # No stream numbers are left, or the server allows none so large.
            self.usable = False
            raise NoResponse(f"HTTP/2: {error}") from None
        except asyncio.CancelledError:
            if self.usable and not exchange[1].done():
                connection.reset_stream(stream)
                self._flush_soon()
            raise
        finally:
            self._under_way.pop(stream, None)
            if self._turns:
                self._next_turns()


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
        self._first = [(":method", "POST"), (":scheme", where.scheme), (":authority", where.netloc)]
        self._rest = [(name.lower(), value) for name, value in headers.items()]
        self._seconds = seconds
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def post(self, path: str, body: bytes) -> Response:
        """Raises NoResponse."""
        headers = [*self._first, (":path", self._prefix + path), *self._rest, ("content-length", str(len(body)))]
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connect()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._seconds):
                return await connection.request(headers, body)
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
