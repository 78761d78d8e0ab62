"""`python -m mvnobox.core.directory migrate|serve --config FILE`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from starlette.applications import Starlette

from mvnobox.core.directory.commands import Commands
from mvnobox.core.directory.server import DirectoryServer
from mvnobox.core.directory.settings import DirectorySettings, client_context, renewed, tls_context, users
from mvnobox.core.directory.store import make_pool
from mvnobox.core.directory.withdrawals import Withdrawals
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.settings import address, load_settings, secret
from mvnobox.service.web import health_routes, run_until_signal, serve_http

MIGRATIONS = Path(__file__).parent / "migrations"


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(DirectorySettings, config)
    await database.migrate(secret("DATABASE_URL"), MIGRATIONS)


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(DirectorySettings, config)
    key = bytes.fromhex(secret("DIRECTORY_PRIVATE_KEY", hex_octets=32))
    known = users(os.environ.get("DIRECTORY_USERS", ""))
    tls, amf_tls = tls_context(settings.tls), client_context(settings.amf_tls)
    pool = await make_pool(secret("DATABASE_URL"))
    commands = Commands(pool, key, settings.database, tells_amf=settings.amf is not None)
    server = DirectoryServer(commands, known)
    # What stands now stays: left out of later collections, which would hold answers up.
    gc.collect()
    gc.freeze()
    try:
        await run_until_signal(
            server.serve(*address(settings.listen), tls),
            serve_http(Starlette(routes=health_routes(commands.store.ready)), *address(settings.http)),
            Withdrawals(pool, settings.amf, amf_tls).run(),
            *([renewed(settings.tls, tls)] if settings.tls and tls else []),
            *([renewed(settings.amf_tls, amf_tls)] if settings.amf_tls and amf_tls else []),
        )
    finally:
        pool.terminate()


if __name__ == "__main__":
    run_command("core.directory", {"migrate": migrate, "serve": serve})
