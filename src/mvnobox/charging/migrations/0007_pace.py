"""Charging: one quota has one pace."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0007_pace.sql"):
        op.get_bind().exec_driver_sql(statement)
