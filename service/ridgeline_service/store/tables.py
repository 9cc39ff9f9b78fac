"""The tables. Times are whole microseconds since the epoch; documents are JSON text.

The migrations create them; a test proves that both agree. Names that AWS clients choose are unique
by ARN, which is lower-case, so that ``Demo`` and ``demo`` are one endpoint, as in SageMaker.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

# SQLite counts a rowid only for a column that is spelt INTEGER.
_RowId = BigInteger().with_variant(Integer, "sqlite")


def _named(name: str) -> Table:
    """A resource that never changes after it was created: its request is all there is to it."""
    return Table(
        name,
        metadata,
        Column("arn", String(512), primary_key=True),
        Column("name", String(128), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("request", JSON, nullable=False),
        Index(f"ix_{name}_created", "created_at", "name"),
    )


owner = Table(
    "owner",
    metadata,
    # One row.
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("data_dir_id", String(64), nullable=False),
    Column("place", Text, nullable=False),
)

models = _named("models")
endpoint_configs = _named("endpoint_configs")

endpoints = Table(
    "endpoints",
    metadata,
    Column("arn", String(512), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("failure_reason", Text, nullable=False),
    Column("desired", String(16), nullable=False),
    Column("active_deployment", String(64)),
    Column("pending_deployment", String(64)),
    Column("deployment_config", JSON(none_as_null=True)),
    Column("traffic_step", Integer, nullable=False, server_default="0"),
    Column("traffic_at", BigInteger, nullable=False, server_default="0"),
    Index("ix_endpoints_created", "created_at", "name"),
)

deployments = Table(
    "deployments",
    metadata,
    Column("id", String(64), primary_key=True),
    Column(
        "endpoint_arn",
        String(512),
        ForeignKey("endpoints.arn", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("created_at", BigInteger, nullable=False),
    Column("config_name", String(128), nullable=False),
    Column("config", JSON, nullable=False),
    Column("variants", JSON, nullable=False),
    Column("task", String(32), nullable=False),
    Index("ix_deployments_endpoint", "endpoint_arn"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", String(64), primary_key=True),
    Column(
        "endpoint_arn",
        String(512),
        ForeignKey("endpoints.arn", ondelete="CASCADE"),
        nullable=False,
    ),
    Column(
        "deployment_id",
        String(64),
        ForeignKey("deployments.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("variant", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("desired", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("launched_at", BigInteger),
    Column("ready_at", BigInteger),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("port", Integer),
    Column("token", String(128), nullable=False),
    Column("pid", Integer),
    Column("start_time", BigInteger),
    Column("task", String(32), nullable=False),
    Column("stages", JSON, nullable=False),
    Column("lock_token", String(128)),
    Column("lock_expires_at", BigInteger, nullable=False),
    Index("ix_replicas_endpoint", "endpoint_arn"),
    Index("ix_replicas_deployment", "deployment_id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("arn", String(512), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("cause", String(64), nullable=False),
    Column("failure_reason", Text, nullable=False),
    Column("desired", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("queued_at", BigInteger, nullable=False),
    Column("moments", JSON, nullable=False),
    Column("settled", Integer, nullable=False),
    Column("instances", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("artifacts", Text, nullable=False),
    Column("exit_message", Text, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("billable_us", BigInteger, nullable=False),
    Column("boot", String(64), nullable=False),
    # Of all its instances together, for the sums of admission.
    Column("instance_count", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("lock_token", String(128)),
    Column("lock_expires_at", BigInteger, nullable=False),
    Index("ix_jobs_created", "kind", "created_at", "name"),
    Index("ix_jobs_phase", "phase", "queued_at"),
)

tuning_jobs = Table(
    "tuning_jobs",
    metadata,
    Column("arn", String(512), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("cause", String(64), nullable=False),
    Column("failure_reason", Text, nullable=False),
    Column("desired", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("history", JSON, nullable=False),
    Column("ended_at", BigInteger),
    Column("lock_token", String(128)),
    Column("lock_expires_at", BigInteger, nullable=False),
    Index("ix_tuning_jobs_created", "created_at", "name"),
)

tuning_trials = Table(
    "tuning_trials",
    metadata,
    Column("tuning_arn", String(512), ForeignKey("tuning_jobs.arn"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    # Of the training job, which may be deleted before its tuning job is.
    Column("arn", String(512), nullable=False),
    Column("name", String(128), nullable=False),
    Column("definition", String(64), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("failure_reason", Text, nullable=False),
    Column("retryable", Boolean, nullable=False),
    Column("objective", Double),
    Column("curve", JSON, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Index("ix_tuning_trials_arn", "arn"),
)

warm_pools = Table(
    "warm_pools",
    metadata,
    Column("job_arn", String(512), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("keep_alive_s", Integer, nullable=False),
    Column("runtime", String(64), nullable=False),
    Column("instance_count", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("instances", JSON, nullable=False),
    Column("has_instances", Boolean, nullable=False),
    Column("available_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("reused_by", String(128), nullable=False),
    Column("lock_token", String(128)),
    Column("lock_expires_at", BigInteger, nullable=False),
    Index("ix_warm_pools_status", "status", "kind"),
)

command_jobs = Table(
    "command_jobs",
    metadata,
    Column("arn", String(512), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("status", String(32), nullable=False),
    Column("failure_reason", Text, nullable=False),
    Column("desired", String(16), nullable=False),
    Column("request", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("lock_token", String(128)),
    Column("lock_expires_at", BigInteger, nullable=False),
    Index("ix_command_jobs_created", "kind", "created_at", "name"),
)

scalable_targets = Table(
    "scalable_targets",
    metadata,
    # endpoint/NAME/variant/VARIANT
    Column("resource_id", String(256), primary_key=True),
    Column("arn", String(256), nullable=False),
    Column(
        "endpoint_arn",
        String(512),
        ForeignKey("endpoints.arn", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("variant", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("min_capacity", Integer, nullable=False),
    Column("max_capacity", Integer, nullable=False),
    Column("role_arn", String(2048), nullable=False),
    Column("suspended", JSON, nullable=False),
    Column("scaled_out_at", BigInteger, nullable=False),
    Column("scaled_in_at", BigInteger, nullable=False),
    Index("ix_scalable_targets_arn", "arn"),
)

scaling_policies = Table(
    "scaling_policies",
    metadata,
    Column("arn", String(1024), primary_key=True),
    Column("name", String(256), nullable=False),
    Column(
        "resource_id",
        String(256),
        ForeignKey("scalable_targets.resource_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("created_at", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False, server_default="TargetTrackingScaling"),
    Column("config", JSON, nullable=False),
    Index("ix_scaling_policies_name", "resource_id", "name", unique=True),
)

scheduled_actions = Table(
    "scheduled_actions",
    metadata,
    Column("arn", String(1024), primary_key=True),
    Column("name", String(256), nullable=False),
    Column(
        "resource_id",
        String(256),
        ForeignKey("scalable_targets.resource_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("created_at", BigInteger, nullable=False),
    Column("schedule", String(1600), nullable=False),
    Column("timezone", String(256), nullable=False),
    Column("start_at", BigInteger),
    Column("end_at", BigInteger),
    Column("action", JSON, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Index("ix_scheduled_actions_name", "resource_id", "name", unique=True),
)

# They outlive their target, as in AWS, and are pruned by number.
scaling_activities = Table(
    "scaling_activities",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("resource_id", String(256), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("status", String(32), nullable=False),
    Column("wanted", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("not_scaled", JSON, nullable=False),
    Index("ix_scaling_activities_started", "started_at", "id"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("arn", String(512), nullable=False),
    # PutMetricAlarm's members, as they were given.
    Column("config", JSON, nullable=False),
    Column("configured_at", BigInteger, nullable=False),
    Column("actions_enabled", Boolean, nullable=False),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("transitioned_at", BigInteger, nullable=False),
)

# It outlives its alarm, and is pruned by number.
alarm_history = Table(
    "alarm_history",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("alarm", String(255), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("summary", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("ix_alarm_history_at", "at", "id"),
)

tags = Table(
    "tags",
    metadata,
    Column("arn", String(512), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", String(256), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("access_key_id", String(64), nullable=False, unique=True),
    Column("secret_access_key", String(128), nullable=False),
    Column("api_key_sha256", String(64), nullable=False),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
)

events = Table(
    "events",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("resource", String(512), nullable=False),
    Column("change", String(64), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Index("ix_events_resource", "resource", "id"),
)

# Rows that exist to be locked and counted: the snapshot's version, the gate of admission.
counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
