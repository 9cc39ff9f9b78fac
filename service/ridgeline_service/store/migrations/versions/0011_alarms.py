"""CloudWatch alarms and their history; policies of Application Auto Scaling of more kinds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "alarms",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("arn", sa.String(512), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("configured_at", sa.BigInteger, nullable=False),
        sa.Column("actions_enabled", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("transitioned_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "alarm_history",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("alarm", sa.String(255), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_index("ix_alarm_history_at", "alarm_history", ["at", "id"])
    with op.batch_alter_table("scaling_policies") as table:
        table.alter_column("tracking", new_column_name="config")
        table.add_column(
            sa.Column("kind", sa.String(32), nullable=False, server_default="TargetTrackingScaling")
        )
