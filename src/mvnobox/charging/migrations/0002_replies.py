"""Stored replies to the letter, an order of requests per rating group, lapse of buckets, wake-up of starved sessions."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    folder = Path(__file__).parent / "sql"
    for name in ("0002_tables.sql", "0002_charge.sql", "0002_accounts.sql"):
        for statement in statements(folder / name):
            op.get_bind().exec_driver_sql(statement)
