"""The OCS as one ASGI application: charging requests on the short way, all else by FastAPI, bodies bounded for both."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import asyncpg
from starlette.routing import Route

from mvnobox.charging.accounts import Accounts
from mvnobox.charging.ledger import Ledger
from mvnobox.charging.management import make_management
from mvnobox.charging.nchf import NCHF, Nchf
from mvnobox.charging.problems import Problem
from mvnobox.charging.settings import OcsSettings
from mvnobox.charging.tenants import Tenants
from mvnobox.service.web import health_routes

log = logging.getLogger(__name__)
LARGEST_BODY = 65_536
LARGEST_PATIENCE = 16 * LARGEST_BODY
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class OcsApp:
    """ASGI. Every answer but a success is a problem document; no exception leaves."""

    def __init__(self, pool: asyncpg.Pool, settings: OcsSettings, tenant_key: bytes) -> None:
        self.ledger = Ledger(pool, settings)
        tenants = Tenants(tenant_key)
        self._nchf = Nchf(self.ledger, settings, tenants)
        self._rest = make_management(Accounts(pool), tenants)
        routes: list[Route] = health_routes(self.ledger.ready)
        self._rest.router.routes.extend(routes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        try:
            fields = dict(scope["headers"])
            body = await _body(fields, receive)
            path: str = scope["path"]
            if path.startswith(NCHF) and path[len(NCHF) : len(NCHF) + 1] in ("", "/"):
                status, more, answer = await self._nchf.answer(scope["method"], path[len(NCHF) :], fields, body)
            else:
                await self._rest(scope, _replay(body, receive), send)
                return
        except Problem as problem:
            status, answer = problem.status, problem.body()
            more = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
            more.append((b"content-type", b"application/problem+json"))
        except Exception as error:  # nothing that a request holds may end the service
            log.error("a request failed", extra={"path": scope["path"][:200], "error": type(error).__name__})
            status, answer = 503, Problem(503, "SYSTEM_FAILURE").body()
            more = [(b"content-type", b"application/problem+json")]
        if status != 204:
            more = [*more, (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": more})
        await send({"type": "http.response.body", "body": answer})


async def _body(fields: dict[bytes, bytes], receive: Receive) -> bytes:
    """The whole body. Raises Problem 413 over the limit, whether its length was announced or not."""
    length = fields.get(b"content-length", b"0")
    if not length.isdigit():
        raise Problem(400, "INVALID_MSG_FORMAT", "the content length is not a number")
    message = await receive()
    body: bytes = message.get("body", b"")
    size = len(body)
    # What is too much is read and dropped up to a point: a consumer that is still sending would not hear the answer.
    while message.get("more_body") and size <= LARGEST_PATIENCE:
        message = await receive()
        piece = message.get("body", b"")
        size += len(piece)
        if size <= LARGEST_BODY:
            body += piece
    if size > LARGEST_BODY:
        raise Problem(413, None, f"a body has at most {LARGEST_BODY} octets")
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` for an application that has yet to read what has been read."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
