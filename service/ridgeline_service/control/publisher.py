"""Publishes the snapshot: routes of serving replicas and keys, whenever either changes.

Compares before it writes, so that it may be called after every transaction. The rows are read and
the file is replaced under one lock, so that of two control planes the one that read older rows
never has the last word.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.rollouts import Rollout, Shares
from ridgeline_service.security.keys import RootKey, hash_bearer_key
from ridgeline_service.snapshot import (
    ApiKey,
    AsyncRoute,
    CaptureRoute,
    Credential,
    EndpointRoute,
    KeyLimits,
    ReplicaRoute,
    Snapshot,
    VariantRoute,
    read_snapshot,
    write_snapshot,
)
from ridgeline_service.store import endpoints as rows
from ridgeline_service.store import journal, replicas
from ridgeline_service.store.records import (
    DeploymentRecord,
    EndpointRecord,
    ReplicaRecord,
    VariantSpec,
)
from ridgeline_service.store.states import EndpointStatus

ROOT_KEY_ID = "root"
DEFAULT_ASYNC_CONCURRENCY = 4


class Publisher:
    """One per control plane; ``publish`` may be called from any thread."""

    def __init__(self, context: Context, root_key: RootKey) -> None:
        self._context = context
        self._root_key = root_key
        self._lock = threading.Lock()

    def start(self) -> None:
        """Publish, and count on from the file where the database was replaced by a new one."""
        current = self._current()
        if current is not None:
            with self._context.db.write() as connection:
                journal.raise_to(connection, "snapshot", current.version)
        self.publish()

    def publish(self) -> None:
        """Write the snapshot if it would say something new."""
        with self._lock, self._file_lock():
            with self._context.db.read() as connection:
                wanted = self._snapshot(connection)
            current = self._current()
            if current is not None and replace(current, version=0) == wanted:
                return
            with self._context.db.write() as connection:
                version = journal.increase(connection, "snapshot")
            write_snapshot(self._context.data_dir.snapshot, replace(wanted, version=version))

    def _current(self) -> Snapshot | None:
        try:
            return read_snapshot(self._context.data_dir.snapshot)
        except (FileNotFoundError, ValueError):
            return None  # none yet, or damaged: it is written anew

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        path = self._context.data_dir.run / "snapshot.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _snapshot(self, connection: Connection) -> Snapshot:
        settings = self._context.settings
        keys = journal.all_keys(connection)
        root = self._root_key
        deployments = {item.id: item for item in rows.all_deployments(connection)}
        serving = [item for item in replicas.all_replicas(connection) if item.serves]
        routes = [
            _route(
                endpoint,
                deployments.get(endpoint.active_deployment or ""),
                deployments.get(endpoint.pending_deployment or ""),
                serving,
            )
            for endpoint in rows.all_endpoints(connection)
            if endpoint.status is not EndpointStatus.DELETING
        ]
        return Snapshot(
            region=settings.region,
            account_id=settings.account_id,
            credentials=(
                Credential(root.access_key_id, root.secret_access_key),
                *(Credential(key.access_key_id, key.secret_access_key) for key in keys),
            ),
            api_keys=(
                ApiKey(ROOT_KEY_ID, hash_bearer_key(root.api_key)),
                *(ApiKey(key.key_id, key.api_key_sha256) for key in keys),
            ),
            limits=tuple(
                KeyLimits(
                    key.key_id, key.access_key_id, key.requests_per_minute, key.tokens_per_minute
                )
                for key in keys
                if key.requests_per_minute is not None or key.tokens_per_minute is not None
            ),
            endpoints={route.name: route for route in sorted(routes, key=lambda r: r.name)},
        )


def _route(
    endpoint: EndpointRecord,
    active: DeploymentRecord | None,
    pending: DeploymentRecord | None,
    serving: list[ReplicaRecord],
) -> EndpointRoute:
    shares = _shares(endpoint, active, pending)
    # A request that is accepted for later has no replica yet: it goes by what most of them meet.
    leading = pending if shares is not None and shares.overall > 0.5 else active
    return EndpointRoute(
        name=endpoint.name,
        arn=endpoint.arn,
        status=endpoint.status.value,
        task=active.task if active is not None else "",
        created_at=endpoint.created_at / 1e6,
        variants=_variant_routes(active, pending, shares, serving),
        asynchronous=_async_route(leading),
    )


def _shares(
    endpoint: EndpointRecord, active: DeploymentRecord | None, pending: DeploymentRecord | None
) -> Shares | None:
    """What of the traffic an update has moved; None where it has moved none."""
    if active is None or pending is None or not endpoint.traffic_step:
        return None
    rollout = Rollout.of(endpoint.deployment_config)
    return rollout.shares(pending.variants, endpoint.traffic_step)


def _variant_routes(
    active: DeploymentRecord | None,
    pending: DeploymentRecord | None,
    shares: Shares | None,
    serving: list[ReplicaRecord],
) -> tuple[VariantRoute, ...]:
    """Those of the deployment that serves, and of the one that an update moves traffic to."""
    if active is None:
        return ()
    old = [_variant_route(active, variant, serving) for variant in active.variants]
    if pending is None or shares is None:
        return tuple(old)
    new = [_variant_route(pending, variant, serving) for variant in pending.variants]
    return (
        *(replace(route, share=1.0 - shares.of(route.name)) for route in _weighed(old)),
        *(replace(route, share=shares.of(route.name)) for route in _weighed(new)),
    )


def _variant_route(
    deployment: DeploymentRecord, variant: VariantSpec, serving: list[ReplicaRecord]
) -> VariantRoute:
    return VariantRoute(
        name=variant.name,
        weight=variant.weight,
        replicas=tuple(
            ReplicaRoute(item.id, item.url, item.token)
            for item in serving
            if item.deployment_id == deployment.id and item.variant == variant.name
        ),
        log_stream_prefix=f"{variant.name}/",
        deployment=deployment.id,
        max_concurrency=(variant.serverless or {}).get("MaxConcurrency"),
        capture=_capture_route(deployment),
    )


def _weighed(routes: list[VariantRoute]) -> list[VariantRoute]:
    """With weights that sum to 1, since those of two deployments need not be of one scale."""
    total = sum(route.weight for route in routes) or 1.0
    return [replace(route, weight=route.weight / total) for route in routes]


def _async_route(deployment: DeploymentRecord | None) -> AsyncRoute | None:
    config = deployment.config.get("AsyncInferenceConfig") if deployment is not None else None
    if config is None:
        return None
    client = config.get("ClientConfig") or {}
    return AsyncRoute(
        output_path=config["OutputConfig"]["S3OutputPath"],
        failure_path=config["OutputConfig"].get("S3FailurePath", ""),
        max_concurrent=client.get("MaxConcurrentInvocationsPerInstance", DEFAULT_ASYNC_CONCURRENCY),
    )


def _capture_route(deployment: DeploymentRecord) -> CaptureRoute | None:
    config = deployment.config.get("DataCaptureConfig")
    if config is None or not config.get("EnableCapture", True):
        return None
    kinds = config.get("CaptureContentTypeHeader") or {}
    # "InputAndOutput" is both.
    modes = "".join(option["CaptureMode"] for option in config["CaptureOptions"])
    return CaptureRoute(
        destination=config["DestinationS3Uri"].rstrip("/"),
        percent=config["InitialSamplingPercentage"],
        input="Input" in modes,
        output="Output" in modes,
        csv_types=_content_types(kinds.get("CsvContentTypes")),
        json_types=_content_types(kinds.get("JsonContentTypes")),
    )


def _content_types(given: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(kind.lower() for kind in given or ())
