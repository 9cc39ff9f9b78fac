"""Scalable targets of Application Auto Scaling, their policies and schedules, and what was done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "scalable_targets",
        sa.Column("resource_id", sa.String(256), primary_key=True),
        sa.Column("arn", sa.String(256), nullable=False),
        sa.Column(
            "endpoint_arn",
            sa.String(512),
            sa.ForeignKey("endpoints.arn", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("min_capacity", sa.Integer, nullable=False),
        sa.Column("max_capacity", sa.Integer, nullable=False),
        sa.Column("role_arn", sa.String(2048), nullable=False),
        sa.Column("suspended", sa.JSON, nullable=False),
        sa.Column("scaled_out_at", sa.BigInteger, nullable=False),
        sa.Column("scaled_in_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_scalable_targets_arn", "scalable_targets", ["arn"])
    op.create_table(
        "scaling_policies",
        sa.Column("arn", sa.String(1024), primary_key=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column(
            "resource_id",
            sa.String(256),
            sa.ForeignKey("scalable_targets.resource_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("tracking", sa.JSON, nullable=False),
    )
    op.create_index(
        "ix_scaling_policies_name", "scaling_policies", ["resource_id", "name"], unique=True
    )
    op.create_table(
        "scheduled_actions",
        sa.Column("arn", sa.String(1024), primary_key=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column(
            "resource_id",
            sa.String(256),
            sa.ForeignKey("scalable_targets.resource_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("schedule", sa.String(1600), nullable=False),
        sa.Column("timezone", sa.String(256), nullable=False),
        sa.Column("start_at", sa.BigInteger),
        sa.Column("end_at", sa.BigInteger),
        sa.Column("action", sa.JSON, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "ix_scheduled_actions_name", "scheduled_actions", ["resource_id", "name"], unique=True
    )
    op.create_table(
        "scaling_activities",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("resource_id", sa.String(256), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("not_scaled", sa.JSON, nullable=False),
    )
    op.create_index("ix_scaling_activities_started", "scaling_activities", ["started_at", "id"])
