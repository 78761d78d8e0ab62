"""Subscribers, their numbers, and the functions by which brands provision their own."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0001_subscribers.sql"):
        op.get_bind().exec_driver_sql(statement)
