"""Grants: what a period leaves lives on in the next; buckets that are used at a pace."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0004_grants.sql"):
        op.get_bind().exec_driver_sql(statement)
