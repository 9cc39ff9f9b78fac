"""A replica served from a thread, and what is measured of one by a known clock."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Event, Thread
from typing import Any

import pytest
from scripted_engine import (
    LengthEmbedder,
    ScriptedEngine,
    byte_tokenizer,
    common_letters,
    pair_tokenizer,
)
from watched import STATS, Clock

from ridgeline_backends.engine import (
    QueueFull,
)
from ridgeline_service.serving.llm.batches import Batches, Worker
from ridgeline_service.serving.llm.embedding import Embedder
from ridgeline_service.serving.llm.generation import Mailbox
from ridgeline_service.serving.llm.grammar import GrammarCompiler
from ridgeline_service.serving.llm.invocations import Flavour
from ridgeline_service.serving.llm.metrics import ModelMetrics, ReplicaMetrics
from ridgeline_service.serving.llm.model import (
    EmbeddingModel,
    Limits,
    Model,
    RerankModel,
    Seams,
    TextModel,
)
from ridgeline_service.serving.llm.replica import Replica
from ridgeline_service.serving.llm.server import Binding, ReplicaServer
from ridgeline_service.serving.llm.settings import ModelSettings
from ridgeline_service.serving.llm.text.template import ChatTemplate
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

TOKEN = "replica-secret"
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    return byte_tokenizer()


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of server-sent events; ``[DONE]`` as it is."""
        data = [part[6:] for part in self.body.decode().split("\n\n") if part.startswith("data: ")]
        return [part if part == "[DONE]" else json.loads(part) for part in data]

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.decode().splitlines()]


@dataclass
class Served:
    """A replica that runs in this process, and how to talk to it."""

    server: ReplicaServer
    engine: ScriptedEngine
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = TOKEN,
        content_type: str = "",
    ) -> Reply:
        connection = self.connect()
        try:
            raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            headers = {} if token is None else {"X-Ridgeline-Token": token}
            if content_type:
                headers["Content-Type"] = content_type
            connection.request(method, path, raw, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: object) -> Reply:
        return self.call("POST", path, body)


Start = Callable[..., Served]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start replicas of the test's own; each is stopped, and its thread joined, at its end."""
    with replicas() as begin:
        yield begin


@pytest.fixture(scope="session")
def standing() -> Iterator[Callable[[str, Flavour], Served]]:
    """Replicas that tests share, one a kind: for tests that leave a replica as it was."""
    with replicas() as begin:
        yield lru_cache(lambda kind, flavour: begin(kind=kind, flavour=flavour))


@contextmanager
def replicas() -> Iterator[Start]:
    running: list[tuple[ReplicaServer, Thread, Event]] = []

    def begin(
        *,
        kind: str = "text",
        flavour: Flavour = Flavour.DJL,
        template: str | None = TEMPLATE,
        max_model_len: int = 64,
        settings: ModelSettings | None = None,
        hold_loading: Event | None = None,
        fail: Exception | None = None,
        wait_ready: bool = True,
    ) -> Served:
        tokenizer = byte_tokenizer()
        engine = ScriptedEngine(tokenizer)
        ready = Event()

        def load(replica: Replica, mailbox: Mailbox, seams: Seams) -> tuple[ModelSettings, Model]:
            if hold_loading is not None:
                hold_loading.wait(20)
            if fail is not None:
                raise fail
            fixed = Seams(lambda: next(engine.ids), lambda: 1_700_000_000.5)
            model: Model
            if kind == "text":
                model = TextModel(
                    name="zoo-model",
                    tokenizer=tokenizer,
                    limits=Limits(max_model_len=max_model_len, max_input_tokens=max_model_len - 4),
                    seams=fixed,
                    engine=engine,
                    mailbox=mailbox,
                    template=None if template is None else ChatTemplate(template, {}),
                    eos_token_ids=frozenset({256}),
                    grammars=GrammarCompiler(tokenizer.to_json, [256]),
                )
            elif kind == "rerank":
                model = RerankModel(
                    name="zoo-judge",
                    tokenizer=pair_tokenizer(),
                    limits=Limits(max_model_len=32, max_input_tokens=32),
                    seams=fixed,
                    judge=Batches(
                        [Worker(common_letters)],
                        lambda pair: len(pair.token_ids),
                        max_waiting=4,
                    ),
                )
            else:
                model = EmbeddingModel(
                    name="zoo-embedder",
                    tokenizer=tokenizer,
                    limits=Limits(max_model_len=32, max_input_tokens=32),
                    seams=fixed,
                    embedder=Embedder([LengthEmbedder()], max_waiting=4),
                )
            return settings or ModelSettings(flavour=flavour), model

        class Observed(ReplicaServer):
            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                started.set()

            def _open(self, settings: ModelSettings, model: Model) -> None:
                super()._open(settings, model)
                ready.set()

        started = Event()
        server = Observed(Binding(0, "replica-1", TOKEN), load, linger_s=0.05)
        thread = Thread(
            target=lambda: asyncio.run(server.serve_replica(handle_signals=False)), daemon=True
        )
        thread.start()
        assert started.wait(20)
        port = server.servers[0].sockets[0].getsockname()[1]
        running.append((server, thread, hold_loading or Event()))
        if wait_ready and hold_loading is None and fail is None:
            assert ready.wait(20)
        return Served(server, engine, port)

    yield begin
    for server, thread, hold in running:
        hold.set()
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def of(standing: Callable[[str, Flavour], Served]) -> Callable[..., Served]:
    """A ready replica of this kind and flavour, with a fresh script."""

    def get(kind: str = "text", flavour: Flavour = Flavour.DJL) -> Served:
        served = standing(kind, flavour)
        served.engine.reset()
        return served

    return get


@pytest.fixture
def served(of: Callable[..., Served]) -> Served:
    """A ready replica of a text model."""
    return of()


@pytest.fixture
def pairing() -> TextTokenizer:
    """The tokenizer of the replica that scores pairs."""
    return pair_tokenizer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replica() -> ReplicaMetrics:
    return ReplicaMetrics()


@pytest.fixture
def metrics(replica: ReplicaMetrics) -> ModelMetrics:
    return replica.open("smol", lambda: STATS)


@pytest.fixture
def queue_full() -> QueueFull:
    return QueueFull(7, 900, 2.4)
