"""`python -m mvnobox.core.shaper serve --config FILE`: beside a UPF, in its network namespace, with NET_ADMIN."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import Gauge
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mvnobox.core.shaper.plan import Batch, Devices, Kernel, Lines
from mvnobox.service.command import run_command
from mvnobox.service.settings import Settings, address, load_settings
from mvnobox.service.web import health_routes, run_until_signal, serve_http

log = logging.getLogger(__name__)
SLOWED = Gauge("shaper_lines_slowed", "Sessions that are slowed at the moment")
LARGEST_BODY = 8_000_000
COMMAND_SECONDS = 20.0


class ShaperSettings(Settings):
    listen: str = "0.0.0.0:8095"
    down: list[str] = Field(min_length=1, max_length=8, description="devices towards the UEs")
    up: str = Field(default="eth0", description="the device that the UEs' packets leave by")


class Refused(Exception):
    """The kernel did not take something; what it said."""


async def _run(program: str, *arguments: str, text: str, must: bool = True) -> None:
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, said = await asyncio.wait_for(process.communicate(text.encode()), COMMAND_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Refused(f"{program} did not end") from None
    if process.returncode != 0 and must:
        raise Refused(f"{program}: {said.decode(errors='replace').strip()[:300]}")


async def apply(batch: Batch, *, must: bool = True) -> None:
    """Classes first, then who goes to them, then what nobody goes to any more. Raises Refused."""
    if batch.before:
        await _run("tc", "-batch", "-", text=batch.before, must=must)
    if batch.nft:
        await _run("nft", "-f", "-", text=batch.nft, must=must)
    if batch.after:
        await _run("tc", *(() if must else ("-force",)), "-batch", "-", text=batch.after, must=must)


class Shaper:
    """Keeps the kernel as the newest request says; what fails is built anew from the ground."""

    def __init__(self, devices: Devices) -> None:
        self._kernel = Kernel(devices)
        self._lock = asyncio.Lock()
        # What a process before this one left stays until the CTF has said what is to be.
        self._sure = False
        self.trouble: str | None = None

    async def put(self, lines: Lines) -> None:
        """Raises Refused."""
        async with self._lock:
            if self._sure:
                try:
                    await apply(self._kernel.change(lines.throttles))
                    self._done(lines)
                    return
                except Refused as error:
                    log.warning("the kernel is told everything anew: %s", error)
                    self._sure = False
            try:
                await apply(self._kernel.clear(), must=False)
                await apply(self._kernel.change(lines.throttles))
            except Refused as error:
                self.trouble = str(error)
                raise
            self._sure = True
            self._done(lines)

    def _done(self, lines: Lines) -> None:
        self.trouble = None
        SLOWED.set(len(lines.throttles))

    async def ready(self) -> str | None:
        return self.trouble


def application(shaper: Shaper) -> Starlette:
    """`PUT /v1/throttles`: all lines that are slowed. 204 when the kernel does so."""

    async def put(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST_BODY:
                return JSONResponse({"detail": f"a body has at most {LARGEST_BODY} octets"}, 413)
        try:
            lines = Lines.model_validate_json(body)
        except ValidationError as error:
            return JSONResponse(
                {"detail": error.errors(include_url=False, include_input=False, include_context=False)[:5]}, 400
            )
        try:
            await shaper.put(lines)
        except Refused as error:
            log.error("lines are not slowed: %s", error)
            return JSONResponse({"detail": str(error)}, 503)
        return Response(status_code=204)

    return Starlette(routes=[*health_routes(shaper.ready), Route("/v1/throttles", put, methods=["PUT"])])


async def serve(config: str) -> None:
    """Serve until SIGTERM. What is slowed stays slowed: the next process goes on from there."""
    settings = load_settings(ShaperSettings, config)
    shaper = Shaper(Devices(tuple(settings.down), settings.up))
    await run_until_signal(serve_http(application(shaper), *address(settings.listen)))


if __name__ == "__main__":
    run_command("core.shaper", {"serve": serve})
