"""From a transform job's row and its model to what its runners' orders have beyond others."""

from __future__ import annotations

from dataclasses import replace

from ridgeline_service.control.endpoints.launching import Identity, launch_order
from ridgeline_service.control.jobs.surroundings import LOG_GROUPS, Surroundings
from ridgeline_service.control.jobs.transform_planning import (
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_S,
    concurrent,
    filters_of,
    payload_mb,
)
from ridgeline_service.control.jobs.work import work_folder
from ridgeline_service.control.staging import Staged
from ridgeline_service.store.job_records import Instance, JobRecord
from ridgeline_service.training.order import Channel, Order, Transform

MIB = 1 << 20


def transform_order(
    job: JobRecord, instance: Instance, around: Surroundings, order: Order, staged: Staged
) -> Order:
    """``order`` with the model server and what goes through it."""
    request, model = job.request, job.spec.model
    assert model is not None
    data, output = request["TransformInput"], request["TransformOutput"]
    source = data["DataSource"]["S3DataSource"]
    client = request.get("ModelClientConfig") or {}
    timeout_s = float(client.get("InvocationsTimeoutInSeconds", DEFAULT_TIMEOUT_S))
    most = payload_mb(request)
    split = data.get("SplitType", "None")
    environment = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": f"{timeout_s:.0f}", **staged.environment}
    confinement = order.confinement
    identity = Identity(instance.id, instance.token, LOG_GROUPS[job.kind], instance.log_stream)
    return replace(
        order,
        transform=Transform(
            input=Channel(
                name="TransformInput",
                uri=source["S3Uri"],
                data_type=source["S3DataType"],
                distribution="ShardedByS3Key",
                content_type=data.get("ContentType", ""),
            ),
            output_uri=output["S3OutputPath"].rstrip("/"),
            server=launch_order(
                identity,
                model,
                replace(staged, environment=environment),
                region=around.settings.region,
                port=0,  # the runner finds one whenever it starts the server
                threads=confinement.threads,
                gpus=confinement.gpus,
            ),
            startup_s=model.startup_timeout_s,
            work=str(work_folder(around.data_dir, job.id)),
            gzip=data.get("CompressionType", "None") == "Gzip",
            split=split,
            single=request.get("BatchStrategy", "MultiRecord") == "SingleRecord",
            lines=output.get("AssembleWith", "None") == "Line",
            accept=output.get("Accept", ""),
            max_bytes=most * MIB or None,
            concurrent=concurrent(request),
            timeout_s=timeout_s,
            retries=int(client.get("InvocationsMaxRetries", DEFAULT_RETRIES)),
            filters=filters_of(request),
        ),
    )
