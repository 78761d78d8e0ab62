"""HTTP of the services: health, metrics and an HTTP/1.1 and HTTP/2 (cleartext, prior knowledge) server on one port."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

log = logging.getLogger(__name__)


def health_routes(ready: Callable[[], Awaitable[str | None]]) -> list[Route]:
    """`/healthz`, `/readyz` (`ready` gives None or what is missing) and `/metrics`."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(request: Request) -> Response:
        try:
            missing = await ready()
        except Exception as error:  # whatever fails, the service is not ready
            missing = f"{type(error).__name__}"
        return PlainTextResponse("ready") if missing is None else JSONResponse({"missing": missing}, status_code=503)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


async def serve_http(app: Any, host: str, port: int) -> None:
    """Serve an ASGI application until cancelled."""
    server = Server(app, address=host, port=port, interface=Interfaces.ASGI, http=HTTPModes.auto, log_enabled=False)
    task = asyncio.ensure_future(server.serve())
    try:
        await asyncio.shield(task)
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.wait_for(task, 3)


async def run_until_signal(*parts: Coroutine[Any, Any, Any], leaving: asyncio.Event | None = None) -> None:
    """Run the parts of a service; SIGTERM and SIGINT end all of them, and so does the failure of one.

    A pod that is deleted serves on for LINGER_SECONDS (environment; none without it) after SIGTERM, while its successor
    starts: Kubernetes sends it what there is as long as no other one is ready. `leaving` is set meanwhile. SIGINT and a
    second signal end it at once.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    linger = float(os.environ.get("LINGER_SECONDS") or 0)
    lingering: asyncio.TimerHandle | None = None

    def leave() -> None:
        nonlocal lingering
        if lingering is not None or not linger:
            stop.set()
            return
        log.info("serving on for %s s", linger)
        lingering = loop.call_later(linger, stop.set)
        if leaving is not None:
            leaving.set()

    loop.add_signal_handler(signal.SIGTERM, leave)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    tasks = [asyncio.ensure_future(part) for part in parts]
    stopping = asyncio.ensure_future(stop.wait())
    # What stands now stays: left out of later collections, which would hold answers up.
    gc.collect()
    gc.freeze()
    await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    if lingering is not None:
        lingering.cancel()
    failed = next((t.exception() for t in tasks if t.done() and not t.cancelled() and t.exception()), None)
    for task in (*tasks, stopping):
        task.cancel()
    await asyncio.gather(*tasks, stopping, return_exceptions=True)
    if failed is not None:
        raise failed
    log.info("stopped")
