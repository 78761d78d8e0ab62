"""When a session's quota has to be renewed, what the UPF has not taken yet, and sessions of an SMF that forgot them."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0004_deadlines.sql"):
        op.get_bind().exec_driver_sql(statement)
