"""How far an endpoint is: stages, replicas, the last log lines. For ``/api`` and its clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ridgeline_service.control.endpoints.failures import failure_text
from ridgeline_service.control.endpoints.replica_logs import last_lines
from ridgeline_service.control.endpoints.rollouts import Rollout
from ridgeline_service.control.names import log_stream
from ridgeline_service.paths import DataDir
from ridgeline_service.store.records import (
    DeploymentRecord,
    EndpointRecord,
    ReplicaRecord,
    Stage,
)
from ridgeline_service.store.states import ReplicaStatus

LOG_TAIL = 20


def progress_of(
    endpoint: EndpointRecord,
    deployment: DeploymentRecord | None,
    replicas: Sequence[ReplicaRecord],
    data_dir: DataDir,
    now: int,
) -> dict[str, Any]:
    """The endpoint's stages are those of the replica that is furthest behind, and then how far
    the traffic of an update has moved to ``deployment``."""
    current = [
        replica
        for replica in replicas
        if deployment is not None and replica.deployment_id == deployment.id
    ]
    shown = _slowest(current)
    return {
        "name": endpoint.name,
        "status": endpoint.status.value,
        "reason": endpoint.reason.value,
        "failure_reason": endpoint.failure_reason,
        "hint": endpoint.reason.next_step(endpoint.name),
        "stages": [
            *(() if shown is None else _stages(shown, now)),
            *(() if deployment is None else _traffic(endpoint, deployment, now)),
        ],
        "replicas": [_replica(replica, now) for replica in replicas],
        "log_tail": [] if shown is None else last_lines(data_dir, endpoint.name, shown, LOG_TAIL),
    }


def _slowest(replicas: Sequence[ReplicaRecord]) -> ReplicaRecord | None:
    living = [replica for replica in replicas if not replica.status.ended]
    order = list(ReplicaStatus)
    if living:
        return min(living, key=lambda replica: order.index(replica.status))
    return replicas[-1] if replicas else None


def _stages(replica: ReplicaRecord, now: int) -> list[dict[str, Any]]:
    return [_stage(stage, now) for stage in replica.stages]


def _traffic(endpoint: EndpointRecord, pending: DeploymentRecord, now: int) -> list[dict[str, Any]]:
    if not endpoint.traffic_step:
        return []
    rollout = Rollout.of(endpoint.deployment_config)
    shares = rollout.shares(pending.variants, endpoint.traffic_step)
    return [_stage(Stage("traffic", began=endpoint.traffic_at, detail=shares.words), now)]


def _stage(stage: Stage, now: int) -> dict[str, Any]:
    runs = stage.state == "running" and stage.began
    seconds = round(max(0, now - stage.began) / 1e6, 3) if runs else stage.seconds
    return {
        "name": stage.name,
        "state": stage.state,
        "seconds": seconds,
        "progress": stage.progress,
        "total": stage.total,
        "detail": stage.detail,
    }


def _replica(replica: ReplicaRecord, now: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": replica.id,
        "variant": replica.variant,
        "status": replica.status.value,
        "reason": replica.reason.value,
        "message": _said(replica),
        "stages": _stages(replica, now),
        "log_stream": log_stream(replica.variant, replica.id),
    }
    if replica.pid is not None and not replica.status.ended:
        shown["pid"] = replica.pid
    return shown


def _said(replica: ReplicaRecord) -> str:
    if replica.status is ReplicaStatus.FAILED:
        return failure_text(replica.reason, replica.message)
    return replica.message or replica.reason.words
