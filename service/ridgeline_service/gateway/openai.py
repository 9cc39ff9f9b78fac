"""The OpenAI API: ``model`` is the endpoint's name, the rest is the model server's business.

``ENDPOINT:ADAPTER`` names a LoRA adapter on it: then the field ``adapter`` is set for the model
server. Other bodies pass unchanged, and answers always do; only ``model`` is read. Every error that
the gateway itself finds has OpenAI's shape and status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ridgeline.errors import NotFound, RidgelineError, did_you_mean
from ridgeline_service.errors import (
    AwsError,
    ServiceUnavailable,
    ThrottlingException,
    ValidationException,
)
from ridgeline_service.gateway.answers import (
    openai_error,
    openai_type,
    retry_after,
)
from ridgeline_service.gateway.auth import Caller
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.gateway.limits import Limiter, Meter, RateLimited
from ridgeline_service.gateway.replica_answers import ReplicaLost, ReplicaTimeout, Streaming
from ridgeline_service.gateway.replicas import Call, Replicas
from ridgeline_service.gateway.routing import Router
from ridgeline_service.gateway.told import Told, ToldModels
from ridgeline_service.replica_protocol import SIMULATED_HEADER
from ridgeline_service.snapshot import EndpointRoute, Snapshot

MAX_BODY = 25 * 1024 * 1024
# By path: the tasks of the endpoints that answer there.
TASKS = {
    "chat/completions": ("text-generation",),
    "completions": ("text-generation",),
    "embeddings": ("text-embedding",),
    "rerank": ("text-ranking", "text-embedding"),
    "score": ("text-ranking", "text-embedding"),
    "tokenize": ("text-generation", "text-embedding", "text-ranking"),
    "detokenize": ("text-generation", "text-embedding", "text-ranking"),
}
# Where other servers of models say that they are well.
_HEALTH_ELSEWHERE = frozenset(("/health", "/ping", "/version"))
_V1_AGAIN = re.compile(r"//+v1(/|$)|/v1/+v1(/|$)")
_FORWARDED = ("Retry-After", "openai-processing-ms", "x-request-id", SIMULATED_HEADER)


class OpenAiError(RidgelineError):
    """What is wrong with a request, in OpenAI's terms."""

    def __init__(
        self, message: str, *, status: int, kind: str = "", param: str = "", code: str = ""
    ) -> None:
        super().__init__(message, code=code)
        self.http_status = status
        self.kind = kind or openai_type(status)
        self.param = param


class OpenAI:
    def __init__(
        self,
        replicas: Replicas,
        router: Router,
        limiter: Limiter,
        snapshot: Callable[[], Snapshot],
        told: ToldModels,
    ) -> None:
        self._told = told
        self._replicas = replicas
        self._router = router
        self._limiter = limiter
        self._snapshot = snapshot

    async def answer(self, exchange: Exchange, path: str, caller: Caller) -> None:
        """Answer the call of ``caller``. Raises ClientGone only."""
        try:
            if path == "models" or path.startswith("models/"):
                await self._models(exchange, path.removeprefix("models").removeprefix("/"))
                return
            tasks = TASKS.get(path)
            if tasks is None:
                raise _unknown_url(exchange)
            _require_method(exchange, "POST")
            body = await exchange.body(MAX_BODY)
            with exchange.span.child("route"):
                fields = _fields(body)
                model = endpoint = _model(fields)
                adapter = ""
                if "text-generation" in tasks:
                    # An endpoint's name has no colon in it.
                    endpoint, _, adapter = model.partition(":")
                exchange.endpoint = self._known(endpoint if adapter else model).name
                meter = self._limiter.admit(exchange, caller, body, _wanted_tokens(fields))
                if adapter:
                    body = json.dumps(fields | {"adapter": adapter}).encode()
            async with exchange.until_client_leaves():
                await self._require_task(endpoint, tasks)
                await self._proxy(exchange, endpoint, f"/v1/{path}", body, meter)
        except RidgelineError as error:
            if exchange.started:
                raise
            await _refuse(exchange, error)

    async def _models(self, exchange: Exchange, model: str) -> None:
        _require_method(exchange, "GET")
        routes = list(self._served().values())
        if model:
            routes = [self._known(model.partition(":")[0])]
        told = await self._told.of(routes)
        served = [
            entry for route in routes for entry in _describe(route, told.get(route.name, Told()))
        ]
        if not model:
            await _json(exchange, {"object": "list", "data": served})
            return
        named = next((entry for entry in served if entry["id"] == model), None)
        if named is None:
            known = [str(entry["id"]) for entry in served]
            hint = did_you_mean(model, known) or "/v1/models lists them all."
            raise NotFound(f"The model {model!r} does not exist.", hint=hint)
        await _json(exchange, named)

    def _served(self) -> dict[str, EndpointRoute]:
        routes = self._snapshot().endpoints
        return {name: route for name, route in sorted(routes.items()) if route.task}

    def _known(self, model: str) -> EndpointRoute:
        route = self._snapshot().endpoints.get(model)
        if route is None:
            hint = did_you_mean(model, self._served()) or "No endpoint serves this API yet."
            raise NotFound(f"The model {model!r} does not exist.", hint=hint)
        return route

    async def _require_task(self, model: str, tasks: tuple[str, ...]) -> None:
        """Raises OpenAiError, or what the router raises when no replica comes in time."""
        route = self._known(model)
        if not route.task and not any(variant.replicas for variant in route.variants):
            # It is a replica that says which task it has, and none is here yet.
            lease = await self._router.acquire(model)
            lease.release()
            route = lease.endpoint
        if route.task not in tasks:
            serves = f"serves {route.task}" if route.task else "does not serve the OpenAI API"
            raise OpenAiError(
                f"The model {model!r} {serves}; this call needs {' or '.join(tasks)}.",
                status=400,
                param="model",
                code="model_not_supported",
            )

    async def _proxy(
        self, exchange: Exchange, endpoint: str, path: str, body: bytes, meter: Meter
    ) -> None:
        headers = {
            "Content-Type": "application/json",
            "Accept": exchange.headers.get("accept", "application/json"),
        }
        call = Call(endpoint, path, body, headers, meter=meter, span=exchange.span)
        async with self._replicas.open(call) as answer:
            content_type = answer.headers.get("Content-Type", "application/json")
            passed = [(name, answer.headers[name]) for name in _FORWARDED if name in answer.headers]
            passed.append(("content-type", content_type))
            if not content_type.startswith("text/event-stream"):
                await exchange.respond(answer.status, passed, await answer.read())
                return
            passed.append(("cache-control", "no-cache"))
            await exchange.start(answer.status, passed)
            await exchange.end(await _pass_events(exchange, answer))


async def _pass_events(exchange: Exchange, answer: Streaming) -> bytes:
    """Pass events on as they come. Returns the event that ends a broken stream, or nothing."""
    tail = b""
    try:
        async for chunk in answer.chunks():
            await exchange.write(chunk)
            tail = (tail + chunk)[-4:]
    except (ReplicaLost, ReplicaTimeout) as error:
        document = openai_error(str(error), "server_error", code="replica_lost")
        # The stream may have broken inside an event: a blank line ends that one first.
        gap = b"" if not tail or tail.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
        return gap + b"data: " + document + b"\n\n"
    return b""


def _unknown_url(exchange: Exchange) -> OpenAiError:
    told = (
        f"Unknown request URL: {exchange.method} {exchange.path}. Served here: "
        f"/v1/models, {', '.join('/v1/' + known for known in TASKS)}."
    )
    if exchange.path in _HEALTH_ELSEWHERE:
        told += " GET /healthz says whether the service is up, and needs no key."
    elif _V1_AGAIN.match(exchange.path):
        told += " A client's base URL ends in one /v1, after one slash."
    elif not exchange.path.startswith("/v1/"):
        told += " A client's base URL ends in /v1."
    return OpenAiError(told, status=404, code="unknown_url")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise OpenAiError(
            "We could not parse the JSON body of your request.", status=400, code="invalid_json"
        ) from None
    if not isinstance(fields, dict):
        raise OpenAiError("The body must be a JSON object.", status=400, code="invalid_json")
    return fields


def _wanted_tokens(fields: Mapping[str, Any]) -> int:
    """How long an answer the request allows: what it says, where it says it."""
    longest = fields.get("max_completion_tokens", fields.get("max_tokens"))
    copies = fields.get("n", 1)
    return longest * copies if type(longest) is int and type(copies) is int else 0


def _model(fields: Mapping[str, Any]) -> str:
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise OpenAiError(
            "You must provide a model parameter: the name of an endpoint.",
            status=400,
            param="model",
            code="missing_required_parameter",
        )
    return model


def _describe(route: EndpointRoute, told: Told) -> list[dict[str, object]]:
    """The endpoint and its adapters. ``max_model_len`` is vLLM's name for the context length, null
    if no replica tells it; ``parent`` is vLLM's too."""
    own: dict[str, object] = {
        "id": route.name,
        "object": "model",
        "created": int(route.created_at),
        "owned_by": "ridgeline",
        "task": route.task,
        "status": route.status,
        "max_model_len": told.context_length,
    }
    adapters = [{**own, "id": f"{route.name}:{a}", "parent": route.name} for a in told.adapters]
    return [own, *adapters]


def _require_method(exchange: Exchange, method: str) -> None:
    if exchange.method != method:
        raise OpenAiError(
            f"Not allowed to {exchange.method} on {exchange.path}: use {method}.",
            status=405,
            code="method_not_allowed",
        )


async def _refuse(exchange: Exchange, error: RidgelineError) -> None:
    headers = [("content-type", "application/json"), *retry_after(error)]
    status, kind, param, code = error.http_status, "", "", error.code
    match error:
        case OpenAiError():
            kind, param = error.kind, error.param
        case NotFound():
            param, code = "model", "model_not_found"
        case ValidationException():
            # The endpoint exists and cannot answer yet, or no longer.
            status, code = 503, "model_not_ready"
            headers += retry_after(ServiceUnavailable(""))
        case RateLimited():
            kind, code = error.what, "rate_limit_exceeded"
        case ThrottlingException():
            code = "rate_limit_exceeded"
        case ReplicaTimeout():
            status, code = 504, "timeout"
        case AwsError():
            code = "service_unavailable" if status == 503 else code
    body = openai_error(str(error), kind or openai_type(status), param=param, code=code)
    await exchange.respond(status, headers, body)


async def _json(exchange: Exchange, document: dict[str, object]) -> None:
    body = json.dumps(document).encode()
    await exchange.respond(200, [("content-type", "application/json")], body)
