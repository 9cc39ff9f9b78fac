"""From staged files to the order that starts a model server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline_service.control.names import log_group, log_stream
from ridgeline_service.control.staging import Staged
from ridgeline_service.placement.gpus import gpu_files
from ridgeline_service.placement.profiles import is_neuron
from ridgeline_service.runtime.images import flavour_of
from ridgeline_service.runtime.launcher import ReplicaSpec
from ridgeline_service.settings import Settings
from ridgeline_service.store.records import EndpointRecord, ReplicaRecord, VariantSpec
from ridgeline_service.training.runners import Store

GRACE_S = 35.0

RESERVED_KV_BYTES = 1 << 30
"""What a language model's server may reserve beyond its limit: the kernel counts what is reserved,
touched or not, and the engine reserves its KV memory at the start, by default at most this. Without
it a server that uses half of 2 GiB (the SDK's serverless default) has no room for a request."""

FLAVOUR_VARIABLE = "RIDGELINE_IMAGE_FLAVOUR"
THREADS_VARIABLE = "RIDGELINE_THREADS"
BACKEND_VARIABLE = "RIDGELINE_BACKEND"
INSTANCE_VARIABLE = "RIDGELINE_INSTANCE_TYPE"
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
CACHE_VARIABLE = "NEURON_COMPILE_CACHE_URL"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""SageMaker's own, and the one that boto3 reads."""

_NO_CACHE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Identity:
    """Who a model server is, and where it logs."""

    id: str
    token: str
    log_group: str
    log_stream: str


def replica_identity(
    replica: ReplicaRecord, variant: VariantSpec, endpoint: EndpointRecord
) -> Identity:
    stream = log_stream(variant.name, replica.id)
    return Identity(replica.id, replica.token, log_group(endpoint.name), stream)


def launch_order(
    identity: Identity,
    variant: VariantSpec,
    staged: Staged,
    *,
    region: str,
    port: int,
    threads: int | None,
    gpus: tuple[int, ...] = (),
    own_environment: Mapping[str, str] = os.environ,
    compile_cache: Mapping[str, str] = _NO_CACHE,
) -> ReplicaSpec:
    """``region`` is what AWS's clients in a container of the user's find; ``threads`` None lets the
    server compute on all cores; ``gpus`` are those it may use, by number. The user's environment
    has the last word about what is only a recommendation. Of the service's ``own_environment``, our
    model server gets where to send traces, and on a simulated device ``compile_cache``, see there;
    a container of the user's gets nothing."""
    if staged.kind == "llm":
        given = {n: value for n, value in own_environment.items() if n.startswith("OTEL_")}
    else:
        given = dict.fromkeys(REGION_VARIABLES, region)
    environment = {**given, **staged.environment}
    flavour = flavour_of(variant.container.image)
    if flavour:
        environment.setdefault(FLAVOUR_VARIABLE, flavour)
    if threads is not None:
        environment.setdefault(THREADS_VARIABLE, str(threads))
    if gpus:
        environment.setdefault(GPUS_VARIABLE, ",".join(map(str, gpus)))
        # By place on the bus, which is how the device files are numbered.
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        if staged.kind == "llm":
            environment.setdefault(BACKEND_VARIABLE, "cuda")
    if staged.kind == "llm" and is_neuron(variant.instance_type):
        environment.setdefault(BACKEND_VARIABLE, "neuron")
        environment.setdefault(INSTANCE_VARIABLE, variant.instance_type)
        # A cache or keys of the user's own stand for all of it.
        if not compile_cache.keys() & environment.keys():
            environment.update(compile_cache)
    return ReplicaSpec(
        replica_id=identity.id,
        runtime_name=staged.runtime_name,
        kind=staged.kind,
        python=staged.python,
        argv=staged.argv,
        environment=environment,
        model_dir=staged.model_dir,
        port=port,
        token=identity.token,
        log_group=identity.log_group,
        log_stream=identity.log_stream,
        overlays=staged.overlays,
        read_only=staged.read_only,
        memory_bytes=_reservable(variant, staged),
        devices=gpu_files() if gpus else (),
        network=staged.network,
        sandbox=staged.sandbox,
        grace_s=GRACE_S,
    )


def compile_cache(store: Store, settings: Settings) -> dict[str, str]:
    """Where replicas on simulated devices keep what they compiled, with the keys to it: our model
    server runs none of the user's code. Empty without an object store."""
    if not store.url:
        return {}
    return {
        CACHE_VARIABLE: f"s3://{settings.zoo_bucket}/neuron-compile-cache",
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": store.credential.access_key_id,
        "AWS_SECRET_ACCESS_KEY": store.credential.secret_access_key,
        "AWS_REGION": settings.region,
    }


def _reservable(variant: VariantSpec, staged: Staged) -> int:
    return variant.memory_limit_bytes + (RESERVED_KV_BYTES if staged.kind == "llm" else 0)
