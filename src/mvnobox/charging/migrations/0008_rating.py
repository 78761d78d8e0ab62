"""Charging: rating. Tariffs' rules, prices paid by the balance, services that are free."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0008_rating.sql"):
        op.get_bind().exec_driver_sql(statement)
