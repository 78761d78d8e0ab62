"""The ledger: accounts, buckets, sessions, reservations, answers, entries and the functions that move them."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0001_ledger.sql"):
        # The driver's own call: these texts hold colons that are no bind parameters.
        op.get_bind().exec_driver_sql(statement)
