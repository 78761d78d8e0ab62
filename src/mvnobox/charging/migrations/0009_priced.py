"""Charging: credit lines, a setup is paid once a session, what is priced is held against its money, a Session-Id stands for one session."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0009_priced.sql"):
        op.get_bind().exec_driver_sql(statement)
