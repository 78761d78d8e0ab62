"""`python -m mvnobox.bss migrate|serve --config FILE`."""

from __future__ import annotations

from pathlib import Path

import httpx

from mvnobox.bss.app import make_app
from mvnobox.bss.context import BssSettings, Context
from mvnobox.bss.outbox import deliver_forever
from mvnobox.service import database
from mvnobox.service.command import run_command
from mvnobox.service.settings import address, load_settings, refuse, secret
from mvnobox.service.web import run_until_signal, serve_http
from mvnobox.spec import InvalidSpec, load_brand


async def migrate(config: str) -> None:
    """Bring the schema up to date."""
    load_settings(BssSettings, config)
    await database.migrate(secret("DATABASE_URL"), Path(__file__).parent / "migrations")


async def serve(config: str) -> None:
    """Serve until SIGTERM."""
    settings = load_settings(BssSettings, config)
    try:
        brand = load_brand(settings.brand_spec)
    except InvalidSpec as error:
        refuse(str(error))
    pool = await database.make_pool(secret("DATABASE_URL"), size=8)
    headers = {"Authorization": f"Bearer {secret('OCS_TOKEN')}"}
    async with httpx.AsyncClient(base_url=settings.ocs, timeout=5, headers=headers) as ocs:
        context = Context(
            brand=brand,
            pool=pool,
            ocs=ocs,
            sealed_box=Context.box(secret("DIRECTORY_PUBLIC_KEY", hex_octets=32)),
            sim_key=bytes.fromhex(secret("SIM_KEY", hex_octets=32)),
            admin_token=secret("BSS_ADMIN_TOKEN"),
            public_url=settings.public_url,
        )
        try:
            await run_until_signal(serve_http(make_app(context), *address(settings.listen)), deliver_forever(context))
        finally:
            pool.terminate()


if __name__ == "__main__":
    run_command("bss", {"migrate": migrate, "serve": serve})
