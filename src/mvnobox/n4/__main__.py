"""`python -m mvnobox.n4 migrate|serve --config FILE`."""

from __future__ import annotations

import logging
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mvnobox.n4.nchf import Nchf
from mvnobox.n4.notify import Addresses
from mvnobox.n4.proxy import Ctf
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.shaper import ShaperClient
from mvnobox.n4.store import Store
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.database import TROUBLE
from mvnobox.service.settings import address, load_settings, secret
from mvnobox.service.web import health_routes, run_until_signal, serve_http

log = logging.getLogger(__name__)
# User planes give a report up after some ten seconds; what the database does not take by then is kept by us.
STATEMENT_SECONDS = 5.0


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(CtfSettings, config)
    await database.migrate(secret("DATABASE_URL"), Path(__file__).parent / "migrations")


def _problem(status: int, title: str) -> Response:
    return JSONResponse({"status": status, "title": title}, status, media_type="application/problem+json")


def notify_route(ctf: Ctf, addresses: Addresses) -> Route:
    """Nchf_ConvergedCharging_Notify (TS 32.291 clause 5.2.2.5).

    204: what was said is kept in the database, and done in the end. 404: no such session, as for an address that was
    guessed. 503: it could not be kept; the OCS says it again.
    """

    async def notify(request: Request) -> Response:
        seid = request.path_params["seid"]
        if not addresses.is_right(seid, request.path_params["tag"]):
            return _problem(404, "Not Found")
        try:
            kind = (await request.json())["notificationType"]
        except (ValueError, KeyError, TypeError):
            return _problem(400, "Bad Request")
        try:
            known = await (ctf.gate.abort(seid) if kind == "ABORT_CHARGING" else ctf.gate.reauthorize(seid))
        except TROUBLE as error:
            log.warning("a notification could not be kept: %s", type(error).__name__)
            return _problem(503, "Service Unavailable")
        return Response(status_code=204) if known else _problem(404, "Not Found")

    return Route("/nchf-notify/{seid:int}/{tag}", notify, methods=["POST"])


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(CtfSettings, config)
    pool = await database.make_pool(secret("DATABASE_URL"), size=8, seconds=STATEMENT_SECONDS)
    addresses = Addresses(secret("OCS_TOKEN"))
    nchf = Nchf(settings, secret("OCS_TOKEN"), addresses)
    store = Store(pool)
    ctf = Ctf(settings, store, nchf)
    shaper = [ShaperClient(settings.shaper, store, ctf.gate.switch.throttled).run()] if settings.shaper else []
    app = Starlette(routes=[*health_routes(ctf.ready), notify_route(ctf, addresses)])
    try:
        await run_until_signal(ctf.run(), serve_http(app, *address(settings.http)), *shaper, leaving=ctf.leaving)
    finally:
        await nchf.close()
        pool.terminate()


if __name__ == "__main__":
    run_command("n4", {"migrate": migrate, "serve": serve})
