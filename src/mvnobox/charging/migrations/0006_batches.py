"""Several requests of one account are charged in one set."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0006_batch.sql"):
        op.get_bind().exec_driver_sql(statement)
