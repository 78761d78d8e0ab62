"""Migrations and pools. A service's tables are in the schema that its role's search_path names."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

log = logging.getLogger(__name__)
# What a database does that is away, at its end or refuses: the caller may try again. InternalClientError comes of a
# connection that is used again as its end arrives; TimeoutError is an OSError.
TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
STATEMENT_END = "\n-- end of statement\n"
# A server that is just ending may take a connection and never say a word; the driver's own patience is a minute.
CONNECT_SECONDS = 3.0


def statements(file: Path) -> list[str]:
    """The statements of an SQL file, separated by a line `-- end of statement` (the driver prepares one at a time)."""
    return [part.strip() for part in file.read_text(encoding="utf-8").split(STATEMENT_END) if part.strip()]


def _upgrade(connection: Connection, versions: str, lock: str) -> None:
    # Replicas start at once; the lock goes with the transaction.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": lock})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic_env"))
    config.set_main_option("version_locations", versions)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def migrate(dsn: str, versions: Path, wait_seconds: float = 120) -> None:
    """Bring the schema to its newest version; waits for a database that is starting. Idempotent."""
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
    deadline = time.monotonic() + wait_seconds
    try:
        while True:
            try:
                async with engine.begin() as connection:
                    await connection.run_sync(_upgrade, str(versions), str(versions.parent))
                    return
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
                # A new brand's role is made by a job that may still be under way.
                if time.monotonic() > deadline:
                    raise
                log.info("waiting for the database: %s", type(error).__name__)
                await asyncio.sleep(0.5)
    finally:
        await engine.dispose()


async def _stateless(connection: Any) -> None:
    """Nothing to undo on a connection's return, and so no round trip: no statement of ours leaves anything on its session.
    An open transaction is rolled back before this."""


async def make_pool(
    dsn: str, *, size: int = 8, settings: Mapping[str, str] | None = None, seconds: float = 20.0
) -> asyncpg.Pool:
    """A pool whose connections are made as they are needed; `settings` are the server's for them.

    A statement may take `seconds`, a connection CONNECT_SECONDS to be made; TimeoutError is raised then.
    """
    return await asyncpg.create_pool(
        dsn, min_size=1, max_size=size, timeout=CONNECT_SECONDS, command_timeout=seconds, reset=_stateless,
        server_settings=dict(settings or {}),
    )  # fmt: skip
