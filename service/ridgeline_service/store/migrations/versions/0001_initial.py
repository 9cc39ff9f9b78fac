"""The first schema: models, endpoint configs, endpoints, deployments, replicas, keys, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    for name in ("models", "endpoint_configs"):
        op.create_table(
            name,
            sa.Column("arn", sa.String(512), primary_key=True),
            sa.Column("name", sa.String(128), nullable=False),
            sa.Column("created_at", sa.BigInteger, nullable=False),
            sa.Column("request", sa.JSON, nullable=False),
        )
        op.create_index(f"ix_{name}_created", name, ["created_at", "name"])
    _endpoints()
    _replicas()
    op.create_table(
        "tags",
        sa.Column("arn", sa.String(512), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("access_key_id", sa.String(64), nullable=False, unique=True),
        sa.Column("secret_access_key", sa.String(128), nullable=False),
        sa.Column("api_key_sha256", sa.String(64), nullable=False),
    )
    op.create_table(
        "events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("resource", sa.String(512), nullable=False),
        sa.Column("change", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("ix_events_resource", "events", ["resource", "id"])
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "snapshot", "value": 0}, {"name": "admission", "value": 0}])


def _endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("arn", sa.String(512), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("failure_reason", sa.Text, nullable=False),
        sa.Column("desired", sa.String(16), nullable=False),
        sa.Column("active_deployment", sa.String(64)),
        sa.Column("pending_deployment", sa.String(64)),
        sa.Column("deployment_config", sa.JSON),
    )
    op.create_index("ix_endpoints_created", "endpoints", ["created_at", "name"])
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(64), primary_key=True),
        _owner("endpoint_arn", 512, "endpoints.arn"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("config_name", sa.String(128), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("variants", sa.JSON, nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
    )
    op.create_index("ix_deployments_endpoint", "deployments", ["endpoint_arn"])


def _replicas() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(64), primary_key=True),
        _owner("endpoint_arn", 512, "endpoints.arn"),
        _owner("deployment_id", 64, "deployments.id"),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("desired", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("launched_at", sa.BigInteger),
        sa.Column("ready_at", sa.BigInteger),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("port", sa.Integer),
        sa.Column("token", sa.String(128), nullable=False),
        sa.Column("pid", sa.Integer),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("lock_token", sa.String(128)),
        sa.Column("lock_expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_replicas_endpoint", "replicas", ["endpoint_arn"])
    op.create_index("ix_replicas_deployment", "replicas", ["deployment_id"])


def _owner(column: str, size: int, target: str) -> sa.Column[str]:
    return sa.Column(
        column, sa.String(size), sa.ForeignKey(target, ondelete="CASCADE"), nullable=False
    )
