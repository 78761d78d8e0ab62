"""A request and its response, whatever carried them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)


class Request:
    """A request that has come whole. Names of header fields are in lower case; `body` is None where it was too long."""

    __slots__ = ("_fields", "body", "method", "path", "query", "version")

    def __init__(self, method: str, target: str, fields: dict[bytes, bytes], body: bytes | None, version: str) -> None:
        self.method, self._fields, self.body, self.version = method, fields, body, version
        self.path, _, self.query = target.partition("?")

    def get(self, name: str) -> str | None:
        """A header field's value."""
        value = self._fields.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def raw(self) -> list[tuple[bytes, bytes]]:
        """All header fields, HTTP/2's pseudo-fields as HTTP/1.1 has them."""
        return [(b"host" if k == b":authority" else k, v) for k, v in self._fields.items() if k != b":scheme"]


@dataclass(slots=True)
class Response:
    """Header fields' names are in lower case."""

    status: int
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


Application = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Limits:
    """What one peer may take. Octets, and seconds."""

    body: int = 65_536
    # So much of a body that is too long is still read, because who is still sending does not hear the answer.
    patience: int = 16 * 65_536
    fields: int = 16_384
    streams: int = 256
    # For a request to come whole.
    request_seconds: float = 30.0
    # For responses to be read, once a mebibyte of them is not.
    stalled_seconds: float = 30.0
    # For a connection without a request under way.
    idle_seconds: float = 75.0
    connections: int = 2_000


async def answered(app: Application, request: Request) -> Response:
    """The application's response; 500 without words where it fails."""
    try:
        return await app(request)
    except Exception as error:  # nothing that a request holds may end the service
        log.error("a request failed", extra={"path": request.path[:200], "error": type(error).__name__})
        return Response(500)
