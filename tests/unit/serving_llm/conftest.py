"""A scripted engine, small tokenizers and a replica served from a thread."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from ridgeline_backends.encoding import TokenPair
from ridgeline_backends.engine import (
    Engine,
    EngineOutput,
    EngineStats,
    FinishReason,
    PromptTooLong,
    QueueFull,
    SamplingParams,
    Sink,
    TokenLogprobs,
)
from ridgeline_backends.errors import AdapterExists, UnknownAdapter
from ridgeline_service.serving.llm.batches import Batches, Worker
from ridgeline_service.serving.llm.embedding import Embedder
from ridgeline_service.serving.llm.generation import Mailbox, Terms
from ridgeline_service.serving.llm.grammar import GrammarCompiler
from ridgeline_service.serving.llm.invocations import Flavour
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
EOS = "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_tokenizer() -> TextTokenizer:
    """One token a byte, then the end-of-sequence token: 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: place for place, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    return TextTokenizer(tokenizer)


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    return byte_tokenizer()


@dataclass
class Submitted:
    """One sequence as the engine saw it."""

    sequence_id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    terms: Terms


@dataclass
class Script:
    """What the engine says to every sequence: ``text`` byte by byte, then the end.

    ``hold`` keeps the engine silent after ``hold_after`` tokens until the sequence is cancelled.
    """

    text: str = "Hello there"
    ends_with_eos: bool = True
    hold_after: int | None = None
    refuse: Exception | None = None
    refuse_from: int = 0
    error: str | None = None


class ScriptedEngine(Engine):
    """Speaks a script on a thread of its own, one token an output."""

    max_len = 64

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.changed = Condition()
        self._tokenizer = tokenizer
        self.reset()

    def reset(self) -> None:
        self.script = Script()
        self.submitted: list[Submitted] = []
        self.cancelled: list[str] = []
        self.loaded: list[str] = []
        self.ids = (f"id{number}" for number in itertools.count(1))

    @property
    def max_model_len(self) -> int:
        return self.max_len

    def submit(
        self,
        sequence_id: str,
        prompt: Sequence[int],
        params: SamplingParams,
        sink: Sink,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        adapter: str | None = None,
    ) -> None:
        script = self.script
        if adapter is not None and adapter not in self.loaded:
            raise UnknownAdapter(adapter, self.loaded)
        if script.refuse is not None and len(self.submitted) >= script.refuse_from:
            raise script.refuse
        if len(prompt) >= self.max_len:
            raise PromptTooLong(len(prompt), self.max_len - 1)
        with self.changed:
            terms = Terms(priority=priority, timeout_s=timeout_s, adapter=adapter)
            self.submitted.append(Submitted(sequence_id, tuple(prompt), params, terms))
            self.changed.notify_all()
        Thread(target=self._speak, args=(sequence_id, prompt, params, sink), daemon=True).start()

    def cancel(self, sequence_id: str) -> None:
        with self.changed:
            self.cancelled.append(sequence_id)
            self.changed.notify_all()

    def wait_submitted(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.submitted) >= count, timeout=10)

    def wait_cancelled(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(set(self.cancelled)) >= count, timeout=10)

    def stats(self) -> EngineStats:
        return EngineStats(running=1, total_blocks=8, max_waiting=20, adapters=tuple(self.loaded))

    def load_adapter(self, name: str, directory: Path) -> None:
        if name in self.loaded:
            raise AdapterExists(name)
        self.loaded.append(name)

    def unload_adapter(self, name: str) -> Future[None]:
        if name not in self.loaded:
            raise UnknownAdapter(name, self.loaded)
        self.loaded.remove(name)
        gone: Future[None] = Future()
        gone.set_result(None)
        return gone

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def _speak(
        self, sequence_id: str, prompt: Sequence[int], params: SamplingParams, sink: Sink
    ) -> None:
        script = self.script
        ids = self._tokenizer.encode(script.text, add_special_tokens=False)
        eos = self._tokenizer.id_of(EOS)
        assert eos is not None
        if script.ends_with_eos:
            ids.append(eos)
        ids = ids[: params.max_tokens]

        def output(count: int, finish: FinishReason | None, **more: Any) -> EngineOutput:
            return EngineOutput(
                sequence_id=sequence_id,
                finish_reason=finish,
                prompt_tokens=len(prompt),
                completion_tokens=count,
                cached_tokens=3,
                **more,
            )

        for count, token_id in enumerate(ids, 1):
            if script.hold_after is not None and count > script.hold_after:
                with self.changed:
                    self.changed.wait_for(lambda: sequence_id in self.cancelled, timeout=10)
                sink(output(count, FinishReason.CANCELLED))
                return
            if script.error is not None and count == len(ids):
                sink(output(count, FinishReason.ERROR, error=script.error))
                return
            finish = None
            if count == len(ids):
                finish = FinishReason.STOP if token_id == eos else FinishReason.LENGTH
            logprobs = None
            if params.logprobs is not None:
                top = tuple((token_id + place, -0.5 - place) for place in range(params.logprobs))
                logprobs = (TokenLogprobs(token_id, -0.5, top),)
            scores = None
            if params.prompt_logprobs is not None and count == 1:
                scores = tuple(
                    TokenLogprobs(known, -0.25, ((known, -0.25),)) for known in prompt[1:]
                )
            sink(
                output(
                    count,
                    finish,
                    token_ids=(token_id,),
                    logprobs=logprobs,
                    prompt_logprobs=scores,
                )
            )


class LengthEmbedder:
    """A vector that says how long each sequence was."""

    dimensions = 3
    max_model_len = 32

    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[float(len(ids)), 0.25, -1.5] for ids in token_ids]


def pair_tokenizer() -> TextTokenizer:
    """`byte_tokenizer`, with its end-of-sequence token after each text of a pair."""
    tokenizer = Tokenizer.from_str(byte_tokenizer().to_json())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}",
        pair=f"$A {EOS} $B:1 {EOS}:1",
        special_tokens=[(EOS, tokenizer.token_to_id(EOS))],
    )
    return TextTokenizer(tokenizer)


def common_letters(pairs: Sequence[TokenPair]) -> list[float]:
    """A judge: the share of the second text's letters that the first one has."""
    scores = []
    for pair in pairs:
        cut = list(pair.type_ids).index(1)
        query, document = set(pair.token_ids[: cut - 1]), list(pair.token_ids[cut:-1])
        scores.append(sum(letter in query for letter in document) / max(1, len(document)))
    return scores


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
def queue_full() -> QueueFull:
    return QueueFull(7, 900, 2.4)
