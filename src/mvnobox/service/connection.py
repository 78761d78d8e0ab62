"""What a server's end of a connection has whichever protocol it speaks."""

from __future__ import annotations

import asyncio
from typing import cast

from mvnobox.service.exchange import Application, Limits


class Connection(asyncio.Protocol):
    """A peer's connection; one that leaves too much unread for too long is ended."""

    def __init__(self, app: Application, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._leaving = False
        self._stalled: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._stalled = self._loop.call_later(self._limits.stalled_seconds, self.drop)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    def drop(self) -> None:
        """End the connection at once. What was taken on is still done; its answers go nowhere."""
        if self._transport is not None:
            self._transport.abort()
