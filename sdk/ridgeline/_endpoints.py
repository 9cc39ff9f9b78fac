"""What the client knows of one endpoint: its status, its stages, what it runs.

Reads ``GET /api/endpoints/NAME`` where there is one and DescribeEndpoint where there is not, into
one small type, so that waits and displays do not care which side they look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ridgeline._names import is_name
from ridgeline.errors import InvalidInput, NotFound, NotReady, Unavailable

if TYPE_CHECKING:
    from ridgeline.session import Session

IN_SERVICE = "InService"
PENDING = "pending"
"""The status of a replica that waits for room."""
FAILED = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})


@dataclass(frozen=True)
class Stage:
    """One step on the way to InService. ``seconds`` is None until it is known."""

    name: str
    state: str = "waiting"
    seconds: float | None = None
    done: int | None = None
    total: int | None = None
    detail: str = ""

    @property
    def fraction(self) -> float | None:
        """How much of it is done, from 0 to 1, if it can be told."""
        if self.done is None or not self.total:
            return None
        return min(self.done / self.total, 1.0)


@dataclass(frozen=True)
class EndpointView:
    """One look at an endpoint."""

    name: str
    status: str
    failure_reason: str = ""
    hint: str = ""
    stages: tuple[Stage, ...] = ()
    log_tail: tuple[str, ...] = ()
    waits_for: str = ""
    """Why a replica has not begun, in the service's words; empty where none waits."""


@dataclass(frozen=True)
class Parts:
    """What an endpoint is made of, by name: what has to go when all of it goes."""

    endpoint: str
    config: str
    models: tuple[str, ...]


def look(session: Session, name: str) -> EndpointView:
    """One look at endpoint ``name``. Raises NotFound if there is none."""
    if not session.is_aws:
        try:
            return parse_view(name, session.api.get("endpoints", name))
        except NotFound:
            # Either the endpoint or the route is missing; DescribeEndpoint tells which.
            pass
    answer = describe(session, name)
    return EndpointView(name, str(answer["EndpointStatus"]), str(answer.get("FailureReason", "")))


def describe(session: Session, name: str) -> Mapping[str, Any]:
    """DescribeEndpoint. Raises NotFound if there is no endpoint of this name, or can be none."""
    if not is_name(name):
        raise NotFound(f"There is no endpoint {name!r}: that cannot be the name of one.")
    with session.call():
        answer = session.sagemaker_client.describe_endpoint(EndpointName=name)
    return dict(answer)


def simulated(session: Session, name: str) -> list[Mapping[str, Any]]:
    """The simulated device of each ready replica; none where nothing is simulated or ready."""
    if session.is_aws:
        return []
    try:
        return list(session.api.get("endpoints", name, "simulated")["replicas"])
    except (NotFound, NotReady, InvalidInput, Unavailable):
        return []


def parts(session: Session, name: str) -> Parts:
    """The config and models of endpoint ``name``; what is already gone is left out."""
    config = str(describe(session, name).get("EndpointConfigName", ""))
    models = config_models(session, config)
    return Parts(name, "", ()) if models is None else Parts(name, config, models)


def config_models(session: Session, config: str) -> tuple[str, ...] | None:
    """The models that an endpoint configuration names, each once; None where there is none."""
    try:
        with session.call():
            answer = session.sagemaker_client.describe_endpoint_config(EndpointConfigName=config)
    except NotFound:
        return None
    variants = [*answer.get("ProductionVariants", ()), *answer.get("ShadowProductionVariants", ())]
    models = (variant.get("ModelName") for variant in variants)
    return tuple(dict.fromkeys(str(model) for model in models if model))


def parse_view(name: str, body: Mapping[str, Any]) -> EndpointView:
    """The answer of ``/api/endpoints/NAME``. Members that are absent count as empty."""
    status = str(body.get("status") or "Creating")
    # The reason of an endpoint that did not fail is only how it came to its state.
    reason = body.get("reason") if status in FAILED else None
    failure = str(body.get("failure_reason") or reason or "")
    hint = str(body.get("hint") or "")
    return EndpointView(
        name=str(body.get("name") or name),
        status=status,
        failure_reason=failure,
        hint="" if hint in failure else hint,
        stages=tuple(_stage(stage) for stage in body.get("stages") or ()),
        log_tail=_lines(body.get("log_tail")),
        waits_for=_waits_for(body.get("replicas") or ()),
    )


def _waits_for(replicas: Iterable[Mapping[str, Any]]) -> str:
    waiting = (each for each in replicas if each.get("status") == PENDING)
    return next((str(each["message"]) for each in waiting if each.get("message")), "")


def _stage(body: Mapping[str, Any]) -> Stage:
    seconds, done, total = body.get("seconds"), body.get("progress"), body.get("total")
    state = body.get("state") or ("done" if seconds is not None else "waiting")
    return Stage(
        name=str(body.get("name", "")),
        state=str(state),
        seconds=None if seconds is None else float(seconds),
        done=None if done is None else int(done),
        total=None if total is None else int(total),
        detail=str(body.get("detail") or ""),
    )


def _lines(tail: str | Iterable[object] | None) -> tuple[str, ...]:
    if tail is None:
        return ()
    if isinstance(tail, str):
        return tuple(tail.splitlines())
    return tuple(str(line) for line in tail)
