"""What a runner is told to do: one instance of a job, with everything resolved.

Written by the control plane into the instance's folder before the runner starts, and never changed.
The keys to the object store are not in it: the runner has them in its environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ridgeline_service.files import write_atomic
from ridgeline_service.runtime.launcher import ReplicaSpec
from ridgeline_service.runtime.sandbox import Tool
from ridgeline_service.training.transform.records import SplitType
from ridgeline_service.training.transform.rows import Filters

STORE_URL = "RIDGELINE_STORE_URL"
STORE_KEY = "RIDGELINE_STORE_KEY"
STORE_SECRET = "RIDGELINE_STORE_SECRET"  # noqa: S105 (the name of a variable)
TOKEN = "RIDGELINE_JOB_TOKEN"  # noqa: S105 (the name of a variable)

_FILE = "order.json"


@dataclass(frozen=True)
class Channel:
    """One input: ``data_type`` is S3Prefix or ManifestFile, ``distribution`` FullyReplicated or
    ShardedByS3Key, ``mode`` File or FastFile. ``path`` is where an
    input of a processing job lies inside."""

    name: str
    uri: str
    data_type: str = "S3Prefix"
    distribution: str = "FullyReplicated"
    mode: str = "File"
    content_type: str = ""
    path: str = ""

    @property
    def inside(self) -> str:
        """Where it lies: a training channel has its place by its name."""
        return self.path or f"/opt/ml/input/data/{self.name}"

    @property
    def title(self) -> str:
        return f"{'Input' if self.path else 'Channel'} {self.name!r}"


@dataclass(frozen=True)
class MetricDefinition:
    """Group 1 of ``regex`` in a line of the log is a value of the metric."""

    name: str
    regex: str


@dataclass(frozen=True)
class OutputFolder:
    """What a script writes below ``path`` becomes objects below ``uri``: at its end, or
    ``continuous``ly."""

    name: str
    path: str
    uri: str
    continuous: bool


@dataclass(frozen=True)
class Processing:
    """What a processing job has beyond others. ``config`` is its processingjobconfig.json."""

    outputs: tuple[OutputFolder, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Transform:
    """What a transform job has beyond others: the records of ``input`` go through a model server,
    as SageMaker's CreateTransformJob words it. ``max_bytes`` None is no limit of a request;
    ``accept`` and filters may be empty. ``work`` is a folder that outlives the attempt, for what
    was answered."""

    input: Channel
    output_uri: str
    server: ReplicaSpec
    startup_s: float
    work: str
    gzip: bool
    split: SplitType
    single: bool
    lines: bool
    accept: str
    max_bytes: int | None
    concurrent: int
    timeout_s: float
    retries: int
    filters: Filters


@dataclass(frozen=True)
class Confinement:
    """How user code is shut in: by which tool, from what, and within which limits. ``tool`` is what
    the control plane found to work; ``hidden`` are directories that must not be seen. A process may
    use ``memory_bytes``; the job may write ``volume_bytes``. ``alone``: no other job ran on the
    machine when this one started."""

    tool: Tool
    hidden: tuple[str, ...]
    memory_bytes: int
    volume_bytes: int
    network: bool = True
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    alone: bool = False


@dataclass(frozen=True)
class Order:
    """One instance of one attempt of a job. Times are seconds, sizes bytes.

    ``entrypoint`` empty means script mode, or the program ``train``. ``output_uri`` is the folder
    of this job's artifacts; ``checkpoint_uri`` is empty where there are no checkpoints;
    ``tensorboard`` is what TensorBoard shows, None where nobody asked for it.
    """

    job: str
    arn: str
    region: str
    attempt: int
    host: str
    hosts: tuple[str, ...]
    instance_type: str
    runtime: str
    max_runtime_s: float
    stop_grace_s: float
    cache: str
    samples: str
    confinement: Confinement
    output_uri: str = ""
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    metrics: tuple[MetricDefinition, ...] = ()
    compress: bool = True
    checkpoint_uri: str = ""
    checkpoint_path: str = "/opt/ml/checkpoints"
    tensorboard: OutputFolder | None = None
    processing: Processing | None = None
    transform: Transform | None = None

    @property
    def words(self) -> str:
        """What its kind is called."""
        if self.transform is not None:
            return "transform job"
        return "training job" if self.processing is None else "processing job"

    @property
    def index(self) -> int:
        """Which of the hosts this is, from 0."""
        return self.hosts.index(self.host)

    @property
    def is_first(self) -> bool:
        """The instance that uploads the job's artifacts."""
        return self.index == 0


def write_order(folder: Path, order: Order) -> None:
    write_atomic(folder / _FILE, json.dumps(asdict(order), default=str), mode=0o600)


def has_order(folder: Path) -> bool:
    return (folder / _FILE).exists()


def read_order(folder: Path) -> Order:
    raw: dict[str, Any] = json.loads((folder / _FILE).read_text())
    confinement = raw["confinement"]
    return Order(
        **{
            **raw,
            "hosts": tuple(raw["hosts"]),
            "entrypoint": tuple(raw["entrypoint"]),
            "arguments": tuple(raw["arguments"]),
            "channels": tuple(Channel(**item) for item in raw["channels"]),
            "metrics": tuple(MetricDefinition(**item) for item in raw["metrics"]),
            "tensorboard": raw["tensorboard"] and OutputFolder(**raw["tensorboard"]),
            "processing": _processing(raw["processing"]),
            "transform": _transform(raw["transform"]),
            "confinement": Confinement(
                **{
                    **confinement,
                    "hidden": tuple(confinement["hidden"]),
                    "gpus": tuple(confinement["gpus"]),
                }
            ),
        }
    )


def _processing(raw: dict[str, Any] | None) -> Processing | None:
    if raw is None:
        return None
    return Processing(tuple(OutputFolder(**item) for item in raw["outputs"]), raw["config"])


def _transform(raw: dict[str, Any] | None) -> Transform | None:
    if raw is None:
        return None
    server = raw["server"]
    paths = ("overlays", "read_only", "devices")
    return Transform(
        **{
            **raw,
            "input": Channel(**raw["input"]),
            "filters": Filters(**raw["filters"]),
            "server": ReplicaSpec(
                **{
                    **server,
                    "python": Path(server["python"]),
                    "argv": tuple(server["argv"]),
                    "model_dir": None if server["model_dir"] is None else Path(server["model_dir"]),
                    **{name: tuple(map(Path, server[name])) for name in paths},
                }
            ),
        }
    )
