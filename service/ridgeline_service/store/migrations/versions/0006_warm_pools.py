"""Warm pools of training jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "warm_pools",
        sa.Column("job_arn", sa.String(512), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("keep_alive_s", sa.Integer, nullable=False),
        sa.Column("runtime", sa.String(64), nullable=False),
        sa.Column("instance_count", sa.Integer, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("instances", sa.JSON, nullable=False),
        sa.Column("has_instances", sa.Boolean, nullable=False),
        sa.Column("available_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("reused_by", sa.String(128), nullable=False),
        sa.Column("lock_token", sa.String(128)),
        sa.Column("lock_expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_warm_pools_status", "warm_pools", ["status", "kind"])
