"""`python -m mvnobox.charging migrate|serve|check --config FILE`."""

from __future__ import annotations

from pathlib import Path

from mvnobox.charging.app import LARGEST_BODY, OcsApp
from mvnobox.charging.batches import make_pipeline
from mvnobox.charging.diameter.control import CreditControl
from mvnobox.charging.diameter.node import Node
from mvnobox.charging.diameter.notify import SCHEME
from mvnobox.charging.diameter.ports import PostgresBook
from mvnobox.charging.diameter.server import DiameterServer
from mvnobox.charging.ledger import Ledger, differences, make_pool
from mvnobox.charging.notifier import Notifier, sweep_forever
from mvnobox.charging.settings import OcsSettings
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.exchange import Limits
from mvnobox.service.front import Front
from mvnobox.service.settings import address, load_settings, secret
from mvnobox.service.web import run_until_signal


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(OcsSettings, config)
    await database.migrate(secret("DATABASE_URL"), Path(__file__).parent / "migrations")


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(OcsSettings, config)
    key = bytes.fromhex(secret("OCS_TENANT_KEY", hex_octets=32))
    dsn = secret("DATABASE_URL")
    pool = await make_pool(dsn, settings.database_connections)
    # Few connections of their own: notifications and sweeps take none from charging requests.
    errands = await make_pool(dsn, 3)
    pipeline = make_pipeline(dsn)
    app = OcsApp(pool, pipeline, settings, key)
    diameter = None
    if settings.diameter is not None:
        control = CreditControl(app.engine, PostgresBook(pool, app.ratings), settings, settings.diameter)
        diameter = DiameterServer(Node(settings.diameter, control))
    try:
        await run_until_signal(
            Front(app.respond, Limits(body=LARGEST_BODY)).serve(*address(settings.listen)),
            Notifier(errands, {SCHEME: diameter.notify} if diameter else {}).run(),
            sweep_forever(Ledger(errands, settings)),
            *([diameter.run()] if diameter else []),
        )
    finally:
        pipeline.close()
        pool.terminate()
        errands.terminate()


async def check(config: str) -> int:
    """Print what violates the ledger's invariants; 1 if anything does."""
    load_settings(OcsSettings, config)
    found = await differences(secret("DATABASE_URL"))
    for what, difference in found:
        print(f"{what}: {difference}")
    print(f"{len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    run_command("charging", {"migrate": migrate, "serve": serve, "check": check})
