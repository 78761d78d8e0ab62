"""A terminated account has no subscriber identifiers: another line may have its number."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0010_release_numbers.sql"):
        op.get_bind().exec_driver_sql(statement)
