"""How far the traffic of an update has gone over to the new deployment, and since when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # Not in a batch: SQLite would make the table anew, and dropping the old one would take the
    # deployments and replicas with it.
    op.add_column(
        "endpoints", sa.Column("traffic_step", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column(
        "endpoints", sa.Column("traffic_at", sa.BigInteger, nullable=False, server_default="0")
    )
