"""Rows as frozen values. Times are whole microseconds since the epoch.

A document is what an AWS client sent, validated at the border and kept as it came; what the
service itself decides on is a typed field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from ridgeline_service.store.states import Desired, EndpointStatus, Reason, ReplicaStatus

Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class StoredRequest:
    """A model or an endpoint config: a name and the request that made it, without its tags."""

    arn: str
    name: str
    created_at: int
    request: Document


@dataclass(frozen=True)
class EndpointRecord:
    """``traffic_step`` is how many steps the traffic of an update has gone to the pending
    deployment, ``traffic_at`` when it took the last of them; both 0 without one."""

    arn: str
    name: str
    created_at: int
    modified_at: int
    status: EndpointStatus
    reason: Reason
    failure_reason: str
    desired: Desired
    active_deployment: str | None
    pending_deployment: str | None
    deployment_config: Document | None
    traffic_step: int = 0
    traffic_at: int = 0


@dataclass(frozen=True)
class ContainerSpec:
    """The container of a model: image, environment and where its data lies.

    ``data_uri`` is an S3 URI or empty; ``data_kind`` is ``archive`` (one .tar.gz), ``prefix``
    (plain objects below a prefix) or empty.
    """

    image: str
    runtime: str
    environment: dict[str, str]
    data_uri: str = ""
    data_kind: str = ""
    network: bool = True


@dataclass(frozen=True)
class VariantSpec:
    """One variant of a deployment, resolved and copied from its model when it was deployed.

    ``count`` and ``weight`` are what is wanted now; ``deployed_count`` is what was last reached,
    to which a scale-out that fails goes back. ``memory_bytes`` is what each replica declares and
    is admitted by; ``memory_limit_bytes`` is what it may use. ``warning`` is what its user should
    know, such as a GPU that is not there.
    """

    name: str
    model_name: str
    weight: float
    count: int
    deployed_count: int
    instance_type: str
    memory_bytes: int
    memory_limit_bytes: int
    startup_timeout_s: float
    download_timeout_s: float
    container: ContainerSpec
    serverless: dict[str, int] | None = None
    zoo_id: str = ""
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> VariantSpec:
        return cls(**{**raw, "container": ContainerSpec(**raw["container"])})


@dataclass(frozen=True)
class DeploymentRecord:
    """One blue/green generation of an endpoint. ``config`` is the endpoint config's request;
    ``task`` is what its replicas last said they do, empty until one is ready."""

    id: str
    endpoint_arn: str
    created_at: int
    config_name: str
    config: Document
    variants: tuple[VariantSpec, ...]
    task: str = ""

    def variant(self, name: str) -> VariantSpec | None:
        return next((variant for variant in self.variants if variant.name == name), None)


@dataclass(frozen=True)
class Stage:
    """A step of a replica's start: ``state`` is running, done or failed; ``progress`` is bytes or
    other units done of ``total`` (0: not known), ``detail`` words for people. While it runs,
    ``seconds`` is not up to date: count from ``began`` (microseconds)."""

    name: str
    state: str = "running"
    seconds: float = 0.0
    progress: int = 0
    total: int = 0
    began: int = 0
    detail: str = ""


@dataclass(frozen=True)
class ReplicaRecord:
    id: str
    endpoint_arn: str
    deployment_id: str
    variant: str
    status: ReplicaStatus
    reason: Reason
    message: str
    desired: Desired
    created_at: int
    changed_at: int
    launched_at: int | None
    ready_at: int | None
    memory_bytes: int
    port: int | None
    token: str
    pid: int | None
    start_time: int | None
    task: str
    stages: tuple[Stage, ...] = ()
    lock_token: str | None = None
    lock_expires_at: int = 0

    @property
    def serves(self) -> bool:
        """Requests may be routed to it."""
        return self.status is ReplicaStatus.READY and self.desired is Desired.RUNNING

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class KeyRecord:
    """An issued key. The bearer key is known by its SHA-256 alone. No limit is None."""

    key_id: str
    name: str
    created_at: int
    access_key_id: str
    secret_access_key: str = field(repr=False)
    api_key_sha256: str = field(repr=False)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True)
class EventRecord:
    """One change of state. ``resource`` is an ARN; ``change`` the new state or what was done."""

    id: int
    at: int
    resource: str
    change: str
    reason: str
    message: str
