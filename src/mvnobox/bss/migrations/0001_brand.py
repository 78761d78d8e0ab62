"""Customers, orders, products, SIMs, numbers, top-ups and the outbox of one brand."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0001_brand.sql"):
        op.get_bind().exec_driver_sql(statement)
