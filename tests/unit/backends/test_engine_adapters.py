"""Adapters that come and go, and an engine in any order of events."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from ridgeline_backends.engine import (
    EngineOutput,
    EngineStopped,
    FinishReason,
    LLMEngine,
    QueueFull,
    SamplingParams,
)
from ridgeline_backends.engine.drafting import PromptLookup
from ridgeline_backends.engine.speculation import Speculation
from ridgeline_backends.errors import (
    AdapterExists,
    AdaptersUnsupported,
    InvalidAdapter,
    TooManyAdapters,
    UnknownAdapter,
)
from ridgeline_backends.testing import FakeRunner, next_token, paged_limits

from .test_engine_order import VOCABULARY, Clock, Reader, expected, greedy, run


def lora_engine(max_adapters: int = 2) -> LLMEngine:
    return LLMEngine(FakeRunner(paged_limits(), max_adapters=max_adapters))


def test_adapters_answer_by_name_and_share_no_prefix():
    engine = lora_engine()
    engine.load_adapter("one", Path("1"))
    engine.load_adapter("two", Path("2"))
    assert engine.stats().adapters == ("one", "two")
    prompt = list(range(12))
    wanted = {"one": Path("1"), "two": Path("2"), None: None}
    readers = {name: Reader() for name in wanted}
    for name, reader in readers.items():
        engine.submit(str(name), prompt, greedy(), reader, adapter=name)
    run(engine)
    for name, path in wanted.items():
        assert readers[name].tokens == expected(prompt, 6, path)
    assert engine.stats().prefix_hits == 0


def test_an_adapter_that_leaves_lets_its_sequences_end():
    engine = lora_engine()
    engine.load_adapter("one", Path("1"))
    reader = Reader()
    engine.submit("a", [1, 2], greedy(), reader, adapter="one")
    engine.step()
    gone = engine.unload_adapter("one")
    with pytest.raises(UnknownAdapter, match="one"):
        engine.submit("b", [1], greedy(), Reader(), adapter="one")
    with pytest.raises(AdapterExists):
        engine.load_adapter("one", Path("other"))
    assert not gone.done()
    run(engine)
    assert reader.tokens == expected([1, 2], 6, Path("1"))
    gone.result(0)
    # Another one by the same name finds nothing of the former.
    engine.load_adapter("one", Path("other"))
    again = Reader()
    engine.submit("a", [1, 2], greedy(), again, adapter="one")
    run(engine)
    assert again.tokens == expected([1, 2], 6, Path("other"))


def test_adapters_that_cannot_be_loaded_are_refused():
    engine = lora_engine(1)
    with pytest.raises(InvalidAdapter):
        engine.load_adapter("mine", Path("bad"))
    engine.load_adapter("mine", Path("good"))
    with pytest.raises(TooManyAdapters, match="1"):
        engine.load_adapter("other", Path("good"))
    with pytest.raises(UnknownAdapter) as caught:
        engine.unload_adapter("nobody")
    assert "mine" in caught.value.hint
    assert caught.value.http_status == 404
    with pytest.raises(AdaptersUnsupported):
        lora_engine(0).load_adapter("mine", Path("good"))


def test_a_refused_sequence_does_not_keep_an_adapter():
    engine = LLMEngine(FakeRunner(paged_limits(), max_adapters=1), max_waiting=1)
    engine.load_adapter("one", Path("1"))
    engine.submit("a", [1], greedy(), Reader(), adapter="one")
    with pytest.raises(QueueFull):
        engine.submit("b", [1], greedy(), Reader(), adapter="one")
    gone = engine.unload_adapter("one")
    run(engine)
    gone.result(0)


def test_adapters_come_and_go_under_traffic():
    engine = lora_engine(3)
    engine.start()
    failures: list[BaseException] = []
    stop = threading.Event()

    def traffic(seed: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            done: Future[list[int]] = Future()
            reader = Reader()

            def sink(output: EngineOutput, reader: Reader = reader, done=done) -> None:  # type: ignore[no-untyped-def]
                reader(output)
                if output.finish_reason is not None:
                    done.set_result(reader.tokens)

            prompt = [seed, number % 40]
            engine.submit(f"{seed} {number}", prompt, greedy(), sink, adapter="stays")
            try:
                assert done.result(20) == expected(prompt, 6, Path("s"))
            except BaseException as error:
                failures.append(error)
                raise

    engine.load_adapter("stays", Path("s"))
    threads = [threading.Thread(target=traffic, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        engine.load_adapter("comes", Path(str(number)))
        engine.unload_adapter("comes").result(20)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not failures
    engine.stop()
    with pytest.raises(EngineStopped):
        engine.load_adapter("late", Path("1"))


class Life(RuleBasedStateMachine):
    """An engine with guesses, adapters, priorities and deadlines, in any order of events."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

        def text(prefix: object, seed: int) -> int:
            # Goes round, with something else now and then: guesses are right, and wrong.
            assert isinstance(prefix, list)
            odd = next_token(prefix, seed, VOCABULARY)
            return odd if odd % 7 == 0 else len(prefix) % 5

        self.text = text
        limits = paged_limits(
            blocks=12,
            block_size=4,
            max_tokens=12,
            max_sequences=3,
            max_model_len=40,
            draft_tokens=4,
        )
        self.engine = LLMEngine(
            FakeRunner(limits, choose=text, max_adapters=2),
            speculation=Speculation(PromptLookup(shortest=1), always=True),
            max_waiting=6,
            max_waiting_tokens=60,
            clock=self.clock,
        )
        self.number = 0
        self.loaded: set[str] = set()
        self.leaving: list[Future[None]] = []
        self.readers: dict[str, tuple[list[int], SamplingParams, float | None, Reader]] = {}

    @rule(
        target=names,
        prompt=st.lists(st.integers(0, 2), min_size=1, max_size=20),
        length=st.integers(1, 15),
        priority=st.integers(-1, 1),
        timeout=st.none() | st.floats(0.5, 5),
        adapter=st.sampled_from([None, "x", "y"]),
    )
    def submit(
        self,
        prompt: list[int],
        length: int,
        priority: int,
        timeout: float | None,
        adapter: str | None,
    ) -> str:
        self.number += 1
        name, reader = str(self.number), Reader()
        params = greedy(length)
        try:
            self.engine.submit(
                name,
                prompt,
                params,
                reader,
                priority=priority,
                timeout_s=timeout,
                adapter=adapter,
            )
        except QueueFull:
            return name
        except UnknownAdapter:
            assert adapter not in self.loaded
            return name
        assert adapter is None or adapter in self.loaded
        self.readers[name] = prompt, params, timeout, reader
        return name

    @rule()
    def step(self) -> None:
        self.engine.step()

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(name=names)
    def cancel(self, name: str) -> None:
        self.engine.cancel(name)

    @rule(name=st.sampled_from(["x", "y"]))
    def load(self, name: str) -> None:
        try:
            self.engine.load_adapter(name, Path(f"{name} {self.number}"))
        except (AdapterExists, TooManyAdapters):
            return
        self.loaded.add(name)

    @rule(name=st.sampled_from(["x", "y"]))
    def unload(self, name: str) -> None:
        if name in self.loaded:
            self.leaving.append(self.engine.unload_adapter(name))
            self.loaded.remove(name)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.engine.check_integrity()

    def teardown(self) -> None:
        for _ in range(1000):
            if not self.engine.step():
                break
        self.engine.check_integrity()
        stats = self.engine.stats()
        assert stats.free_blocks == stats.total_blocks
        assert stats.running == stats.waiting == stats.waiting_tokens == 0
        assert all(future.done() for future in self.leaving)
        for prompt, params, timeout, reader in self.readers.values():
            tokens = list(prompt)
            while len(tokens) < len(prompt) + len(reader.tokens):
                tokens.append(self.text(tokens, 1))
            assert reader.tokens == tokens[len(prompt) :]
            assert reader.finish is not None
            if reader.finish is FinishReason.TIMEOUT:
                assert timeout is not None
            if reader.finish is FinishReason.LENGTH:
                room = self.engine.max_model_len - len(prompt)
                assert len(reader.tokens) == min(params.max_tokens, room)


Life.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
