"""How long a line's periods are."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0004_period.sql"):
        op.get_bind().exec_driver_sql(statement)
