"""Sessions, what is owed to the OCS, and the proxy's own identity."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0001_sessions.sql"):
        op.get_bind().exec_driver_sql(statement)
