"""The HTTP face of a replica: a bare ASGI application.

Authentication, bodies, routing, errors, streams and disconnects. A client that goes away takes its
generation with it. Knows no request schema: those are in `openai`, `inputs` and `invocations`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, replace
from typing import Any, cast

from ridgeline.errors import Overloaded, RidgelineError
from ridgeline_backends.errors import BackendError
from ridgeline_service.replica_protocol import UNSERVED_HEADER, USAGE_HEADER, USAGE_MARK
from ridgeline_service.serving.llm.answers import Answer, StreamAnswer, json_answer, to_json
from ridgeline_service.serving.llm.errors import (
    BodyTooLarge,
    ErrorAnswer,
    ErrorStyle,
    TokenRefused,
    UnknownRoute,
    WrongMethod,
    answer_for,
)
from ridgeline_service.serving.llm.fields import parse_object
from ridgeline_service.serving.llm.hardware import break_down, simulated_device
from ridgeline_service.serving.llm.invocations import (
    Flavour,
    embedding_model,
    error_style,
    invoke,
    text_model,
)
from ridgeline_service.serving.llm.metrics import CONTENT_TYPE
from ridgeline_service.serving.llm.model import TextModel, queue_of
from ridgeline_service.serving.llm.observing import Observation, Observer
from ridgeline_service.serving.llm.openai.adapters import load_adapter, unload_adapter
from ridgeline_service.serving.llm.openai.chat import chat_completions
from ridgeline_service.serving.llm.openai.completions import completions
from ridgeline_service.serving.llm.openai.embeddings import embeddings
from ridgeline_service.serving.llm.openai.render import model_list
from ridgeline_service.serving.llm.openai.rerank import rerank, score
from ridgeline_service.serving.llm.openai.tokens import detokenize, tokenize
from ridgeline_service.serving.llm.replica import Replica, State
from ridgeline_service.serving.llm.watch import watched

log = logging.getLogger(__name__)

_FAULTS = "/ridgeline/faults"

MAX_BODY_BYTES = 32 * 2**20

# ASGI's own types are open mappings: https://asgi.readthedocs.io/en/latest/specs/www.html
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Known = Answer | StreamAnswer


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class App:
    """One replica's routes. ``flavour`` may be set once the container environment is read."""

    def __init__(
        self,
        replica: Replica,
        token: str,
        *,
        flavour: Flavour,
        observer: Observer,
        max_concurrent: int | None = None,
    ) -> None:
        self.flavour = flavour
        self._observer = observer
        self.max_concurrent = max_concurrent
        self._replica = replica
        self._token = token.encode()
        self._requests: dict[str, int] = {}
        self._gets: Mapping[str, Callable[[], Answer]] = {
            "/ping": self._ping,
            "/ridgeline/identity": lambda: json_answer(replica.identity()),
            "/v1/models": self._models,
            "/ridgeline/metrics": self._metrics,
            "/ridgeline/simulated": lambda: simulated_device(replica.model),
            "/metrics": lambda: Answer(observer.metrics.exposition(), content_type=CONTENT_TYPE),
        }
        self._posts: Mapping[str, Callable[[dict[str, object]], Awaitable[Known]]] = {
            "/invocations": self._invocations,
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completions,
            "/v1/embeddings": self._embeddings,
            **dict.fromkeys(("/v1/rerank", "/rerank"), self._rerank),
            **dict.fromkeys(("/v1/score", "/score"), self._score),
            "/v1/load_lora_adapter": self._load_adapter,
            "/v1/unload_lora_adapter": self._unload_adapter,
            _FAULTS: self._faults,
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
            # The gateway has all that concerns models below /v1.
            "/v1/tokenize": self._tokenize,
            "/v1/detokenize": self._detokenize,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Lifespan is off, and a replica has no WebSockets: uvicorn refuses them by itself.
            raise NotImplementedError(scope["type"])
        if scope["path"] in self._posts and scope["method"] == "POST":
            await self._post(scope, receive, send)
            return
        try:
            self._authenticate(scope)
            answer = self._get(scope)
        except RidgelineError as error:
            answer = _error_answer(answer_for(error), ErrorStyle.OPENAI)
        await _send_whole(send, answer)

    def _authenticate(self, scope: Scope) -> None:
        given = b""
        for name, value in scope["headers"]:
            if name == b"x-ridgeline-token":
                given = value
        if not hmac.compare_digest(given, self._token):
            raise TokenRefused("X-Ridgeline-Token is missing or wrong.")

    def _get(self, scope: Scope) -> Answer:
        path, method = scope["path"], scope["method"]
        if path in self._posts or (path in self._gets and method not in ("GET", "HEAD")):
            raise WrongMethod(f"{path} does not take {method}.")
        if path not in self._gets:
            routes = ", ".join([*self._posts, *self._gets])
            raise UnknownRoute(f"There is no {path} here.", hint=f"Known: {routes}.")
        return self._gets[path]()

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        style = ErrorStyle.OPENAI
        headers = _headers(scope)
        seen = self._observer.request(path, headers)
        try:
            self._authenticate(scope)
            self._requests[path] = self._requests.get(path, 0) + 1
            body = parse_object(await _body(receive), headers.get("content-type", ""))
            if path == "/invocations":
                style = error_style(body, self.flavour)
            if path != _FAULTS:
                self._replica.require_device()
            self._admit()
        except RidgelineError as error:
            await _send_whole(send, _error_answer(seen.refused(error), style))
            seen.end()
            return
        except ClientGone:
            seen.end()
            return
        self._replica.in_flight += 1
        work = asyncio.ensure_future(self._work(path, body, style, seen, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._replica.in_flight -= 1
            gone.cancel()
            work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            seen.end()
        if not work.cancelled() and (fault := work.exception()) is not None:
            raise fault

    def _admit(self) -> None:
        if self.max_concurrent is not None and self._replica.in_flight >= self.max_concurrent:
            raise Overloaded(
                f"{self._replica.in_flight} requests are in flight, the most this endpoint takes "
                "(MAX_CONCURRENT_REQUESTS).",
                hint="Retry in a second.",
            )

    async def _work(
        self,
        path: str,
        body: dict[str, object],
        style: ErrorStyle,
        seen: Observation,
        send: Send,
    ) -> None:
        answer: Known
        try:
            with watched(seen.watch):
                answer = await self._posts[path](body)
        except (RidgelineError, BackendError) as error:
            answer = _error_answer(seen.refused(error), style)
        except Exception:
            log.exception("%s failed", path)
            answer = _error_answer(seen.refused(None), style)
        if isinstance(answer, StreamAnswer):
            await _send_stream(send, answer, seen)
        else:
            usage = {USAGE_HEADER: seen.usage.decode()} if seen.wants_usage else {}
            headers = {**answer.headers, **usage, **seen.simulated}
            await _send_whole(send, replace(answer, headers=headers))

    async def _invocations(self, body: dict[str, object]) -> Known:
        return await invoke(self._replica.model, body, self.flavour)

    async def _chat(self, body: dict[str, object]) -> Known:
        return await chat_completions(text_model(self._replica.model), body)

    async def _completions(self, body: dict[str, object]) -> Known:
        return await completions(text_model(self._replica.model), body)

    async def _embeddings(self, body: dict[str, object]) -> Known:
        return await embeddings(embedding_model(self._replica.model), body)

    async def _rerank(self, body: dict[str, object]) -> Known:
        return await rerank(self._replica.model, body)

    async def _score(self, body: dict[str, object]) -> Known:
        return await score(self._replica.model, body)

    async def _tokenize(self, body: dict[str, object]) -> Known:
        return await tokenize(self._replica.model, body)

    async def _detokenize(self, body: dict[str, object]) -> Known:
        return await detokenize(self._replica.model, body)

    async def _load_adapter(self, body: dict[str, object]) -> Known:
        return await load_adapter(text_model(self._replica.model), body)

    async def _unload_adapter(self, body: dict[str, object]) -> Known:
        return await unload_adapter(text_model(self._replica.model), body)

    async def _faults(self, body: dict[str, object]) -> Known:
        return break_down(self._replica.model, body)

    def _models(self) -> Answer:
        return json_answer(model_list(self._replica.model))

    def _ping(self) -> Answer:
        state = self._replica.state
        return Answer(to_json({"status": state.value}), 200 if state is State.READY else 503)

    def _metrics(self) -> Answer:
        replica = self._replica
        metrics: dict[str, object] = {
            "state": replica.state.value,
            "in_flight": replica.in_flight,
            "requests": dict(self._requests),
        }
        if replica.state is State.READY:
            model = replica.model
            if isinstance(model, TextModel):
                metrics["engine"] = asdict(model.engine.stats())
            else:
                queue = queue_of(model)
                metrics["embedder"] = {"waiting": queue.waiting, "finished": queue.finished}
        return json_answer(metrics)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = cast(bytes, message.get("body", b""))
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge(f"The body has more than {MAX_BODY_BYTES} bytes.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_stream(send: Send, answer: StreamAnswer, seen: Observation) -> None:
    """Headers leave with the first part, so a failure before it still has a status of its own."""
    started = False
    try:
        try:
            async for part in answer.parts:
                if not started:
                    started = True
                    await _start(send, 200, answer.content_type, {})
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except (RidgelineError, BackendError) as error:
            fault = seen.refused(error)
        except Exception:
            log.exception("A stream failed")
            fault = seen.refused(None)
        else:
            await send({"type": "http.response.body", "body": _usage_mark(seen)})
            return
        if not started:
            await _send_whole(send, _error_answer(fault, answer.style))
            return
        part = answer.frame(fault.body(answer.style)) + _usage_mark(seen)
        await send({"type": "http.response.body", "body": part})
    finally:
        answer.close()


def _usage_mark(seen: Observation) -> bytes:
    """What follows a stream for whoever asked what it used."""
    return USAGE_MARK + seen.usage if seen.wants_usage else b""


async def _send_whole(send: Send, answer: Answer) -> None:
    headers = {**answer.headers, "content-length": str(len(answer.body))}
    await _start(send, answer.status, answer.content_type, headers)
    await send({"type": "http.response.body", "body": answer.body})


async def _start(send: Send, status: int, content_type: str, headers: Mapping[str, str]) -> None:
    pairs = [(b"content-type", content_type.encode())]
    pairs += [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def _headers(scope: Scope) -> dict[str, str]:
    """Names are lower-case by ASGI's rule."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _error_answer(error: ErrorAnswer, style: ErrorStyle) -> Answer:
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    if error.unserved:
        headers[UNSERVED_HEADER] = "1"
    return Answer(to_json(error.body(style)), error.status, headers=headers)
