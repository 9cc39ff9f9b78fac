"""Priorities, deadlines, a queue bounded by tokens, times, and adapters that come and go."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
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
from ridgeline_backends.engine.api import StepRecord
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

VOCABULARY = 50


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Reader:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.outputs: list[EngineOutput] = []

    def __call__(self, output: EngineOutput) -> None:
        assert self.finish is None, "an output after the last one"
        self.outputs.append(output)
        self.tokens.extend(output.token_ids)

    @property
    def finish(self) -> FinishReason | None:
        return self.outputs[-1].finish_reason if self.outputs else None


def greedy(max_tokens: int = 6) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, seed=1)


def expected(prompt: list[int], length: int, adapter: Path | None = None) -> list[int]:
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(next_token(tokens, 1, VOCABULARY, adapter))
    return tokens[len(prompt) :]


def run(engine: LLMEngine) -> None:
    while engine.step():
        engine.check_integrity()
    engine.check_integrity()
    stats = engine.stats()
    assert stats.free_blocks == stats.total_blocks


def test_a_lower_priority_value_goes_first():
    engine = LLMEngine(FakeRunner(paged_limits(max_sequences=1)))
    order: list[str] = []

    def sink(output: EngineOutput) -> None:
        if output.finish_reason is not None:
            order.append(output.sequence_id)

    for name, priority in (("a", 5), ("b", 0), ("c", -1), ("d", 0)):
        engine.submit(name, [1], greedy(), sink, priority=priority)
    run(engine)
    assert order == ["c", "b", "d", "a"]


def test_the_urgent_take_the_place_of_the_patient_and_change_nothing():
    engine = LLMEngine(FakeRunner(paged_limits(max_sequences=2)))
    readers = {name: Reader() for name in ("patient", "normal", "urgent")}
    engine.submit("patient", [1, 2], greedy(12), readers["patient"], priority=9)
    engine.submit("normal", [3], greedy(12), readers["normal"])
    for _ in range(3):
        engine.step()
    engine.submit("urgent", [4], greedy(3), readers["urgent"], priority=-1)
    for _ in range(3):
        engine.step()
    assert readers["urgent"].finish is FinishReason.LENGTH
    assert len(readers["patient"].tokens) == 3
    assert len(readers["normal"].tokens) == 6
    run(engine)
    assert readers["patient"].tokens == expected([1, 2], 12)
    assert readers["normal"].tokens == expected([3], 12)
    assert engine.stats().preemptions == 1


def test_the_urgent_wait_where_a_running_one_cannot_be_computed_again():
    limits = replace(paged_limits(max_sequences=1), preemptible=False)
    engine = LLMEngine(FakeRunner(limits))
    order: list[str] = []

    def sink(output: EngineOutput) -> None:
        if output.finish_reason is not None:
            order.append(output.sequence_id)

    engine.submit("running", [1], greedy(12), sink)
    engine.step()
    engine.submit("patient", [2], greedy(), sink)
    engine.submit("urgent", [3], greedy(), sink, priority=-1)
    run(engine)
    assert order == ["running", "urgent", "patient"]
    assert engine.stats().preemptions == 0


def test_the_urgent_take_blocks_too_and_equals_wait():
    for priority, preemptions in ((-1, 1), (0, 0)):
        limits = paged_limits(blocks=6, block_size=4, max_model_len=24)
        engine = LLMEngine(FakeRunner(limits))
        first, second = Reader(), Reader()
        engine.submit("first", [1] * 13, greedy(4), first)
        engine.step()
        engine.submit("second", [2] * 14, greedy(1), second, priority=priority)
        engine.step()
        assert (second.finish is not None) == (priority < 0)
        run(engine)
        assert first.tokens == expected([1] * 13, 4)
        assert engine.stats().preemptions == preemptions


def test_a_deadline_ends_a_sequence_wherever_it_is():
    clock = Clock()
    engine = LLMEngine(FakeRunner(paged_limits(max_sequences=1)), clock=clock)
    running, waiting, patient = Reader(), Reader(), Reader()
    engine.submit("running", [1], greedy(20), running, timeout_s=2.0)
    engine.submit("waiting", [2], greedy(20), waiting, timeout_s=1.0)
    engine.submit("patient", [3], greedy(20), patient, timeout_s=60.0)
    engine.step()
    clock.now += 1.5
    engine.step()
    assert waiting.finish is FinishReason.TIMEOUT
    assert "1.5 s" in (waiting.outputs[-1].error or "")
    assert running.finish is None
    clock.now += 1.0
    engine.step()
    assert running.finish is FinishReason.TIMEOUT
    assert running.tokens == expected([1], 2)
    run(engine)
    assert patient.tokens == expected([3], 20)
    assert engine.stats().timed_out == 2


def test_a_queue_is_bounded_by_tokens_as_well():
    engine = LLMEngine(FakeRunner(paged_limits()), max_waiting_tokens=20)
    engine.submit("a", [1] * 12, greedy(), Reader())
    with pytest.raises(QueueFull) as caught:
        engine.submit("b", [1] * 9, greedy(), Reader())
    assert caught.value.waiting_tokens == 12
    engine.submit("c", [2] * 8, greedy(), Reader())
    assert engine.stats().waiting_tokens == 20
    engine.step()
    assert engine.stats().waiting_tokens == 0
    # Longer than the bound, and nobody waits.
    engine.submit("d", [1] * 30, greedy(), Reader())
    run(engine)


def test_times_tell_the_queue_from_the_work():
    clock = Clock()
    records: list[StepRecord] = []
    engine = LLMEngine(
        FakeRunner(paged_limits(), seconds=lambda rows: 0.5), clock=clock, on_step=records.append
    )
    reader = Reader()
    engine.submit("a", [1, 2, 3], greedy(2), reader)
    clock.now += 3.0
    engine.step()
    first = reader.outputs[0].times
    assert first is not None
    assert (first.submitted, first.scheduled, first.first_token) == (100.0, 103.0, 103.0)
    clock.now += 0.25
    engine.step()
    last = reader.outputs[-1].times
    assert last is not None
    assert last.finished == 103.25
    assert last.first_token == 103.0
    assert [(r.seconds, r.tokens, r.sequences) for r in records] == [(0.5, 3, 1), (0.5, 1, 1)]
    assert engine.stats().device_seconds == 1.0


def test_equal_prompts_that_come_together_are_computed_once():
    runner = FakeRunner(paged_limits(blocks=64, max_tokens=64, max_model_len=60))
    engine = LLMEngine(runner)
    readers = [Reader() for _ in range(4)]
    prompt = list(range(20))
    for index, reader in enumerate(readers):
        engine.submit(str(index), [*prompt, 30 + index], greedy(), reader)
    run(engine)
    for index, reader in enumerate(readers):
        assert reader.tokens == expected([*prompt, 30 + index], 6)
    stats = engine.stats()
    assert stats.prompt_tokens == 21 + 3
    assert (stats.prefix_queries, stats.prefix_hits) == (84, 60)


def test_a_scored_prompt_is_computed_whole():
    engine, reader = LLMEngine(FakeRunner(paged_limits())), Reader()
    for name in ("first", "second"):
        reader = Reader()
        params = SamplingParams(max_tokens=2, temperature=0, seed=1, prompt_logprobs=0)
        engine.submit(name, list(range(20)), params, reader)
        run(engine)
    scores = reader.outputs[0].prompt_logprobs
    assert [entry.token_id for entry in scores or ()] == list(range(1, 20))
    assert engine.stats().prefix_hits == 0


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
