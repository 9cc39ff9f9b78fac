"""The vLLM engine over a `vllm` made of values."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace

import pytest

from ridgeline_backends.engine.api import EngineOutput, FinishReason, SamplingParams
from ridgeline_backends.errors import (
    AdapterExists,
    BackendUnusable,
    DuplicateSequence,
    EngineStopped,
    InvalidAdapter,
    InvalidSampling,
    PromptTooLong,
    QueueFull,
    TooManyAdapters,
    UnknownAdapter,
)
from ridgeline_backends.vllm import opening
from ridgeline_backends.vllm.engine import VllmEngine
from ridgeline_backends.vllm.opening import VllmSpec, arguments, open_vllm

HANGS = 40
"""A prompt that begins with this never gets an answer."""
BREAKS = 41


class FakeLLM:
    """Answers with the tokens after the prompt's last one, in pairs."""

    def __init__(self) -> None:
        self.asked: list[SimpleNamespace] = []
        self.loras: list[object] = []
        self.aborted: list[str] = []
        self.closed = False

    async def generate(self, prompt, params, name, *, lora_request, priority):  # type: ignore[no-untyped-def]
        ids = prompt["prompt_token_ids"]
        self.asked.append(SimpleNamespace(params=params, lora=lora_request, priority=priority))
        if ids[0] == BREAKS:
            raise ValueError("no such luck")
        try:
            if ids[0] == HANGS:
                await asyncio.Event().wait()
            said = 0
            while said < params.max_tokens:
                tokens = [ids[-1] + said + 1 + n for n in range(min(2, params.max_tokens - said))]
                stop = next((n for n, t in enumerate(tokens) if t in params.stop_token_ids), None)
                tokens = tokens if stop is None else tokens[: stop + 1]
                said += len(tokens)
                ended = "stop" if stop is not None else None
                ended = ended or ("length" if said == params.max_tokens else None)
                best = {0: SimpleNamespace(logprob=-0.5)}
                entry = {t: {t: SimpleNamespace(logprob=-1.0), **best} for t in tokens}
                yield SimpleNamespace(
                    outputs=[
                        SimpleNamespace(
                            token_ids=tokens,
                            logprobs=[entry[t] for t in tokens],
                            finish_reason=ended,
                        )
                    ],
                    num_cached_tokens=3,
                    prompt_logprobs=None,
                )
                if ended:
                    return
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.aborted.append(name)
            raise

    async def add_lora(self, request) -> bool:  # type: ignore[no-untyped-def]
        if "bad" in request.lora_path:
            raise ValueError("it is bad")
        self.loras.append(request.lora_int_id)
        return True

    async def remove_lora(self, number: int) -> bool:
        self.loras.remove(number)
        return True

    def shutdown(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str, **content: object) -> None:
        made = ModuleType(name)
        made.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, made)

    class LoRARequest(SimpleNamespace):
        def __init__(self, name: str, number: int, path: str) -> None:
            super().__init__(lora_name=name, lora_int_id=number, lora_path=path)

    module("vllm", SamplingParams=SimpleNamespace)
    module("vllm.sampling_params", RequestOutputKind=SimpleNamespace(DELTA="delta"))
    module("vllm.lora")
    module("vllm.lora.request", LoRARequest=LoRARequest)


@pytest.fixture
def llm() -> FakeLLM:
    return FakeLLM()


@pytest.fixture
def engine(llm: FakeLLM) -> Iterator[VllmEngine]:
    engine = VllmEngine(
        lambda: llm,
        max_model_len=32,
        vocab_size=100,
        eos=frozenset({50}),
        max_live=3,
        max_adapters=1,
    )
    engine.start()
    yield engine
    engine.stop()
    assert llm.closed


class Reader:
    def __init__(self) -> None:
        self.outputs: SimpleQueue[EngineOutput] = SimpleQueue()

    def end(self) -> list[EngineOutput]:
        found = [self.outputs.get(timeout=10)]
        while found[-1].finish_reason is None:
            found.append(self.outputs.get(timeout=10))
        return found


def submit(engine: VllmEngine, name: str, prompt: list[int], **rest: object) -> Reader:
    reader = Reader()
    options = {key: rest.pop(key) for key in ("priority", "timeout_s", "adapter") if key in rest}
    params = SamplingParams(**{"max_tokens": 5, **rest})  # type: ignore[arg-type]
    engine.submit(name, prompt, params, reader.outputs.put, **options)  # type: ignore[arg-type]
    return reader


def test_tokens_come_as_they_are_made(engine: VllmEngine, llm: FakeLLM):
    bias = ((3, 1.5),)
    outputs = submit(engine, "a", [7, 8, 9, 10], logprobs=1, priority=4, logit_bias=bias).end()
    assert [output.token_ids for output in outputs] == [(11, 12), (13, 14), (15,)]
    last = outputs[-1]
    assert last.finish_reason is FinishReason.LENGTH
    assert (last.prompt_tokens, last.completion_tokens, last.cached_tokens) == (4, 5, 3)
    assert outputs[0].logprobs is not None
    assert outputs[0].logprobs[0].token_id == 11
    assert outputs[0].logprobs[0].top == ((0, -0.5),)
    assert outputs[0].times is not None
    assert last.times is not None
    assert last.times.finished is not None
    [asked] = llm.asked
    assert asked.priority == 4
    assert asked.params.logit_bias == {3: 1.5}
    assert asked.params.detokenize is False
    stats = engine.stats()
    assert (stats.generated_tokens, stats.prefix_hits, stats.finished) == (5, 3, 1)


def test_the_models_end_counts_unless_it_is_ignored(engine: VllmEngine):
    outputs = submit(engine, "a", [48]).end()
    assert [t for output in outputs for t in output.token_ids] == [49, 50]
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert submit(engine, "b", [48], ignore_eos=True).end()[-1].completion_tokens == 5


def test_an_answer_ends_with_the_context(engine: VllmEngine):
    assert submit(engine, "a", [5] * 30, max_tokens=99).end()[-1].completion_tokens == 2


def test_a_sequence_is_cancelled_or_late(engine: VllmEngine, llm: FakeLLM):
    first, second = submit(engine, "a", [HANGS]), submit(engine, "b", [HANGS], timeout_s=0.0)
    engine.cancel("a")
    engine.cancel("nobody")
    assert first.end()[-1].finish_reason is FinishReason.CANCELLED
    late = second.end()[-1]
    assert late.finish_reason is FinishReason.TIMEOUT
    assert "not done after" in (late.error or "")
    assert (engine.stats().cancelled, engine.stats().timed_out) == (1, 1)


def test_what_vllm_raises_ends_that_sequence_alone(engine: VllmEngine):
    broken = submit(engine, "a", [BREAKS]).end()[-1]
    assert broken.finish_reason is FinishReason.ERROR
    assert "no such luck" in (broken.error or "")
    assert submit(engine, "b", [1]).end()[-1].finish_reason is FinishReason.LENGTH


def test_refusals(engine: VllmEngine):
    with pytest.raises(PromptTooLong):
        submit(engine, "a", [1] * 32)
    for prompt in ([], [100], [-1]):
        with pytest.raises(InvalidSampling):
            submit(engine, "a", prompt)
    with pytest.raises(InvalidSampling, match="grammar"):
        submit(engine, "a", [1], grammar=object())
    submit(engine, "a", [HANGS])
    with pytest.raises(DuplicateSequence):
        submit(engine, "a", [1])
    submit(engine, "b", [HANGS])
    submit(engine, "c", [HANGS])
    assert engine.stats().waiting == 3
    with pytest.raises(QueueFull):
        submit(engine, "d", [1])


def test_adapters(engine: VllmEngine, llm: FakeLLM):
    with pytest.raises(UnknownAdapter):
        submit(engine, "a", [1], adapter="x")
    with pytest.raises(InvalidAdapter, match="it is bad"):
        engine.load_adapter("x", Path("/bad"))
    engine.load_adapter("x", Path("/good"))
    with pytest.raises(AdapterExists):
        engine.load_adapter("x", Path("/good"))
    with pytest.raises(TooManyAdapters):
        engine.load_adapter("y", Path("/good"))
    assert engine.stats().adapters == ("x",)
    submit(engine, "w", [1], adapter="x").end()
    assert llm.asked[0].lora.lora_name == "x"
    reader = submit(engine, "a", [HANGS], adapter="x")
    gone = engine.unload_adapter("x")
    assert engine.stats().adapters == ()
    with pytest.raises(UnknownAdapter):
        submit(engine, "b", [1], adapter="x")
    assert not gone.done()
    engine.cancel("a")
    reader.end()
    gone.result(10)
    assert llm.loras == []


def test_stopping_ends_what_lives(llm: FakeLLM):
    engine = VllmEngine(lambda: llm, max_model_len=32, vocab_size=100, eos=frozenset())
    engine.start()
    reader = submit(engine, "a", [HANGS])
    engine.stop()
    ended = reader.end()[-1]
    assert (ended.finish_reason, ended.error) == (FinishReason.ERROR, "the engine was stopped")
    assert not engine.stats().alive
    with pytest.raises(EngineStopped):
        submit(engine, "b", [1])


def test_without_vllm_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opening, "is_installed", lambda: False)
    spec = VllmSpec(dtype="bf16", max_model_len=8, max_num_seqs=2, max_live=4)
    with pytest.raises(BackendUnusable) as caught:
        open_vllm(Path("/m"), spec, vocab_size=5, eos=frozenset())
    assert caught.value.hint == "pip install vllm"


def test_arguments():
    spec = VllmSpec(
        dtype="bf16",
        max_model_len=8,
        max_num_seqs=2,
        max_live=4,
        kv_cache_bytes=99,
        max_tokens_per_step=77,
        tensor_parallel=2,
        max_adapters=3,
    )
    found = arguments(Path("/m"), spec)
    assert found["dtype"] == "bfloat16"
    assert found["tensor_parallel_size"] == 2
    assert (found["kv_cache_memory_bytes"], found["max_num_batched_tokens"]) == (99, 77)
    assert (found["enable_lora"], found["max_loras"], found["max_lora_rank"]) == (True, 3, 16)
