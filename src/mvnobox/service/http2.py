"""A server's end of one HTTP/2 connection in cleartext (RFC 9113), by nghttp2.

Requests are handed over whole; responses that are ready in one turn of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, cast

from mvnobox.service import nghttp2
from mvnobox.service.connection import Connection
from mvnobox.service.exchange import Application, Limits, Request, Response, answered
from mvnobox.service.nghttp2 import Library, callback, ffi, pairs

log = logging.getLogger(__name__)
_WRITE_HIGH = 1 << 20


class _Stream:
    """A request on its way in, and its response on its way out."""

    __slots__ = ("body", "fields", "out", "sent", "size", "task", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.size = 0
        self.timer: asyncio.TimerHandle | None = timer
        self.task: asyncio.Task[None] | None = None
        self.out = b""
        self.sent = 0


def _connection(user_data: Any) -> Http2Connection:
    return cast(Http2Connection, ffi.from_handle(user_data))


def _on_begin_headers(session: Any, frame: Any, user_data: Any) -> int:
    _connection(user_data).begin(frame.hd.stream_id)
    return 0


def _on_header(
    session: Any, frame: Any, name: Any, name_length: int, value: Any, length: int, flags: int, user_data: Any
) -> int:
    stream = _connection(user_data).streams.get(frame.hd.stream_id)
    if stream is not None and stream.task is None:
        key = ffi.unpack(name, name_length)
        text = ffi.unpack(value, length)
        fields = stream.fields
        # RFC 9110 section 5.2.
        fields[key] = fields[key] + b", " + text if key in fields else text
    return 0


def _on_chunk(session: Any, flags: int, stream_id: int, data: Any, length: int, user_data: Any) -> int:
    _connection(user_data).chunk(stream_id, data, length)
    return 0


def _on_frame(session: Any, frame: Any, user_data: Any) -> int:
    header = frame.hd
    if header.flags & nghttp2.END_STREAM and header.type <= nghttp2.HEADERS:
        _connection(user_data).whole(header.stream_id)
    return 0


def _on_close(session: Any, stream_id: int, error: int, user_data: Any) -> int:
    _connection(user_data).end(stream_id)
    return 0


def _on_read(session: Any, stream_id: int, buffer: Any, room: int, flags: Any, source: Any, user_data: Any) -> int:
    stream = _connection(user_data).streams[stream_id]
    piece = stream.out[stream.sent : stream.sent + room]
    ffi.memmove(buffer, piece, len(piece))
    stream.sent += len(piece)
    if stream.sent == len(stream.out):
        flags[0] = nghttp2.DATA_EOF
    return len(piece)


_CALLBACKS = {
    "on_begin_headers": callback("frame_callback", _on_begin_headers),
    "on_header": callback("header_callback", _on_header),
    "on_data_chunk_recv": callback("chunk_callback", _on_chunk),
    "on_frame_recv": callback("frame_callback", _on_frame),
    "on_stream_close": callback("close_callback", _on_close),
}
_READ = callback("read_callback", _on_read)
_PROVIDER = ffi.new("nghttp2_data_provider *", {"read_callback": _READ})


@functools.cache
def library() -> Library:
    """nghttp2, loaded at the first connection. Raises OSError where the system has none."""
    return Library(_CALLBACKS)


class Http2Connection(Connection):
    """Answers the requests of one peer. Stops reading while the peer leaves too much unread."""

    def __init__(self, app: Application, limits: Limits) -> None:
        super().__init__(app, limits)
        self._library = library()
        self._lib = self._library.lib
        self.streams: dict[int, _Stream] = {}
        self._handle = ffi.new_handle(self)
        made = ffi.new("nghttp2_session **")
        if self._lib.nghttp2_session_server_new(made, self._library.callbacks, self._handle) != 0:
            raise MemoryError
        self._session: Any = made[0]
        self._flushing = False

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        limits = self._limits
        self._library.settings(
            self._session,
            {nghttp2.MAX_CONCURRENT_STREAMS: limits.streams, nghttp2.MAX_HEADER_LIST_SIZE: limits.fields},
        )
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        if self._session is None:
            return
        taken = self._lib.nghttp2_session_mem_recv(self._session, ffi.from_buffer(data), len(data))
        if taken < 0:
            # nghttp2 has said GOAWAY where it could; what is under way is lost with the connection.
            log.info("HTTP/2: %s", self._library.error(taken))
            self._flush()
            self.drop()
            return
        lib, session = self._lib, self._session
        if self._leaving or lib.nghttp2_session_want_write(session) or not lib.nghttp2_session_want_read(session):
            self._flush_soon()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._transport is not None:
            self._transport.resume_reading()
        self._flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self.streams.values():
            if stream.timer is not None:
                stream.timer.cancel()
        self.streams.clear()
        if self._session is not None:
            self._lib.nghttp2_session_del(self._session)
            self._session = None
        super().connection_lost(exc)

    def leave(self) -> None:
        """Refuse new requests, answer those under way, then say GOAWAY and close.

        In this order, because there are clients (the h2 library's) that take nothing after a GOAWAY. A refused stream
        may be sent again elsewhere (RFC 9113 section 8.7).
        """
        self._leaving = True
        self._flush_soon()

    # -- nghttp2's callbacks

    def begin(self, stream_id: int) -> None:
        """A request's header fields begin; or trailers, which nobody reads."""
        if self._leaving and stream_id not in self.streams:
            self._lib.nghttp2_submit_rst_stream(self._session, 0, stream_id, nghttp2.REFUSED_STREAM)
        elif stream_id not in self.streams:
            timer = self._loop.call_later(self._limits.request_seconds, self._late, stream_id)
            self.streams[stream_id] = _Stream(timer)

    def chunk(self, stream_id: int, data: Any, length: int) -> None:
        """A piece of a body. One that is too long is read and dropped up to a point, so that the peer hears why."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        stream.size += length
        if stream.size <= self._limits.body:
            stream.body += ffi.unpack(data, length)
        elif stream.size > self._limits.patience and stream.task is None:
            self.take(stream_id, stream)

    def whole(self, stream_id: int) -> None:
        """A request has come whole."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        if stream.task is None:
            self.take(stream_id, stream)

    def take(self, stream_id: int, stream: _Stream) -> None:
        """Let a request be answered. One that goes on for ever, answered or not, is reset when its time is over."""
        fields = stream.fields
        request = Request(
            fields.pop(b":method", b"").decode("latin-1"),
            fields.pop(b":path", b"").decode("latin-1"),
            fields,
            stream.body if stream.size <= self._limits.body else None,
            "2",
        )
        stream.task = self._loop.create_task(self._answer(stream_id, stream, request))

    def end(self, stream_id: int) -> None:
        """A stream is closed. Its request, if it is under way, is done all the same: it may have been charged."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None and stream.timer is not None:
            stream.timer.cancel()

    # -- answering

    def _late(self, stream_id: int) -> None:
        if self._session is not None:
            self._lib.nghttp2_submit_rst_stream(self._session, 0, stream_id, nghttp2.CANCEL)
            self._flush_soon()

    async def _answer(self, stream_id: int, stream: _Stream, request: Request) -> None:
        response = await answered(self._app, request)
        if self._session is None or self.streams.get(stream_id) is not stream:
            return
        stream.out = response.body
        fields = _fields(response)
        provider = _PROVIDER if response.body and request.method != "HEAD" else ffi.NULL
        code = self._lib.nghttp2_submit_response(self._session, stream_id, fields[0], fields[1], provider)
        if code != 0:
            self._lib.nghttp2_submit_rst_stream(self._session, 0, stream_id, nghttp2.INTERNAL_ERROR)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what nghttp2 has to say, in one piece; close when neither side has anything left."""
        self._flushing = False
        transport = self._transport
        if self._session is None or transport is None or transport.is_closing():
            return
        if self._leaving and not self.streams:
            self._lib.nghttp2_session_terminate_session(self._session, nghttp2.NO_ERROR)
        data, at_end = self._library.outgoing(self._session)
        if data:
            transport.write(data)
        if at_end:
            transport.close()


# Most responses have the fields of one before.
_known: dict[tuple[int, tuple[tuple[str, str], ...]] | None, tuple[Any, int, list[Any]]] = {}
_MOST_KNOWN = 64


def _fields(response: Response) -> tuple[Any, int, list[Any]]:
    """nghttp2's array of a response's fields; the last member keeps their octets."""
    key = (response.status, tuple(response.fields)) if len(response.fields) <= 1 else None
    if key in _known:
        return _known[key]
    status = (b":status", str(response.status).encode())
    made = pairs([status, *((name.encode(), value.encode("latin-1")) for name, value in response.fields)])
    if key is not None and len(_known) < _MOST_KNOWN:
        _known[key] = made
    return made
