"""The OCS as one application: charging requests on the short way, all else by FastAPI."""

from __future__ import annotations

import logging

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
from mvnobox.service.asgi import answer_by_asgi
from mvnobox.service.exchange import Request, Response
from mvnobox.service.pipeline import Pipeline
from mvnobox.service.web import health_routes

log = logging.getLogger(__name__)
LARGEST_BODY = 65_536


class OcsApp:
    """Every answer but a success is a problem document; no exception leaves."""

    def __init__(self, pool: asyncpg.Pool, pipeline: Pipeline, settings: OcsSettings, tenant_key: bytes) -> None:
        self.ledger = Ledger(pool, settings)
        tenants = Tenants(tenant_key)
        self.ratings = Ratings(pool)
        self.engine = Batches(pipeline, self.ledger, settings)
        self._nchf = Nchf(self.engine, settings, tenants, self.ratings)
        self._rest = make_management(Accounts(pool), tenants, self.ratings)
        routes: list[Route] = health_routes(self.ledger.ready)
        self._rest.router.routes.extend(routes)

    async def respond(self, request: Request) -> Response:
        """One request. Raises nothing."""
        path = request.path
        try:
            if request.body is None:
                raise Problem(413, None, f"a body has at most {LARGEST_BODY} octets")
            if path.startswith(NCHF) and path[len(NCHF) : len(NCHF) + 1] in ("", "/"):
                return await self._nchf.answer(request.method, path[len(NCHF) :], request, request.body)
            return await answer_by_asgi(self._rest, request)
        except Problem as problem:
            return _refusal(problem)
        except Exception as error:  # nothing that a request holds may end the service
            log.error("a request failed", extra={"path": path[:200], "error": type(error).__name__})
            return _refusal(Problem(503, "SYSTEM_FAILURE"))


def _refusal(problem: Problem) -> Response:
    fields = [*problem.headers.items(), ("content-type", "application/problem+json")]
    return Response(problem.status, fields, problem.body())
