"""``/api``: what AWS has no verb for. Zoo, keys, events, stage tables and facts of the service,
as a small REST application with OpenAPI. Authentication is the gateway's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from ridgeline.errors import InternalError, InvalidInput, NotFound, RidgelineError, did_you_mean
from ridgeline_service.api.rest_bodies import (
    CreatedKey,
    EndpointState,
    ErrorAnswer,
    ErrorDetail,
    Event,
    EventQuery,
    Events,
    FaultyReplicas,
    Info,
    Key,
    Keys,
    NewFault,
    NewKey,
    NoQuery,
    SimulatedReplica,
    SimulatedReplicas,
    Zoo,
    ZooCard,
    ZooCardToDeploy,
    ZooQuery,
)
from ridgeline_service.api.shapes import supported_operations
from ridgeline_service.errors import ValidationException
from ridgeline_service.settings import Settings
from ridgeline_service.store.outage import outage

log = logging.getLogger(__name__)


class ZooVerbs(Protocol):
    def list(self, query: str = "", /) -> Sequence[Mapping[str, Any]]: ...
    def show(self, card_id: str, /) -> Mapping[str, Any]: ...


class KeyVerbs(Protocol):
    def create(
        self, name: str, /, *, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> Mapping[str, Any]: ...
    def list(self) -> Sequence[Mapping[str, Any]]: ...
    def delete(self, key_id: str, /) -> None: ...


class EventVerbs(Protocol):
    def list(self, *, resource: str = "", limit: int = 100) -> Sequence[Mapping[str, Any]]: ...


class StageVerbs(Protocol):
    def stages(self, name: str, /) -> Mapping[str, Any]: ...


class SimulatedVerbs(Protocol):
    def show(self, name: str, /) -> Sequence[Mapping[str, Any]]: ...
    def break_down(
        self, name: str, fault: Mapping[str, object], replica: str, /
    ) -> Sequence[str]: ...


class RestControl(Protocol):
    """What ``ridgeline_service.control.ControlPlane`` offers to the REST routes."""

    @property
    def zoo(self) -> ZooVerbs: ...
    @property
    def keys(self) -> KeyVerbs: ...
    @property
    def events(self) -> EventVerbs: ...
    @property
    def endpoints(self) -> StageVerbs: ...
    @property
    def simulated(self) -> SimulatedVerbs: ...


EndpointName = Annotated[str, Path(max_length=63, pattern=r"^[A-Za-z0-9](-*[A-Za-z0-9])*$")]
CardId = Annotated[  # the zoo's id, or the hub's: org/name
    str, Path(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")
]
KeyId = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_NoQuery = Annotated[NoQuery, Query()]

_Responses = dict[int | str, dict[str, Any]]


def _errors(*statuses: int) -> _Responses:
    said = {
        400: "A value is wrong; the message names it.",
        403: "No key, or one that is not known.",
        404: "No resource of that name.",
        409: "The state of the resource does not allow this.",
        503: "A part of the service is away; trying again helps.",
    }
    return {status: {"model": ErrorAnswer, "description": said[status]} for status in statuses}


def create_rest_app(control: RestControl, settings: Settings) -> FastAPI:
    app = FastAPI(
        title="Ridgeline",
        summary="What the SageMaker API has no verb for.",
        version=version("ridgeline"),
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_no_nulls)],
        responses=_errors(403, 503),
    )

    @app.get("/api/zoo", responses=_errors(400), summary="Models that can be deployed by id")
    def list_zoo(query: Annotated[ZooQuery, Query()]) -> Zoo:
        return Zoo(models=[ZooCard.model_validate(card) for card in control.zoo.list(query.q)])

    @app.get("/api/zoo/{card_id:path}", responses=_errors(400, 404), summary="One model's card")
    def show_zoo(card_id: CardId, query: _NoQuery) -> ZooCardToDeploy:
        return ZooCardToDeploy.model_validate(control.zoo.show(card_id))

    @app.get("/api/endpoints/{name}", responses=_errors(400, 404), summary="An endpoint's stages")
    def show_endpoint(name: EndpointName, query: _NoQuery) -> EndpointState:
        try:
            return EndpointState.model_validate(control.endpoints.stages(name))
        except ValidationException as error:
            # What SageMaker answers for an unknown name; REST has a status of its own for it.
            raise NotFound(error.message, hint=error.hint) from None

    @app.get(
        "/api/endpoints/{name}/simulated",
        responses=_errors(400, 404, 409),
        summary="The simulated devices of an endpoint, with predicted times",
    )
    def show_simulated(name: EndpointName, query: _NoQuery) -> SimulatedReplicas:
        found = control.simulated.show(name)
        return SimulatedReplicas(replicas=[SimulatedReplica.model_validate(one) for one in found])

    @app.post(
        "/api/endpoints/{name}/faults",
        responses=_errors(400, 404, 409),
        summary="Let the simulated devices of an endpoint fail",
    )
    def break_down(name: EndpointName, body: NewFault, query: _NoQuery) -> FaultyReplicas:
        fault = {"kind": body.kind, "after": body.after, "every": body.every}
        return FaultyReplicas(
            replicas=list(control.simulated.break_down(name, fault, body.replica))
        )

    @app.get("/api/keys", responses=_errors(400), summary="Keys, without their secrets")
    def list_keys(query: _NoQuery) -> Keys:
        return Keys(keys=[Key.model_validate(key) for key in control.keys.list()])

    @app.post("/api/keys", status_code=201, responses=_errors(400, 409), summary="Make a key")
    def create_key(body: NewKey, query: _NoQuery) -> CreatedKey:
        made = control.keys.create(
            body.name,
            requests_per_minute=body.requests_per_minute,
            tokens_per_minute=body.tokens_per_minute,
        )
        return CreatedKey.model_validate(made)

    @app.delete(
        "/api/keys/{key_id}",
        status_code=204,
        responses=_errors(400, 404, 409),
        summary="Revoke a key",
    )
    def delete_key(key_id: KeyId, query: _NoQuery) -> None:
        control.keys.delete(key_id)

    @app.get("/api/events", responses=_errors(400), summary="What happened, newest first")
    def list_events(query: Annotated[EventQuery, Query()]) -> Events:
        found = control.events.list(resource=query.resource, limit=query.limit)
        return Events(events=[Event.model_validate(event) for event in found])

    @app.get("/api/info", responses=_errors(400), summary="Facts of this service")
    def info(query: _NoQuery) -> Info:
        return Info(
            version=version("ridgeline"),
            region=settings.region,
            account_id=settings.account_id,
            role_arn=settings.role_arn,
            default_bucket=settings.default_bucket,
            supported_operations=supported_operations(),
        )

    _answer_errors(app)
    return app


def _no_nulls(request: Request) -> None:
    """No database column holds a null character: refuse it wherever it came in the URL."""
    if "\0" in request.url.path:
        raise InvalidInput("The path holds a null character.")


def _answer_errors(app: FastAPI) -> None:
    """One error shape for every fault, also for those that the framework finds."""

    @app.exception_handler(RidgelineError)
    def known(request: Request, error: RidgelineError) -> JSONResponse:
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(_explain(error))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:
            allowed = ", ".join(_allowed(app, request))
            answer = _answer(
                RidgelineError(
                    f"{request.method} is not allowed here.",
                    hint=f"Allowed: {allowed}.",
                    code="MethodNotAllowed",
                )
            )
            answer.status_code = 405
            answer.headers["Allow"] = allowed
            return answer
        if error.status_code == 404:
            return _answer(
                NotFound(
                    f"There is nothing at {request.url.path[:200]!r}.",
                    hint="The routes are listed at /api/openapi.json.",
                )
            )
        return _answer(InvalidInput(str(error.detail)))

    @app.exception_handler(OperationalError)
    @app.exception_handler(InterfaceError)
    @app.exception_handler(OSError)
    def away(request: Request, error: Exception) -> JSONResponse:
        known = outage(error)
        if known is None:
            raise error
        log.error("%s %s failed: %s", request.method, request.url.path, known.message)
        return _answer(known)

    @app.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> JSONResponse:
        return _answer(InternalError("An internal error occurred; the control plane's log has it."))


def _answer(error: RidgelineError) -> JSONResponse:
    detail = ErrorDetail(code=error.code, message=error.message, hint=error.hint)
    return JSONResponse(ErrorAnswer(error=detail).model_dump(), status_code=error.http_status)


def _explain(error: RequestValidationError) -> InvalidInput:
    """The first fault in words: where it is and what was expected there."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])[:100]
    if first["type"] == "extra_forbidden":
        known = [
            *EventQuery.model_fields,
            *ZooQuery.model_fields,
            *NewKey.model_fields,
            *NewFault.model_fields,
        ]
        return InvalidInput(
            f"Unknown member {where!r} in the {first['loc'][0]}.", hint=did_you_mean(where, known)
        )
    message = f"{where or first['loc'][0]}: {first['msg']}"
    return InvalidInput(message, hint="See /api/openapi.json for what is expected.")


def _allowed(app: FastAPI, request: Request) -> list[str]:
    methods: set[str] = set()
    for route in app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)
