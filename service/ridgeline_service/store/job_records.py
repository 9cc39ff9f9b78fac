"""Jobs of all kinds as frozen values. Times are whole microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping

from ridgeline_service.store.records import Document, VariantSpec
from ridgeline_service.store.states import Desired


class JobKind(StrEnum):
    """What a job is, in the word of its ARN."""

    TRAINING = "training-job"
    PROCESSING = "processing-job"
    TRANSFORM = "transform-job"

    @property
    def words(self) -> str:
        return self.replace("-", " ")


class JobStatus(StrEnum):
    """SageMaker's own words."""

    IN_PROGRESS = "InProgress"
    STOPPING = "Stopping"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPED = "Stopped"

    @property
    def ended(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED)


class JobPhase(StrEnum):
    """What the reconciler does with a job: it waits for room, its runners are being started, they
    run, nothing any more."""

    QUEUED = "queued"
    LAUNCHING = "launching"
    RUNNING = "running"
    ENDED = "ended"

    @property
    def admitted(self) -> bool:
        """It counts against the machine."""
        return self in (JobPhase.LAUNCHING, JobPhase.RUNNING)


@dataclass(frozen=True)
class JobSpec:
    """What was decided about a job when it was created. Sizes are bytes, of one instance;
    ``memory_bytes`` is what it declares and is admitted by, ``memory_limit_bytes`` what one of its
    processes may use. ``warning`` is what its user should know; ``model`` what a transform job
    asks, copied when it was created."""

    runtime: str
    instance_type: str
    instance_count: int
    memory_bytes: int
    memory_limit_bytes: int
    volume_bytes: int
    max_runtime_s: float
    max_wait_s: float | None = None
    retries: int = 0
    warning: str = ""
    model: VariantSpec | None = None


@dataclass(frozen=True)
class Instance:
    """One runner of a job: its process, and where it logs."""

    id: str
    token: str
    host: str
    log_stream: str
    pid: int | None = None
    start_time: int | None = None


@dataclass(frozen=True)
class Moment:
    """One secondary status: since when, and what SageMaker's clients show beside it."""

    status: str
    at: int
    message: str


@dataclass(frozen=True)
class Metric:
    """The last value of a metric."""

    name: str
    value: float
    at: int


@dataclass(frozen=True)
class JobRecord:
    """``settled`` is how many of the moments are ours; those after it are told by the runner.
    ``billable_us`` is what the attempts that ended used, by the clock and not by the instance;
    ``exit_message`` what a processing job said at its end."""

    arn: str
    name: str
    kind: JobKind
    id: str
    created_at: int
    modified_at: int
    status: JobStatus
    phase: JobPhase
    cause: str
    failure_reason: str
    desired: Desired
    request: Document
    spec: JobSpec
    attempt: int
    queued_at: int
    moments: tuple[Moment, ...]
    settled: int
    instances: tuple[Instance, ...] = ()
    metrics: tuple[Metric, ...] = ()
    artifacts: str = ""
    exit_message: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    billable_us: int = 0
    boot: str = ""
    lock_token: str | None = None
    lock_expires_at: int = 0

    @property
    def secondary(self) -> str:
        return self.moments[-1].status if self.moments else ""


_DERIVED = ("instance_count", "memory_bytes")


def columns_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a job as columns: small types become JSON, and what sums need stands beside."""
    found = dict(values)
    for name in ("moments", "instances", "metrics"):
        if name in found:
            found[name] = [asdict(item) for item in found[name]]
    if "spec" in found:
        spec: JobSpec = found["spec"]
        found["spec"] = asdict(spec)
        found["instance_count"] = spec.instance_count
        found["memory_bytes"] = spec.instance_count * spec.memory_bytes
    if "request" in found:
        found["request"] = dict(found["request"])
    return found


def job_of(row: RowMapping) -> JobRecord:
    """The job of a row."""
    kept = {name: value for name, value in row.items() if name not in _DERIVED}
    return JobRecord(
        **{
            **kept,
            "kind": JobKind(row["kind"]),
            "status": JobStatus(row["status"]),
            "phase": JobPhase(row["phase"]),
            "desired": Desired(row["desired"]),
            "spec": _spec(row["spec"]),
            "moments": tuple(Moment(**item) for item in row["moments"]),
            "instances": tuple(Instance(**item) for item in row["instances"]),
            "metrics": tuple(Metric(**item) for item in row["metrics"]),
        }
    )


def _spec(raw: Mapping[str, Any]) -> JobSpec:
    model = raw.get("model")
    return JobSpec(**{**raw, "model": None if model is None else VariantSpec.from_json(model)})
