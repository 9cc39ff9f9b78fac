"""The bodies and queries of ``/api``: what requests may say, and what answers have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Open(BaseModel):
    """An answer that may grow members; the named ones stay."""

    model_config = ConfigDict(extra="allow")


class Strict(BaseModel):
    """A request: a member that is not known is a mistake of the caller's."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    code: str
    message: str
    hint: str


class ErrorAnswer(BaseModel):
    error: ErrorDetail


class ZooCard(Open):
    id: str
    version: str
    task: str
    title: str = ""
    description: str = ""


class ZooCardToDeploy(ZooCard):
    """A card with what CreateModel needs to deploy it."""

    image_uri: str
    environment: dict[str, str]


class Zoo(BaseModel):
    models: list[ZooCard]


class Stage(Open):
    name: str
    seconds: float | None = None
    state: str
    detail: str = ""


class Replica(Open):
    id: str
    variant: str
    status: str
    stages: list[Stage] = []
    pid: int | None = None
    log_stream: str = ""


class EndpointState(Open):
    name: str
    status: str
    reason: str = ""
    failure_reason: str = ""
    hint: str = ""
    stages: list[Stage] = []
    replicas: list[Replica] = []
    log_tail: list[str] = []


class SimulatedReplica(Open):
    """``device``: what it stands for, with predicted times."""

    id: str
    variant: str
    device: dict[str, Any]


class SimulatedReplicas(BaseModel):
    replicas: list[SimulatedReplica]


def _no_other_kind(value: object) -> object:
    """Pydantic would take true and "1" for 1."""
    if isinstance(value, bool | str):
        raise ValueError("a whole number is expected")
    return value


_Number = Annotated[int, Field(ge=1, le=10**12)]
Limit = Annotated[_Number, BeforeValidator(_no_other_kind, json_schema_input_type=_Number)]


_Steps = Annotated[int, Field(ge=0, le=10**9)]
Steps = Annotated[_Steps, BeforeValidator(_no_other_kind, json_schema_input_type=_Steps)]


class NewFault(Strict):
    """A failure of simulated hardware: ``after`` so many steps, and again ``every`` so many; with
    an empty ``kind`` all is whole again. ``replica`` empty: all that are ready."""

    kind: str = Field(max_length=64, pattern=r"^[a-z-]*$")
    after: Steps = 0
    every: Steps = 0
    replica: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9-]*$")


class FaultyReplicas(BaseModel):
    replicas: list[str]


class NewKey(Strict):
    """Inference with a key that has limits is refused with 429 beyond them."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]*$")
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None


class CreatedKey(Open):
    """A key, secrets included: shown once."""

    key_id: str
    access_key_id: str
    secret_access_key: str
    api_key: str


class Key(Open):
    key_id: str
    name: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Keys(BaseModel):
    keys: list[Key]


class Event(Open):
    """A change of a resource; ``resource`` is its ARN."""

    resource: str
    change: str


class Events(BaseModel):
    events: list[Event]


class Info(BaseModel):
    version: str
    region: str
    account_id: str
    role_arn: str
    default_bucket: str
    supported_operations: dict[str, list[str]]


class ZooQuery(Strict):
    q: str = Field("", max_length=200, pattern=r"^[^\x00]*$", description="Words to look for.")


class EventQuery(Strict):
    resource: str = Field(
        "", max_length=300, pattern=r"^[^\x00]*$", description="Name or ARN of a resource."
    )
    limit: int = Field(100, ge=1, le=1000)


class NoQuery(Strict):
    """A route without query parameters."""
