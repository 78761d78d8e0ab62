"""What holds for every request before a route sees it: bounded bodies, bounded addresses, headers that protect."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mvnobox.bss.context import TmfError

LARGEST_BODY = 65_536
LARGEST_QUERY = 8_192
# So much of a body that is too large is read away, so that its sender gets to the answer; more breaks the connection.
LARGEST_DISCARDED = 1_048_576
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Pages have a policy of their own; nothing else is a document.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware. A body is kept as far as is allowed, whatever length it claims."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if https else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        error = _refusal(scope)
        body, whole = await _read(receive)
        if error is None and not whole:
            error = TmfError(413, f"a body has at most {LARGEST_BODY} octets")
        if error is not None:
            await _answer(protected, error)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, protected)


def _refusal(scope: Scope) -> TmfError | None:
    if len(scope.get("query_string", b"")) > LARGEST_QUERY:
        return TmfError(414, f"a query has at most {LARGEST_QUERY} octets")
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value[:20]) > LARGEST_BODY):
            return TmfError(413, f"a body has at most {LARGEST_BODY} octets")
    return None


async def _read(receive: Receive) -> tuple[bytes, bool]:
    """(the body, whether that is all of it)"""
    parts: list[bytes] = []
    size = 0
    while size <= LARGEST_DISCARDED:
        message = await receive()
        if message["type"] != "http.request":
            break
        part = message.get("body", b"")
        size += len(part)
        if size <= LARGEST_BODY:
            parts.append(part)
        if not message.get("more_body"):
            break
    return (b"".join(parts), True) if size <= LARGEST_BODY else (b"", False)


async def _answer(send: Send, error: TmfError) -> None:
    body = json.dumps(error.body()).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
