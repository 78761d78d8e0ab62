"""What the core writes kept apart from what a brand provisions, documents checked, a log of changes for watchers."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0002_provisioning.sql"):
        op.get_bind().exec_driver_sql(statement)
