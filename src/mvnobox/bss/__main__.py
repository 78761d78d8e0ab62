"""`python -m mvnobox.bss migrate|serve --config FILE`, and `provision` (see `--help`) for a brand's launch."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from mvnobox.bss.app import make_app
from mvnobox.bss.context import BssSettings, Context
from mvnobox.bss.launch import provision
from mvnobox.bss.notices import take_forever
from mvnobox.bss.outbox import deliver_forever
from mvnobox.bss.pricing import tell_forever
from mvnobox.bss.renewals import renew_forever
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.settings import address, load_settings, refuse, secret
from mvnobox.service.web import run_until_signal, serve_http
from mvnobox.spec import InvalidSpec, load_brand


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(BssSettings, config)
    await database.migrate(secret("DATABASE_URL"), Path(__file__).parent / "migrations")


@asynccontextmanager
async def opened(settings: BssSettings) -> AsyncIterator[Context]:
    """The context that the settings and the environment describe."""
    try:
        brand = load_brand(settings.brand_spec)
    except InvalidSpec as error:
        refuse(str(error))
    # Secrets first: a missing one is said before the database is asked.
    token, box = secret("OCS_TOKEN"), Context.box(secret("DIRECTORY_PUBLIC_KEY", hex_octets=32))
    key, admin = bytes.fromhex(secret("SIM_KEY", hex_octets=32)), secret("BSS_ADMIN_TOKEN")
    pool = await database.make_pool(secret("DATABASE_URL"), size=12)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=settings.ocs, timeout=5, headers=headers) as ocs:
        try:
            yield Context(
                brand=brand,
                pool=pool,
                ocs=ocs,
                sealed_box=box,
                sim_key=key,
                admin_token=admin,
                public_url=settings.public_url,
                number_rest_days=settings.number_rest_days,
            )
        finally:
            pool.terminate()


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(BssSettings, config)
    async with opened(settings) as context:
        await run_until_signal(
            serve_http(make_app(context), *address(settings.listen)),
            deliver_forever(context),
            renew_forever(context),
            take_forever(context),
            tell_forever(context),
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["provision"]:
        provision(sys.argv[2:], opened)
    run_command("bss", {"migrate": migrate, "serve": serve})
