"""Rates that sessions are slowed to, and what of the SMF's they stand in for; sessions known before the UPF has them."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0003_throttle.sql"):
        op.get_bind().exec_driver_sql(statement)
