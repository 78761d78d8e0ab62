"""What a MongoDB that follows the directory has not been told yet."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0005_mirror.sql"):
        op.get_bind().exec_driver_sql(statement)
