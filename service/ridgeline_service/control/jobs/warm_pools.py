"""Warm pools as their users see them: which jobs share one, what calls show and change of one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from ridgeline_service.errors import ValidationException
from ridgeline_service.store import warm_pools as rows
from ridgeline_service.store.job_records import JobRecord
from ridgeline_service.store.warm_pools import PoolRecord, PoolStatus

KEEP_ALIVE = "KeepAlivePeriodInSeconds"
_ALIKE = ("RoleArn", "VpcConfig", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption")
_RESOURCES = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")


def keep_alive_s(request: Mapping[str, Any]) -> int:
    return int((request.get("ResourceConfig") or {}).get(KEEP_ALIVE) or 0)


def pool_of(job: JobRecord) -> PoolRecord:
    """The pool of a job that asks for one, as it is when the job is created."""
    return PoolRecord(
        job_arn=job.arn,
        status=PoolStatus.IN_USE,
        kind=kind_of(job),
        keep_alive_s=keep_alive_s(job.request),
        runtime=job.spec.runtime,
        instance_count=job.spec.instance_count,
        memory_bytes=job.spec.instance_count * job.spec.memory_bytes,
    )


def kind_of(job: JobRecord) -> str:
    """The same for jobs that may use each other's pools, by SageMaker's rules."""
    request, resources = job.request, job.request.get("ResourceConfig") or {}
    told = [request.get(name) or None for name in _ALIKE]
    told += [resources.get(name) for name in _RESOURCES]
    told += [job.spec.runtime, job.spec.memory_bytes]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def shown_pool(pool: PoolRecord, now: int) -> dict[str, Any]:
    """WarmPoolStatus of Describe and List."""
    shown: dict[str, Any] = {"Status": pool.status.value}
    if pool.available_at is not None:
        waited = (pool.ended_at or now) - pool.available_at
        seconds = round(waited / 1e6 * pool.instance_count)
        shown["ResourceRetainedBillableTimeInSeconds"] = seconds
    if pool.reused_by:
        shown["ReusedByJob"] = pool.reused_by
    return shown


def change_keep_alive(connection: Connection, job: JobRecord, seconds: int) -> None:
    """While the job runs, how long its pool will be kept; then, how long from when it became
    available. Raises ValidationException for a pool that is gone."""
    pool = rows.get_pool(connection, job.arn)
    if pool is None and not job.status.ended:
        if seconds:
            rows.add_pool(connection, pool_of(job))
        return
    alive = pool is not None and pool.status in (PoolStatus.IN_USE, PoolStatus.AVAILABLE)
    if pool is None or not (alive and rows.move_pool(connection, pool, keep_alive_s=seconds)):
        raise ValidationException(
            f"{KEEP_ALIVE} of training job {job.name!r} cannot be changed: it has no warm pool "
            "that is InUse or Available."
        )
