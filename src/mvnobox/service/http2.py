"""A server's end of one HTTP/2 connection in cleartext (RFC 9113), by nghttp2.

Requests are handed over whole; responses that are ready in one turn of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
import logging

from mvnobox.service import nghttp2
from mvnobox.service.connection import Connection
from mvnobox.service.exchange import Application, Limits, Request, Response, answered
from mvnobox.service.nghttp2 import End, Fields, Sent, Session, pairs

log = logging.getLogger(__name__)
_WRITE_HIGH = 1 << 20


class _Stream(Sent):
    """A request on its way in, and its response on its way out."""

    __slots__ = ("body", "fields", "size", "task", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        super().__init__()
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.size = 0
        self.timer: asyncio.TimerHandle | None = timer
        self.task: asyncio.Task[None] | None = None


class Http2Connection(Connection, End):
    """Answers the requests of one peer. Stops reading while the peer leaves too much unread."""

    def __init__(self, app: Application, limits: Limits) -> None:
        super().__init__(app, limits)
        self.streams: dict[int, _Stream] = {}
        settings = {nghttp2.MAX_CONCURRENT_STREAMS: limits.streams, nghttp2.MAX_HEADER_LIST_SIZE: limits.fields}
        self._session: Session | None = Session(self, server=True, settings=settings)
        self._flushing = False

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        if self._session is None:
            return
        wrong = self._session.receive(data)
        if wrong is not None:
            # What is under way is lost with the connection.
            log.info("HTTP/2: %s", wrong)
            self._flush()
            self.drop()
        elif self._leaving or self._session.wants_flush:
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
            self._session.delete()
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
            assert self._session is not None
            self._session.reset(stream_id, nghttp2.REFUSED_STREAM)
        elif stream_id not in self.streams:
            timer = self._loop.call_later(self._limits.request_seconds, self._late, stream_id)
            self.streams[stream_id] = _Stream(timer)

    def header(self, stream_id: int, name: bytes, value: bytes) -> None:
        """A header field, unless it is a trailer; fields of one name are a list (RFC 9110 section 5.2)."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.task is None:
            fields = stream.fields
            fields[name] = fields[name] + b", " + value if name in fields else value

    def goaway(self) -> None:
        """The client asks for nothing more; what it has asked for is answered."""

    def outgoing(self, stream_id: int) -> Sent:
        """A response."""
        return self.streams[stream_id]

    def chunk(self, stream_id: int, data: bytes) -> None:
        """A piece of a body. One that is too long is read and dropped up to a point, so that the peer hears why."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        stream.size += len(data)
        if stream.size <= self._limits.body:
            stream.body += data
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

    def end(self, stream_id: int, error: int) -> None:
        """A stream is closed. Its request, if it is under way, is done all the same: it may have been charged."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None and stream.timer is not None:
            stream.timer.cancel()

    # -- answering

    def _late(self, stream_id: int) -> None:
        if self._session is not None:
            self._session.reset(stream_id, nghttp2.CANCEL)
            self._flush_soon()

    async def _answer(self, stream_id: int, stream: _Stream, request: Request) -> None:
        response = await answered(self._app, request)
        if self._session is None or self.streams.get(stream_id) is not stream:
            return
        stream.out = response.body
        body = bool(response.body) and request.method != "HEAD"
        self._session.respond(stream_id, _fields(response), body=body)
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
            self._session.terminate()
        data, at_end = self._session.outgoing()
        if data:
            transport.write(data)
        if at_end:
            transport.close()


# Most responses have the fields of one before.
_known: dict[tuple[int, tuple[tuple[str, str], ...]] | None, Fields] = {}
_MOST_KNOWN = 64


def _fields(response: Response) -> Fields:
    key = (response.status, tuple(response.fields)) if len(response.fields) <= 1 else None
    if key in _known:
        return _known[key]
    status = (b":status", str(response.status).encode())
    made = pairs([status, *((name.encode(), value.encode("latin-1")) for name, value in response.fields)])
    if key is not None and len(_known) < _MOST_KNOWN:
        _known[key] = made
    return made
