"""The data directory that a database belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "owner",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("data_dir_id", sa.String(64), nullable=False),
        sa.Column("place", sa.Text, nullable=False),
    )
