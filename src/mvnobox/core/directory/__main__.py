"""`python -m mvnobox.core.directory migrate|serve --config FILE`."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette

from mvnobox.core.directory.commands import Commands
from mvnobox.core.directory.server import DirectoryServer
from mvnobox.core.directory.store import Store
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.settings import Settings, address, load_settings, secret
from mvnobox.service.web import health_routes, run_until_signal, serve_http


class DirectorySettings(Settings):
    listen: str = "0.0.0.0:27017"
    http: str = "0.0.0.0:8081"
    database: str = "open5gs"


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(DirectorySettings, config)
    await database.migrate(secret("DATABASE_URL"), Path(__file__).parent / "migrations")


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(DirectorySettings, config)
    key = bytes.fromhex(secret("DIRECTORY_PRIVATE_KEY", hex_octets=32))
    pool = await database.make_pool(secret("DATABASE_URL"), size=8)
    store = Store(pool, key)
    server = DirectoryServer(Commands(store, settings.database))
    try:
        await run_until_signal(
            server.serve(*address(settings.listen)),
            serve_http(Starlette(routes=health_routes(store.ready)), *address(settings.http)),
        )
    finally:
        pool.terminate()


if __name__ == "__main__":
    run_command("core.directory", {"migrate": migrate, "serve": serve})
