"""What the CTF tells the shaper: every slowed session, each address once, again after trouble."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.ports import free_port

from mvnobox.n4.shaper import ShaperClient, document
from mvnobox.service.web import serve_http


class Rates(NamedTuple):
    uplink: int
    downlink: int


def test_an_address_is_the_newest_sessions() -> None:
    throttled = [(["10.45.0.2", "2001:db8::/64"], Rates(1, 2)), (["10.45.0.2"], Rates(3, 4)), ([], Rates(5, 6))]
    assert document(throttled) == [
        {"addresses": ["2001:db8::/64"], "uplink": 1, "downlink": 2},
        {"addresses": ["10.45.0.2"], "uplink": 3, "downlink": 4},
    ]


class Sessions:
    """A store of slowed sessions."""

    def __init__(self) -> None:
        self.now: list[tuple[list[str], Rates]] = []

    async def throttled(self) -> list[tuple[list[str], Rates]]:
        return self.now


async def test_a_change_is_told_at_once_and_trouble_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    told: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue()
    statuses: list[int] = []

    async def put(request: Request) -> Response:
        told.put_nowait((await request.json())["throttles"])
        return Response(status_code=statuses.pop() if statuses else 204)

    port = free_port()
    app = Starlette(routes=[Route("/v1/throttles", put, methods=["PUT"])])
    server = asyncio.ensure_future(serve_http(app, "127.0.0.1", port))
    sessions, changed = Sessions(), asyncio.Event()
    client = asyncio.ensure_future(ShaperClient(f"http://127.0.0.1:{port}", sessions, changed).run())  # type: ignore[arg-type]
    try:
        assert await asyncio.wait_for(told.get(), 10) == []
        sessions.now = [(["10.45.0.2"], Rates(1000, 2000))]
        statuses.append(503)
        changed.set()
        said = [{"addresses": ["10.45.0.2"], "uplink": 1000, "downlink": 2000}]
        # Sooner than the usual round: once for the change, once because it was not done.
        assert await asyncio.wait_for(told.get(), 3) == said
        assert await asyncio.wait_for(told.get(), 3) == said
        assert "cannot be slowed" in caplog.text
    finally:
        for task in (client, server):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_shaper_that_is_away_is_no_failure() -> None:
    away = ShaperClient(f"http://127.0.0.1:{free_port()}", Sessions(), asyncio.Event())  # type: ignore[arg-type]
    async with httpx.AsyncClient() as client:
        assert not await away.tell(client)
