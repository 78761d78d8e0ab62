"""A brand that was installed before is brought along with its lines."""

from __future__ import annotations

from typing import Any

import asyncpg

from mvnobox.service.database import statements

from .conftest import ROOT, migrate

SQL = ROOT / "src/mvnobox/bss/migrations/sql"


async def test_lines_of_the_first_version_are_kept(pg_database: Any) -> None:
    dsn = pg_database.dsn("bss_alpha")
    connection = await asyncpg.connect(dsn)
    for statement in statements(SQL / "0001_brand.sql"):
        await connection.execute(statement)
    await connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    await connection.execute("INSERT INTO alembic_version VALUES ('0001')")
    await connection.execute("INSERT INTO counter VALUES ('numbers', 7)")
    await connection.execute(
        """WITH i AS (INSERT INTO individual (given_name, family_name, locale) VALUES ('A', 'B', 'fr-FR') RETURNING id),
                o AS (INSERT INTO product_order (party, plan, state, token) SELECT id, 'p', 'completed', 't' FROM i
                      RETURNING id, party)
           INSERT INTO product (order_id, party, plan, status) SELECT id, party, 'p', 'active' FROM o"""
    )
    migrate(dsn, "bss")
    migrate(dsn, "bss")
    newest = max(path.name[:4] for path in SQL.parent.glob("0*.py"))
    row = await connection.fetchrow(
        "SELECT o.action, o.target, p.status, p.batch FROM product_order o JOIN product p ON p.order_id = o.id"
    )
    assert tuple(row) == ("add", None, "active", None)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == newest
    await connection.close()
