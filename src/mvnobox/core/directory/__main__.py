"""`python -m mvnobox.core.directory migrate|serve|mirror-check|mirror-resync --config FILE`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import asyncpg
from starlette.applications import Starlette

from mvnobox.core.directory.commands import Commands
from mvnobox.core.directory.documents import Assembler
from mvnobox.core.directory.mirror.check import Check
from mvnobox.core.directory.mirror.plan import owner_of
from mvnobox.core.directory.mirror.queue import Queue, forget
from mvnobox.core.directory.mirror.target import AWAY, NO_STREAMS, Target, cause_of
from mvnobox.core.directory.mirror.worker import Mirror
from mvnobox.core.directory.server import DirectoryServer
from mvnobox.core.directory.settings import DirectorySettings, client_context, renewed, tls_context, users
from mvnobox.core.directory.store import make_pool
from mvnobox.core.directory.withdrawals import Withdrawals
from mvnobox.service import database
from mvnobox.service.command import Verb, run_command
from mvnobox.service.settings import address, load_settings, secret
from mvnobox.service.web import health_routes, run_until_signal, serve_http
from mvnobox.service.working import work_forever

log = logging.getLogger(__name__)
# What waits for a MongoDB that nobody follows any more, such as a word to the AMF, waits no longer than this.
FORGET_SECONDS = 5.0
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
    mirror = _mirror(pool, key, settings)

    async def ready() -> str | None:
        return await commands.store.ready() or (await mirror.ready() if mirror else None)

    try:
        await run_until_signal(
            server.serve(*address(settings.listen), tls),
            serve_http(Starlette(routes=health_routes(ready)), *address(settings.http)),
            Withdrawals(pool, settings.amf, amf_tls).run(),
            mirror.run() if mirror else _no_mirror(pool),
            *([renewed(settings.tls, tls)] if settings.tls and tls else []),
            *([renewed(settings.amf_tls, amf_tls)] if settings.amf_tls and amf_tls else []),
        )
        if mirror:
            await mirror.leave()
    finally:
        pool.terminate()


def _mirror(pool: asyncpg.Pool, key: bytes, settings: DirectorySettings) -> Mirror | None:
    """The mirror, where DIRECTORY_MIRROR names a MongoDB."""
    uri = os.environ.get("DIRECTORY_MIRROR", "")
    if not uri:
        return None
    assembler = Assembler(key)
    target = Target(uri, owner_of(assembler.public_key))
    return Mirror(pool, target, assembler, tells_amf=settings.amf is not None)


async def _no_mirror(pool: asyncpg.Pool) -> None:
    async def step() -> int:
        await forget(pool)
        return 0

    await work_forever(step, name="mirror", log=log, idle_seconds=FORGET_SECONDS)


async def mirror_check(config: str) -> int:
    """Print which documents of the mirror are not as they should be; 1 if there are any, or it does not answer."""
    load_settings(DirectorySettings, config)
    assembler = Assembler(bytes.fromhex(secret("DIRECTORY_PRIVATE_KEY", hex_octets=32)))
    target = Target(secret("DIRECTORY_MIRROR"), owner_of(assembler.public_key))
    pool = await make_pool(secret("DATABASE_URL"), 1)
    check = Check(pool, target, assembler)
    differences = 0
    try:
        async for one in check.run():
            differences += 1
            print(f"{one.imsi}: {', '.join(one.fields)}")
        documents, own = await target.count()
        streams = await target.has_streams()
    except AWAY as error:
        print(f"the mirror's MongoDB does not answer ({cause_of(error)})")
        return 1
    finally:
        pool.terminate()
        await target.close()
    print(
        f"{check.compared} compared, {check.waiting} wait to be written, {documents - own} documents are not the directory's"
        + ("" if streams else f"; the MongoDB {NO_STREAMS}")
    )
    print(f"{differences} differences")
    return 1 if differences else 0


async def mirror_resync(config: str) -> int:
    """Have the service look at every document again; 1 where none runs with this mirror."""
    load_settings(DirectorySettings, config)
    target = Target(secret("DIRECTORY_MIRROR"), "")
    pool = await make_pool(secret("DATABASE_URL"), 1)
    try:
        known = await Queue(pool, target.digest).resynchronise()
    finally:
        pool.terminate()
        await target.close()
    print("every subscriber is going to be looked at again" if known else "the directory does not run with this mirror")
    return 0 if known else 1


if __name__ == "__main__":
    verbs: dict[str, Verb] = {
        "migrate": migrate,
        "serve": serve,
        "mirror-check": mirror_check,
        "mirror-resync": mirror_resync,
    }
    run_command("core.directory", verbs)
