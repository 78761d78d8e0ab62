"""Orders that change and end products, batches, events for the core, an outbox that lets single orders past a batch."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0002_life.sql"):
        op.get_bind().exec_driver_sql(statement)
