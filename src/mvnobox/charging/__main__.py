"""`python -m mvnobox.charging migrate|serve|check --config FILE`."""

from __future__ import annotations

from pathlib import Path

from mvnobox.charging.app import make_app
from mvnobox.charging.ledger import Ledger
from mvnobox.charging.notifier import deliver_forever, sweep_forever
from mvnobox.charging.settings import OcsSettings
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.settings import address, load_settings, secret
from mvnobox.service.web import run_until_signal, serve_http


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(OcsSettings, config)
    await database.migrate(secret("DATABASE_URL"), Path(__file__).parent / "migrations")


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(OcsSettings, config)
    key = bytes.fromhex(secret("OCS_TENANT_KEY", hex_octets=32))
    pool = await database.make_pool(secret("DATABASE_URL"), size=16)
    ledger = Ledger(pool)
    try:
        await run_until_signal(
            serve_http(make_app(ledger, settings, key), *address(settings.listen)),
            deliver_forever(pool),
            sweep_forever(ledger),
        )
    finally:
        pool.terminate()


async def check(config: str) -> int:
    """Print what violates the ledger's invariants; 1 if anything does."""
    load_settings(OcsSettings, config)
    pool = await database.make_pool(secret("DATABASE_URL"), size=1)
    try:
        found = await Ledger(pool).differences()
    finally:
        pool.terminate()
    for what, difference in found:
        print(f"{what}: {difference}")
    print(f"{len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    run_command("charging", {"migrate": migrate, "serve": serve, "check": check})
