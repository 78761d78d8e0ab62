"""Brands hear of allowances that are half used, nearly used and used up."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0005_thresholds.sql"):
        op.get_bind().exec_driver_sql(statement)
