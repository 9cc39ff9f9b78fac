"""Priorities, deadlines, a queue bounded by tokens, and times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ridgeline_backends.engine import (
    EngineOutput,
    FinishReason,
    LLMEngine,
    QueueFull,
    SamplingParams,
)
from ridgeline_backends.engine.api import StepRecord
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
