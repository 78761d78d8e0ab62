"""`python -m mvnobox.n4 migrate|serve --config FILE`."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mvnobox.n4.nchf import Nchf
from mvnobox.n4.proxy import Ctf
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.shaper import ShaperClient
from mvnobox.n4.store import Store
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.settings import address, load_settings, secret
from mvnobox.service.web import health_routes, run_until_signal, serve_http


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(CtfSettings, config)
    await database.migrate(secret("DATABASE_URL"), Path(__file__).parent / "migrations")


def notify_route(ctf: Ctf) -> Route:
    """Nchf_ConvergedCharging_Notify (TS 32.291 clause 5.2.2.5)."""

    async def notify(request: Request) -> Response:
        try:
            kind = (await request.json())["notificationType"]
            seid = int(request.path_params["seid"])
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"status": 400, "title": "Bad Request"}, 400, media_type="application/problem+json")
        known = await (ctf.gate.abort(seid) if kind == "ABORT_CHARGING" else ctf.gate.reauthorize(seid))
        return Response(status_code=204 if known else 404)

    return Route("/nchf-notify/{seid:int}", notify, methods=["POST"])


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(CtfSettings, config)
    pool = await database.make_pool(secret("DATABASE_URL"), size=8)
    nchf = Nchf(settings, secret("OCS_TOKEN"))
    store = Store(pool)
    ctf = Ctf(settings, store, nchf)
    shaper = [ShaperClient(settings.shaper, store, ctf.gate.throttled).run()] if settings.shaper else []
    app = Starlette(routes=[*health_routes(ctf.ready), notify_route(ctf)])
    try:
        await run_until_signal(ctf.run(), serve_http(app, *address(settings.http)), *shaper)
    finally:
        await nchf.close()
        pool.terminate()


if __name__ == "__main__":
    run_command("n4", {"migrate": migrate, "serve": serve})
