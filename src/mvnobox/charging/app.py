"""The OCS as one application of Granian's: charging requests on the short way, all else by FastAPI, bodies bounded."""

from __future__ import annotations

import logging
from typing import Any

import asyncpg
from starlette.routing import Route

from mvnobox.charging.accounts import Accounts
from mvnobox.charging.batches import Batches
from mvnobox.charging.ledger import Ledger
from mvnobox.charging.management import make_management
from mvnobox.charging.nchf import NCHF, Nchf
from mvnobox.charging.problems import Problem
from mvnobox.charging.rating.book import Ratings
from mvnobox.charging.settings import OcsSettings
from mvnobox.charging.tenants import Tenants
from mvnobox.service.rsgi import Http, answer_by_asgi
from mvnobox.service.web import health_routes

log = logging.getLogger(__name__)
LARGEST_BODY = 65_536
LARGEST_PATIENCE = 16 * LARGEST_BODY


class OcsApp:
    """RSGI. Every answer but a success is a problem document; no exception leaves."""

    def __init__(self, pool: asyncpg.Pool, settings: OcsSettings, tenant_key: bytes) -> None:
        self.ledger = Ledger(pool, settings)
        tenants = Tenants(tenant_key)
        self.ratings = Ratings(pool)
        self.engine = Batches(pool, self.ledger, settings)
        self._nchf = Nchf(self.engine, settings, tenants, self.ratings)
        self._rest = make_management(Accounts(pool), tenants, self.ratings)
        routes: list[Route] = health_routes(self.ledger.ready)
        self._rest.router.routes.extend(routes)

    async def __rsgi__(self, scope: Any, http: Http) -> None:
        """One request. Raises nothing."""
        path: str = scope.path
        try:
            fields = scope.headers
            body = await _body(fields, http)
            if path.startswith(NCHF) and path[len(NCHF) : len(NCHF) + 1] in ("", "/"):
                status, more, answer = await self._nchf.answer(scope.method, path[len(NCHF) :], fields, body)
            else:
                await answer_by_asgi(self._rest, scope, body, http)
                return
        except Problem as problem:
            status, answer = problem.status, problem.body()
            more = [*problem.headers.items(), ("content-type", "application/problem+json")]
        except Exception as error:  # nothing that a request holds may end the service
            log.error("a request failed", extra={"path": path[:200], "error": type(error).__name__})
            status, answer = 503, Problem(503, "SYSTEM_FAILURE").body()
            more = [("content-type", "application/problem+json")]
        if status == 204:
            http.response_empty(status, more)
        else:
            http.response_bytes(status, more, answer)


async def _body(fields: Any, http: Http) -> bytes:
    """The whole body. Raises Problem 413 over the limit, whether its length was announced or not."""
    length = fields.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise Problem(400, "INVALID_MSG_FORMAT", "the content length is not a number")
    if length is not None and len(length) < 6 and int(length) <= LARGEST_BODY:
        # The server holds a body to its length.
        return await http()
    body, size = b"", 0
    # What is too much is read and dropped up to a point: a consumer that is still sending would not hear the answer.
    async for piece in http:
        size += len(piece)
        if size <= LARGEST_BODY:
            body += piece
        if size > LARGEST_PATIENCE:
            break
    if size > LARGEST_BODY:
        raise Problem(413, None, f"a body has at most {LARGEST_BODY} octets")
    return body
