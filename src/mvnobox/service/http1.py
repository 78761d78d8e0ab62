"""A server's end of one HTTP/1.1 connection in cleartext (RFC 9112), by h11."""

from __future__ import annotations

import asyncio
import logging

import h11

from mvnobox.service.connection import Connection
from mvnobox.service.exchange import Application, Limits, Request, Response, answered

log = logging.getLogger(__name__)


class Http1Connection(Connection):
    """Answers one request after the other; what comes meanwhile waits in the peer's and the kernel's buffers."""

    def __init__(self, app: Application, limits: Limits) -> None:
        super().__init__(app, limits)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.fields)
        self._head: h11.Request | None = None
        self._body = b""
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(limits.request_seconds, self.drop)

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._h11.receive_data(data)
        self._read()

    def eof_received(self) -> bool:
        self._h11.receive_data(b"")
        self._read()
        # A response under way is still written.
        return self._task is not None

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def leave(self) -> None:
        """Close once the request under way is answered."""
        self._leaving = True
        if self._task is None and self._transport is not None:
            self._transport.close()

    # -- reading

    def _within(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.drop)

    def _read(self) -> None:
        """Take what has come, up to the end of a request."""
        while self._transport is not None and self._task is None:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                log.info("HTTP/1.1: %s", error)
                self._write(Response(error.error_status_hint, [("connection", "close")]), with_body=True)
                self._close()
                return
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._head, self._body, self._size = event, b"", 0
                self._within(self._limits.request_seconds)
            elif isinstance(event, h11.Data):
                self._size += len(event.data)
                if self._size <= self._limits.body:
                    self._body += bytes(event.data)
                elif self._size > self._limits.patience:
                    self._start()
            elif isinstance(event, h11.EndOfMessage):
                self._start()
            else:
                self._close()
                return

    def _start(self) -> None:
        head = self._head
        assert head is not None  # h11 gives no data without a head
        self._timer.cancel()
        fields: dict[bytes, bytes] = {}
        for name, value in head.headers:
            # RFC 9110 section 5.2.
            fields[name] = fields[name] + b", " + value if name in fields else value
        body = self._body if self._size <= self._limits.body else None
        request = Request(
            head.method.decode("latin-1"), head.target.decode("latin-1"), fields, body, head.http_version.decode()
        )
        if self._transport is not None:
            self._transport.pause_reading()
        self._task = self._loop.create_task(self._answer(request))

    # -- answering

    async def _answer(self, request: Request) -> None:
        response = await answered(self._app, request)
        self._task = None
        if self._transport is None:
            return
        # A body that is too long has not come to its end.
        last = self._leaving or self._h11.their_state is h11.SEND_BODY
        if last:
            response = Response(response.status, [*response.fields, ("connection", "close")], response.body)
        self._write(response, with_body=request.method != "HEAD")
        if last or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._close()
            return
        self._h11.start_next_cycle()
        self._within(self._limits.idle_seconds)
        self._transport.resume_reading()
        self._read()

    def _write(self, response: Response, *, with_body: bool) -> None:
        fields = list(response.fields)
        if response.status != 204:
            fields.append(("content-length", str(len(response.body))))
        try:
            self._send(h11.Response(status_code=response.status, headers=fields))
            if with_body and response.body:
                self._send(h11.Data(data=response.body))
            self._send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            # The peer is in a state in which it can be told nothing.
            log.info("HTTP/1.1: %s", error)
            self.drop()

    def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data and self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
