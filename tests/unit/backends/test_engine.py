"""The engine over fake runners of every kind: right tokens, limits obeyed, nothing lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_backends.base import PagedLayout, RunnerLimits, SlotLayout
from ridgeline_backends.engine import (
    DuplicateSequence,
    EngineOutput,
    EngineStopped,
    FinishReason,
    InvalidSampling,
    LLMEngine,
    PromptTooLong,
    QueueFull,
    SamplingParams,
)
from ridgeline_backends.testing import FakeRunner, next_token, paged_limits

VOCABULARY = 50
GREEDY = SamplingParams(max_tokens=6, temperature=0, seed=1)

KINDS = {
    "paged and mixed": paged_limits(),
    "paged and scarce": paged_limits(blocks=6, block_size=4, max_model_len=24),
    "paged, two phases, chunks": RunnerLimits(
        max_model_len=48,
        max_tokens=12,
        max_sequences=3,
        kv_layout=PagedLayout(4, 9),
        mixed_phases=False,
    ),
    "paged, two phases, whole prompts": RunnerLimits(
        max_model_len=48,
        max_tokens=32,
        max_sequences=4,
        kv_layout=PagedLayout(4, 9),
        mixed_phases=False,
        chunked_prefill=False,
        sequence_buckets=(8, 16, 32),
    ),
    "static slots, two phases": RunnerLimits(
        max_model_len=48,
        max_tokens=64,
        max_sequences=4,
        kv_layout=SlotLayout(slot_length=40, num_slots=4),
        mixed_phases=False,
        chunked_prefill=False,
        batch_buckets=(1, 2, 4),
        sequence_buckets=(8, 16, 32),
    ),
}


class Reader:
    """Collects what an engine says about one sequence."""

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


def run(engine: LLMEngine) -> None:
    for _ in range(10_000):
        if not engine.step():
            break
        engine.check_integrity()
    else:
        pytest.fail("the engine does not come to an end")
    engine.check_integrity()
    stats = engine.stats()
    assert stats.free_blocks == stats.total_blocks
    assert stats.running == stats.waiting == 0


def expected(prompt: list[int], params: SamplingParams, length: int) -> list[int]:
    assert params.seed is not None
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(next_token(tokens, params.seed, VOCABULARY))
    return tokens[len(prompt) :]


def engine_of(limits: RunnerLimits, **options: object) -> LLMEngine:
    return LLMEngine(FakeRunner(limits, vocab_size=VOCABULARY), **options)  # type: ignore[arg-type]


@pytest.fixture(params=list(KINDS))
def limits(request: pytest.FixtureRequest) -> RunnerLimits:
    return KINDS[request.param]


def test_every_sequence_gets_its_own_tokens(limits: RunnerLimits):
    engine = engine_of(limits)
    readers = {}
    for index in range(9):
        prompt = [index + 1] * (1 + 2 * index % 15)
        readers[index] = (prompt, Reader())
        engine.submit(str(index), prompt, GREEDY, readers[index][1])
    run(engine)
    for prompt, reader in readers.values():
        assert reader.tokens == expected(prompt, GREEDY, 6)
        assert reader.finish is FinishReason.LENGTH
        assert reader.outputs[-1].prompt_tokens == len(prompt)
        assert reader.outputs[-1].completion_tokens == 6


def test_the_longest_prompt_and_the_longest_sequence_finish(limits: RunnerLimits):
    engine = engine_of(limits)
    longest = next(
        size for size in range(100, 0, -1) if not isinstance(_submit_error(limits, size), Exception)
    )
    reader, other = Reader(), Reader()
    params = SamplingParams(max_tokens=1000, temperature=0, seed=3)
    engine.submit("long", [1] * longest, params, reader)
    engine.submit("short", [2], params, other)
    run(engine)
    assert reader.finish is other.finish is FinishReason.LENGTH
    assert len(other.tokens) + 1 == engine.max_model_len
    assert other.tokens == expected([2], params, len(other.tokens))


def test_an_over_long_prompt_is_told_both_numbers(limits: RunnerLimits):
    error = _submit_error(limits, 100)
    assert isinstance(error, PromptTooLong)
    assert error.prompt_tokens == 100
    assert str(error.limit) in str(error)
    assert not isinstance(_submit_error(limits, error.limit), Exception)
    assert isinstance(_submit_error(limits, error.limit + 1), PromptTooLong)


@settings(max_examples=120, deadline=None)
@given(kind=st.sampled_from(list(KINDS)), data=st.data())
def test_random_schedules_lose_nothing(kind: str, data: st.DataObject):
    engine = engine_of(KINDS[kind])
    readers: dict[str, tuple[list[int], SamplingParams, Reader]] = {}
    cancelled: set[str] = set()
    for number in range(data.draw(st.integers(1, 40), label="actions")):
        action = data.draw(st.sampled_from(["submit", "step", "step", "cancel"]), label="action")
        if action == "submit":
            # Few different tokens and prefixes, so that many are shared.
            prompt = [data.draw(st.integers(0, 1))] * data.draw(st.integers(1, 14))
            prompt += data.draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=4))
            params = SamplingParams(
                max_tokens=data.draw(st.integers(1, 20)), seed=data.draw(st.integers(0, 2))
            )
            reader = Reader()
            readers[str(number)] = (prompt, params, reader)
            engine.submit(str(number), prompt, params, reader)
        elif action == "cancel" and readers:
            name = data.draw(st.sampled_from(sorted(readers)))
            cancelled.add(name)
            engine.cancel(name)
        else:
            engine.step()
            engine.check_integrity()
    run(engine)
    for name, (prompt, params, reader) in readers.items():
        assert reader.tokens == expected(prompt, params, len(reader.tokens))
        if reader.finish is FinishReason.CANCELLED:
            assert name in cancelled
        else:
            assert reader.finish is FinishReason.LENGTH
            room = engine.max_model_len - len(prompt)
            assert len(reader.tokens) == min(params.max_tokens, room)


def test_scarce_blocks_preempt_and_change_nothing():
    engine = engine_of(paged_limits(blocks=6, block_size=4, max_model_len=24))
    readers = [Reader() for _ in range(4)]
    params = SamplingParams(max_tokens=15, seed=5)
    for index, reader in enumerate(readers):
        engine.submit(str(index), [index], params, reader)
    run(engine)
    assert engine.stats().preemptions > 0
    for index, reader in enumerate(readers):
        assert reader.tokens == expected([index], params, 15)


def test_a_shared_prefix_is_not_computed_twice():
    runner = FakeRunner(paged_limits(), vocab_size=VOCABULARY)
    engine = LLMEngine(runner)
    prompt = list(range(14))
    for name in ("first", "second"):
        reader = Reader()
        engine.submit(name, prompt, GREEDY, reader)
        run(engine)
    assert reader.outputs[-1].cached_tokens == 12
    assert engine.stats().prefix_hits == 12
    assert engine.stats().prompt_tokens == 14 + 2
    assert reader.tokens == expected(prompt, GREEDY, 6)


def test_decoding_is_not_held_up_by_a_long_prompt():
    runner = FakeRunner(paged_limits(max_tokens=8, blocks=32), vocab_size=VOCABULARY)
    engine = LLMEngine(runner)
    reader = Reader()
    engine.submit("talking", [1, 2], GREEDY, reader)
    engine.step()
    engine.submit("long", [3] * 40, GREEDY, Reader())
    for _ in range(4):
        engine.step()
    assert len(reader.tokens) == 5
    assert {len(step.chunks) for step in runner.steps[1:]} == {2}


def test_stop_and_eos_tokens_end_a_sequence():
    eos = expected([1], GREEDY, 3)[2]
    for params, eos_ids in (
        (GREEDY, frozenset({eos})),
        (SamplingParams(max_tokens=6, seed=1, stop_token_ids=frozenset({eos})), frozenset()),
        (
            SamplingParams(max_tokens=6, seed=1, stop_token_ids=frozenset({eos}), ignore_eos=True),
            frozenset({9}),
        ),
    ):
        engine = LLMEngine(FakeRunner(paged_limits(), vocab_size=VOCABULARY, eos_token_ids=eos_ids))
        reader = Reader()
        engine.submit("a", [1], params, reader)
        run(engine)
        assert reader.tokens == expected([1], GREEDY, 3)
        assert reader.finish is FinishReason.STOP


def test_ignore_eos_and_min_tokens():
    eos = expected([1], GREEDY, 3)[2]

    def tokens(params: SamplingParams) -> list[int]:
        runner = FakeRunner(paged_limits(), vocab_size=VOCABULARY, eos_token_ids=frozenset({eos}))
        engine, reader = LLMEngine(runner), Reader()
        engine.submit("a", [1], params, reader)
        run(engine)
        return reader.tokens

    assert tokens(SamplingParams(max_tokens=6, seed=1, ignore_eos=True)) == expected([1], GREEDY, 6)
    kept = tokens(SamplingParams(max_tokens=6, seed=1, min_tokens=5))
    assert len(kept) >= 5
    assert eos not in kept[:5]


def test_a_step_that_fails_ends_its_sequences_and_not_the_engine():
    runner = FakeRunner(paged_limits(), vocab_size=VOCABULARY, fail_on=49)
    engine = LLMEngine(runner)
    bad, good = Reader(), Reader()
    engine.submit("bad", [49], GREEDY, bad)
    engine.step()
    assert bad.finish is FinishReason.ERROR
    assert "on fire" in (bad.outputs[-1].error or "")
    prompt = next(p for p in ([n] for n in range(40)) if 49 not in expected(p, GREEDY, 6))
    engine.submit("good", prompt, GREEDY, good)
    run(engine)
    assert good.tokens == expected(prompt, GREEDY, 6)
    assert engine.stats().failed == 1


def test_a_full_queue_says_when_to_come_back():
    engine = engine_of(paged_limits(), max_waiting=2)
    readers = [Reader(), Reader()]
    for index, reader in enumerate(readers):
        engine.submit(str(index), [1], GREEDY, reader)
    with pytest.raises(QueueFull) as caught:
        engine.submit("late", [1], GREEDY, Reader())
    assert caught.value.retry_after_s >= 1
    assert caught.value.http_status == 429
    run(engine)
    assert all(reader.finish is FinishReason.LENGTH for reader in readers)
    engine.submit("late", [1], GREEDY, Reader())


@pytest.mark.parametrize("prompt", [[], [-1], [VOCABULARY]])
def test_a_bad_prompt_is_refused(prompt: list[int]):
    with pytest.raises(InvalidSampling, match="prompt"):
        engine_of(paged_limits()).submit("a", prompt, GREEDY, Reader())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("logprobs", 21),
        ("min_tokens", 99),
        ("seed", 2**64),
    ],
)
def test_a_bad_parameter_is_named(field: str, value: float):
    with pytest.raises(InvalidSampling) as caught:
        SamplingParams(**{"max_tokens": 4, field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_an_id_may_be_used_again_once_its_sequence_ended():
    engine = engine_of(paged_limits())
    engine.submit("a", [1], GREEDY, Reader())
    with pytest.raises(DuplicateSequence):
        engine.submit("a", [1], GREEDY, Reader())
    engine.cancel("a")
    run(engine)
    reader = Reader()
    engine.submit("a", [1], GREEDY, reader)
    run(engine)
    assert reader.finish is FinishReason.LENGTH


def test_a_reader_that_raises_is_cancelled_alone():
    engine = engine_of(paged_limits())

    def gone(output: EngineOutput) -> None:
        raise RuntimeError("the event loop is closed")

    good = Reader()
    engine.submit("gone", [1], GREEDY, gone)
    engine.submit("good", [2], GREEDY, good)
    run(engine)
    assert good.tokens == expected([2], GREEDY, 6)
    assert engine.stats().cancelled == 1


def test_logprobs_come_with_their_tokens():
    engine, reader = engine_of(paged_limits()), Reader()
    engine.submit("a", [1], SamplingParams(max_tokens=3, seed=1, logprobs=0), reader)
    run(engine)
    logprobs = [entry.token_id for output in reader.outputs for entry in output.logprobs or ()]
    assert logprobs == reader.tokens


def test_a_sequence_without_a_seed_gets_one():
    seeds: Iterator[int] = iter([41, 42])
    engine = engine_of(paged_limits(), seeds=lambda: next(seeds))
    readers = [Reader(), Reader()]
    for index, reader in enumerate(readers):
        engine.submit(str(index), [1], SamplingParams(max_tokens=4), reader)
    run(engine)
    for seed, reader in zip((41, 42), readers, strict=True):
        assert reader.tokens == expected([1], SamplingParams(max_tokens=4, seed=seed), 4)


class Waiter(Reader):
    """A reader that another thread can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Event()

    def __call__(self, output: EngineOutput) -> None:
        super().__call__(output)
        if output.finish_reason is not None:
            self.done.set()


def test_the_thread_serves_many_callers_and_stops():
    engine = engine_of(paged_limits())
    engine.start()
    waiters = {name: Waiter() for name in range(20)}

    def call(name: int) -> None:
        engine.submit(str(name), [name], GREEDY, waiters[name])

    callers = [threading.Thread(target=call, args=(name,)) for name in waiters]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for name, waiter in waiters.items():
        assert waiter.done.wait(20)
        assert waiter.tokens == expected([name], GREEDY, 6)
    engine.stop()
    with pytest.raises(EngineStopped):
        engine.submit("late", [1], GREEDY, Reader())


def test_stopping_ends_live_sequences_with_an_error():
    engine, reader = engine_of(paged_limits()), Reader()
    engine.submit("a", [1], GREEDY, reader)
    engine.step()
    waiting = Reader()
    engine.submit("b", [1], GREEDY, waiting)
    engine.stop()
    assert reader.finish is waiting.finish is FinishReason.ERROR
    assert "stopped" in (waiting.outputs[-1].error or "")
    engine.check_integrity()


def _submit_error(limits: RunnerLimits, size: int) -> Exception | None:
    try:
        engine_of(limits).submit("a", [1] * size, GREEDY, Reader())
    except PromptTooLong as error:
        return error
    return None


def test_a_broken_engine_answers_everyone_and_says_so(monkeypatch: pytest.MonkeyPatch):
    engine = engine_of(paged_limits())

    def broken(self: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("ridgeline_backends.engine.scheduler.Scheduler.schedule", broken)
    waiter = Waiter()
    engine.submit("a", [1], GREEDY, waiter)
    engine.start()
    assert waiter.done.wait(20)
    assert waiter.finish is FinishReason.ERROR
    assert not engine.stats().alive
    with pytest.raises(EngineStopped):
        engine.submit("b", [1], GREEDY, Reader())
    engine.stop()
