"""From a job's row to the orders of its runners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ridgeline_service.control.jobs.checking import CHECKPOINTS, TENSORBOARD, local_path
from ridgeline_service.control.jobs.processing_orders import processing_order
from ridgeline_service.control.jobs.surroundings import LOG_GROUPS, Surroundings
from ridgeline_service.control.jobs.transform_orders import transform_order
from ridgeline_service.control.staging import Staged
from ridgeline_service.placement.threads import thread_share
from ridgeline_service.runtime import sandbox
from ridgeline_service.store.job_records import Instance, JobKind, JobRecord
from ridgeline_service.training.order import (
    Channel,
    Confinement,
    MetricDefinition,
    Order,
    OutputFolder,
)
from ridgeline_service.training.runners import RunnerSpec


def hosts_of(count: int) -> tuple[str, ...]:
    return tuple(f"algo-{number}" for number in range(1, count + 1))


def runner_spec(
    job: JobRecord,
    instance: Instance,
    around: Surroundings,
    gpus: tuple[int, ...],
    staged: Staged | None = None,
    *,
    alone: bool,
) -> RunnerSpec:
    """The order of one instance; ``staged`` is the model of a transform job. ``alone``: no other
    instance of a job runs on this machine."""
    order = _common(job, instance, around, gpus, alone)
    if job.kind is JobKind.PROCESSING:
        order = processing_order(job, order)
    elif staged is not None:
        order = transform_order(job, instance, around, order, staged)
    else:
        order = _training(job, order)
    return RunnerSpec(
        id=instance.id,
        token=instance.token,
        order=order,
        log_group=LOG_GROUPS[job.kind],
        log_stream=instance.log_stream,
    )


def _common(
    job: JobRecord, instance: Instance, around: Surroundings, gpus: tuple[int, ...], alone: bool
) -> Order:
    """What all kinds have."""
    request, spec, data_dir = job.request, job.spec, around.data_dir
    isolation = request.get("NetworkConfig") or request
    return Order(
        job=job.name,
        arn=job.arn,
        region=around.settings.region,
        attempt=job.attempt,
        host=instance.host,
        hosts=hosts_of(spec.instance_count),
        instance_type=spec.instance_type,
        runtime=spec.runtime,
        max_runtime_s=spec.max_runtime_s,
        stop_grace_s=around.settings.job_stop_grace_s,
        cache=str(data_dir.cache),
        samples=str(data_dir.samples),
        confinement=Confinement(
            tool=sandbox.require(),
            hidden=(str(data_dir.root), str(data_dir.cache)),
            memory_bytes=spec.memory_limit_bytes,
            volume_bytes=spec.volume_bytes,
            network=not isolation.get("EnableNetworkIsolation", False),
            gpus=gpus,
            threads=thread_share(around.cores, spec.instance_count),
            alone=alone,
        ),
        environment=dict(request.get("Environment") or {}),
    )


def _training(job: JobRecord, order: Order) -> Order:
    request = job.request
    algorithm, output = request["AlgorithmSpecification"], request["OutputDataConfig"]
    checkpoints = request.get("CheckpointConfig") or {}
    tensorboard = request.get("TensorBoardOutputConfig")
    return replace(
        order,
        output_uri=f"{output['S3OutputPath'].rstrip('/')}/{job.name}/output",
        entrypoint=tuple(algorithm.get("ContainerEntrypoint") or ()),
        arguments=tuple(algorithm.get("ContainerArguments") or ()),
        hyperparameters=dict(request.get("HyperParameters") or {}),
        channels=tuple(
            _channel(item, algorithm.get("TrainingInputMode", "File"))
            for item in request.get("InputDataConfig") or ()
        ),
        metrics=tuple(
            MetricDefinition(item["Name"], item["Regex"])
            for item in algorithm.get("MetricDefinitions") or ()
        ),
        compress=output.get("CompressionType", "GZIP") == "GZIP",
        checkpoint_uri=checkpoints.get("S3Uri", "").rstrip("/"),
        checkpoint_path=local_path(checkpoints.get("LocalPath", CHECKPOINTS)),
        tensorboard=None if tensorboard is None else _tensorboard(tensorboard, job.name),
    )


def _tensorboard(config: Mapping[str, Any], job: str) -> OutputFolder:
    """Where AWS's SDK looks for it: estimator.latest_job_tensorboard_artifacts_path()."""
    return OutputFolder(
        name="TensorBoardOutputConfig",
        path=local_path(config.get("LocalPath", TENSORBOARD)),
        uri=f"{config['S3OutputPath'].rstrip('/')}/{job}/tensorboard-output",
        continuous=True,
    )


def _channel(item: Mapping[str, Any], default_mode: str) -> Channel:
    source = item["DataSource"]["S3DataSource"]
    return Channel(
        name=item["ChannelName"],
        uri=source["S3Uri"],
        data_type=source["S3DataType"],
        distribution=source.get("S3DataDistributionType", "FullyReplicated"),
        mode=item.get("InputMode", default_mode),
        content_type=item.get("ContentType", ""),
    )
