"""When lines renew."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0003_renewals.sql"):
        op.get_bind().exec_driver_sql(statement)
