"""Where FARs lead that have a gate, and which have none because they carry the control plane's packets."""

from pathlib import Path

from alembic import op

from mvnobox.service.database import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in statements(Path(__file__).parent / "sql" / "0005_forwarding.sql"):
        op.get_bind().exec_driver_sql(statement)
