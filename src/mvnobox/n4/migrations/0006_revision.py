"""By what instances at a change-over see each other's writing, and gates that were closed without the OCS."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0006_revision.sql"):
        op.get_bind().exec_driver_sql(statement)
