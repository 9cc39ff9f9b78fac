"""InvokeEndpointAsync: accepted into the spool, delivered in the background, answered through S3.

Each instance of an endpoint works on up to the configured number of requests at once. What may pass
(no replica yet, store away, queue full) is tried again until the request's time to live is over;
what cannot pass, and a request that ends replicas, ends as a document at the failure location.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from ridgeline.errors import InvalidInput, RidgelineError, Unavailable
from ridgeline_service.errors import (
    ModelError,
    ServiceUnavailable,
    ThrottlingException,
    ValidationException,
)
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.gateway.invoke import check_headers, refused, replica_headers
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.replica_answers import ReplicaKiller, ReplicaLost, Whole, model_error
from ridgeline_service.gateway.replicas import Call, Replicas
from ridgeline_service.gateway.routing import Router
from ridgeline_service.gateway.spool import Spool, SpooledRequest, encode_body
from ridgeline_service.objects.client import (
    AsyncObjectClient,
    FetchedObject,
    parse_s3_uri,
)
from ridgeline_service.snapshot import AsyncRoute, EndpointRoute, Snapshot

MAX_INPUT = MAX_OUTPUT = 1024 * 1024 * 1024
_MAX_INLINE = 128_000
_DEFAULT_TTL_S = 6 * 3600
_DEFAULT_TIMEOUT_S = 900
_ATTEMPTS = 3
_RETRY_FIRST_S, _RETRY_LAST_S = 0.25, 10.0
_PREFIX = "x-amzn-sagemaker-"

T = TypeVar("T")

_log = logging.getLogger(__name__)


class AsyncInvocations:
    """``clock`` gives epoch seconds, ``pause`` waits for a number of them."""

    def __init__(
        self,
        spool: Spool,
        replicas: Replicas,
        router: Router,
        objects: AsyncObjectClient,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._spool = spool
        self._replicas = replicas
        self._router = router
        self._objects = objects
        self._metrics = metrics
        self._snapshot = snapshot
        self._clock = clock
        self._new_id = new_id
        self._pause = pause
        self._waiting: dict[str, deque[SpooledRequest]] = {}
        self._running: dict[str, set[asyncio.Task[None]]] = {}
        self._doubted: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Condition] = {}

    def start(self) -> None:
        """Take up what an earlier process accepted and did not deliver."""
        for request in self._spool.load():
            self._enqueue(request)

    async def stop(self) -> None:
        """Drop what is under way: its files stay, and the next process takes them up."""
        self._waiting.clear()
        tasks = [task for running in self._running.values() for task in running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def refresh(self) -> None:
        """The routes have changed: where there are more instances, more can be worked on."""
        for endpoint in self._waiting:
            self._pump(endpoint)

    async def idle(self) -> None:
        """Return when nothing is under way or waiting."""
        while tasks := [task for running in self._running.values() for task in running]:
            await asyncio.wait(tasks)

    def backlog(self, endpoint: str) -> int:
        """Requests that were accepted and have not ended."""
        waiting, running = self._waiting.get(endpoint, ()), self._running.get(endpoint, ())
        return len(waiting) + len(running)

    async def accept(self, exchange: Exchange, endpoint: str, body: bytes) -> None:
        """``POST /endpoints/NAME/async-invocations``. Raises ValidationException."""
        check_headers(exchange.headers, endpoint)
        route = self._router.endpoint(endpoint)
        if route.asynchronous is None:
            raise _invalid(
                f"Endpoint {endpoint} has no AsyncInferenceConfig: use InvokeEndpoint, or create "
                "its configuration with one."
            )
        request = self._request(exchange, endpoint, body, route.asynchronous)
        await self._spool.keep(request)
        self._enqueue(request)
        locations = [("X-Amzn-SageMaker-OutputLocation", request.output_location)]
        if request.failure_location:
            locations.append(("X-Amzn-SageMaker-FailureLocation", request.failure_location))
        answer = json.dumps({"InferenceId": request.inference_id}).encode()
        await exchange.respond(202, [*locations, ("content-type", "application/json")], answer)

    def _request(
        self, exchange: Exchange, endpoint: str, body: bytes, route: AsyncRoute
    ) -> SpooledRequest:
        headers = exchange.headers
        location = headers.get(_PREFIX + "inputlocation", "")
        if bool(location) == bool(body):
            raise _invalid("Give either InputLocation or Body.")
        if len(body) > _MAX_INLINE:
            raise _invalid(f"Body may have up to {_MAX_INLINE} bytes: put it to S3 instead.")
        if location:
            try:
                parse_s3_uri(location)
            except InvalidInput as error:
                raise _invalid(f"InputLocation: {error}") from None
        request_id = self._new_id()
        extension = headers.get(_PREFIX + "s3outputpathextension", "").strip("/")
        folder = "/".join(filter(None, (route.output_path.rstrip("/"), extension)))
        name = headers.get(_PREFIX + "filename") or f"{request_id}.out"
        failure = route.failure_path.rstrip("/")
        return SpooledRequest(
            request_id=request_id,
            endpoint=endpoint,
            inference_id=headers.get(_PREFIX + "inference-id") or request_id,
            input_location=location,
            body_base64=encode_body(body),
            output_location=f"{folder}/{name}",
            failure_location=f"{failure}/{request_id}-error.out" if failure else "",
            content_type=headers.get(_PREFIX + "content-type", ""),
            headers=replica_headers(
                {n: v for n, v in headers.items() if n != _PREFIX + "inputlocation"},
                accept=headers.get(_PREFIX + "accept", ""),
                content_type="",
            ),
            target=headers.get(_PREFIX + "target-variant", ""),
            received_at=self._clock(),
            ttl_s=_seconds(headers, "requestttlseconds", 60, 21_600, _DEFAULT_TTL_S),
            timeout_s=_seconds(headers, "invocationtimeoutseconds", 1, 3_600, _DEFAULT_TIMEOUT_S),
        )

    def _enqueue(self, request: SpooledRequest) -> None:
        self._waiting.setdefault(request.endpoint, deque()).append(request)
        self._metrics.spooled.labels(request.endpoint).inc()
        self._pump(request.endpoint)

    def _pump(self, endpoint: str) -> None:
        limit = _at_once(self._snapshot().endpoints.get(endpoint))
        running = self._running.setdefault(endpoint, set())
        waiting = self._waiting.get(endpoint)
        while waiting and len(running) < limit:
            task = asyncio.create_task(self._deliver(waiting.popleft()))
            running.add(task)
            task.add_done_callback(lambda done: self._finished(endpoint, done))

    def _finished(self, endpoint: str, task: asyncio.Task[None]) -> None:
        self._running[endpoint].discard(task)
        self._metrics.spooled.labels(endpoint).dec()
        if not task.cancelled():
            if task.exception() is not None:
                _log.error("An asynchronous delivery failed", exc_info=task.exception())
            self._pump(endpoint)

    async def _deliver(self, request: SpooledRequest) -> None:
        """Bring one request to its end: an output, or a document at the failure location."""
        try:
            source = await self._persist(request, lambda: self._input(request))
            answer = await self._invoke(request, source)
            content_type = answer.headers.get("Content-Type", "application/octet-stream")
            await self._persist(
                request,
                lambda: self._objects.put(
                    request.output_location, answer.body, {"Content-Type": content_type}
                ),
            )
        except RidgelineError as error:
            await self._record_failure(request, error)
        await self._spool.remove(request)

    async def _input(self, request: SpooledRequest) -> FetchedObject:
        if not request.input_location:
            return FetchedObject(request.body, request.content_type)
        return await self._objects.get(request.input_location, limit=MAX_INPUT)

    async def _invoke(self, request: SpooledRequest, source: FetchedObject) -> Whole:
        content_type = request.content_type or source.content_type or "application/octet-stream"
        call = Call(
            request.endpoint,
            "/invocations",
            source.body,
            {**request.headers, "Content-Type": content_type},
            target=request.target,
            timeout_s=request.timeout_s,
            resend=False,
        )
        delay = _RETRY_FIRST_S
        while True:
            try:
                answer = await self._in_turn(request, call)
            except ReplicaLost as error:
                request = replace(request, attempts=request.attempts + 1)
                if request.attempts >= _ATTEMPTS or isinstance(error, ReplicaKiller):
                    raise ValidationException(
                        f"The request was given up: {error.message}", code="ModelError"
                    ) from None
                await self._spool.keep(request)
                answer = None
            if answer is not None:
                return answer
            delay = await self._wait(request, delay)

    async def _in_turn(self, request: SpooledRequest, call: Call) -> Whole | None:
        """What was worked on when a replica ended is tried again an instance's worth at a time: so
        the one that ended it does not end the others' next replica, too."""
        if not request.attempts:
            return await self._attempt(call)
        name = request.endpoint
        turn = self._turns.setdefault(name, asyncio.Condition())
        async with turn:
            try:
                async with asyncio.timeout(request.received_at + request.ttl_s - self._clock()):
                    await turn.wait_for(lambda: self._doubted[name] < self._instances(name))
            except TimeoutError:
                raise _late(request) from None
            self._doubted[name] += 1
        try:
            return await self._attempt(call)
        finally:
            self._doubted[name] -= 1
            async with turn:
                turn.notify_all()

    def _instances(self, endpoint: str) -> int:
        return _instances(self._snapshot().endpoints.get(endpoint))

    async def _attempt(self, call: Call) -> Whole | None:
        """The answer, or None if trying again later may help."""
        snapshot = self._snapshot()
        route = snapshot.endpoints.get(call.endpoint)
        if route is None and snapshot.version > 0:
            raise _invalid(
                f"Endpoint {call.endpoint} was deleted before the request was processed."
            )
        if route is None:
            return None
        try:
            answer = await self._replicas.fetch(call, MAX_OUTPUT)
        except ReplicaLost:
            raise
        except (ServiceUnavailable, ThrottlingException):
            return None
        except ValidationException:
            if route.status in ("Deleting", "Failed"):
                raise
            return None
        if 200 <= answer.status < 300:
            return answer
        if refused(answer.status, answer.headers, answer.body) or answer.status == 503:
            return None
        raise model_error(answer.status, answer.body, answer.lease, snapshot)

    async def _persist(self, request: SpooledRequest, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call to the store for as long as it is away."""
        delay = _RETRY_FIRST_S
        while True:
            try:
                return await action()
            except Unavailable:
                delay = await self._wait(request, delay)

    async def _wait(self, request: SpooledRequest, delay: float) -> float:
        """Pause before the next try; the delay after this one. Raises when the time is over."""
        if self._clock() + delay > request.received_at + request.ttl_s:
            raise _late(request)
        await self._pause(delay)
        return min(delay * 2, _RETRY_LAST_S)

    async def _record_failure(self, request: SpooledRequest, error: RidgelineError) -> None:
        _log.warning(
            "Async request %s to %s failed: %s", request.request_id, request.endpoint, error
        )
        if not request.failure_location:
            return
        fields: dict[str, object] = {
            "InferenceId": request.inference_id,
            "EndpointName": request.endpoint,
            "ErrorCode": error.code,
            "Message": str(error),
        }
        if isinstance(error, ModelError):
            fields["OriginalStatusCode"] = error.original_status
            fields["OriginalMessage"] = error.original_message
            fields["LogStreamArn"] = error.log_stream_arn
        document = json.dumps(fields).encode()
        # A failure is worth more patience than the request had.
        patient = replace(request, received_at=self._clock(), ttl_s=_DEFAULT_TTL_S)
        headers = {"Content-Type": "application/json"}
        try:
            await self._persist(
                patient, lambda: self._objects.put(request.failure_location, document, headers)
            )
        except RidgelineError as refusal:
            _log.error("No failure document for %s: %s", request.request_id, refusal)


def _late(request: SpooledRequest) -> ValidationException:
    return _invalid(
        f"The request was not processed within RequestTTLSeconds ({request.ttl_s:g} s)."
    )


def _at_once(route: EndpointRoute | None) -> int:
    """How many requests an endpoint works on. Without an instance some wait for one, and those
    whose time is over are told so."""
    if route is None or route.asynchronous is None:
        return 1
    return _instances(route) * route.asynchronous.max_concurrent


def _instances(route: EndpointRoute | None) -> int:
    """Those that are ready, at least one."""
    return max(1, sum(len(variant.replicas) for variant in route.variants) if route else 0)


def _seconds(headers: Mapping[str, str], name: str, least: int, most: int, default: int) -> float:
    value = headers.get(_PREFIX + name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise _invalid(f"{name} must be a whole number from {least} to {most}, got {value[:32]!r}.")
    return int(value)


def _invalid(message: str) -> ValidationException:
    return ValidationException(message, code="ValidationError")
