"""``/api``: what AWS has no verb for. Zoo, keys, events, stage tables and facts of the service,
as a small REST application with OpenAPI. Authentication is the gateway's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from ridgeline.errors import InternalError, InvalidInput, NotFound, RidgelineError, did_you_mean
from ridgeline_service.api.shapes import supported_operations
from ridgeline_service.errors import ValidationException
from ridgeline_service.settings import Settings


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


def _no_other_kind(value: object) -> object:
    """Pydantic would take true and "1" for 1."""
    if isinstance(value, bool | str):
        raise ValueError("a whole number is expected")
    return value


_Number = Annotated[int, Field(ge=1, le=10**12)]
Limit = Annotated[_Number, BeforeValidator(_no_other_kind, json_schema_input_type=_Number)]


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
        known = [*EventQuery.model_fields, *ZooQuery.model_fields, *NewKey.model_fields]
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
