"""A usage reporting rule of the CTF's own, with a quota; what is counted behind a closed gate is dismissed."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0002_own_rule.sql"):
        op.get_bind().exec_driver_sql(statement)
