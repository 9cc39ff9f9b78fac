"""Guesses change the number of steps and nothing else, and are made where they pay."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_backends.base import RunnerLimits
from ridgeline_backends.engine import EngineOutput, FinishReason, LLMEngine, SamplingParams
from ridgeline_backends.engine.costs import StepCosts, best_length
from ridgeline_backends.engine.draft_model import DraftModel
from ridgeline_backends.engine.drafting import Drafter, Drafts, PromptLookup
from ridgeline_backends.engine.sequence import Sequence
from ridgeline_backends.engine.speculation import Speculation
from ridgeline_backends.testing import FakeRunner, next_token, paged_limits

VOCABULARY = 50


def repeating(prefix: Tokens[int], seed: int) -> int:
    """A text that goes round in a circle of seven tokens."""
    return (len(prefix) + seed) % 7 + 10


def random_text(prefix: Tokens[int], seed: int) -> int:
    return next_token(prefix, seed, VOCABULARY)


def mostly_repeating(prefix: Tokens[int], seed: int) -> int:
    """The circle with something else in it now and then."""
    odd = random_text(prefix, seed)
    return odd if odd % 9 == 0 else repeating(prefix, seed)


TEXTS = {"repeating": repeating, "mostly": mostly_repeating, "random": random_text}


def limits(**changes: int) -> RunnerLimits:
    return paged_limits(
        **{"blocks": 64, "max_tokens": 64, "max_model_len": 160, "draft_tokens": 6, **changes}
    )


def run(
    runner: FakeRunner,
    speculation: Speculation | None,
    requests: dict[str, tuple[list[int], SamplingParams]],
) -> tuple[dict[str, list[int]], LLMEngine]:
    """Answers, and the engine when it is done."""
    engine = LLMEngine(runner, speculation=speculation)
    answers: dict[str, list[int]] = {name: [] for name in requests}
    ends: dict[str, FinishReason | None] = {}

    def sink(output: EngineOutput) -> None:
        assert output.error is None
        answers[output.sequence_id].extend(output.token_ids)
        assert output.completion_tokens == len(answers[output.sequence_id])
        if output.logprobs is not None:
            assert tuple(entry.token_id for entry in output.logprobs) == output.token_ids
        ends[output.sequence_id] = output.finish_reason

    for name, (prompt, params) in requests.items():
        engine.submit(name, prompt, params, sink)
    while engine.step():
        engine.check_integrity()
    assert all(ends.values())
    stats = engine.stats()
    assert stats.free_blocks == stats.total_blocks
    assert stats.generated_tokens == sum(map(len, answers.values()))
    return answers, engine


def greedy(max_tokens: int, **more: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, seed=1, **more)  # type: ignore[arg-type]


def cheap(rows: int) -> float:
    """A step that reads the weights: rows are nearly free."""
    return 0.010 + 0.0005 * rows


def dear(rows: int) -> float:
    """A step that computes: twice the rows, twice the time."""
    return 0.001 * rows


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("always", [True, False])
def test_the_answers_are_the_same(text: str, always: bool):
    requests = {
        str(n): ([n, n + 1] * (1 + n), greedy(20 + 7 * n, logprobs=0 if n % 2 else None))
        for n in range(6)
    }
    plain, _ = run(FakeRunner(limits(), choose=TEXTS[text], seconds=cheap), None, requests)
    runner = FakeRunner(limits(), choose=TEXTS[text], seconds=cheap)
    guessed, engine = run(runner, Speculation(PromptLookup(), always=always), requests)
    assert guessed == plain
    assert engine.stats().draft_tokens > 0


def test_a_text_that_repeats_takes_a_fraction_of_the_time():
    requests = {"a": ([3, 4], greedy(120))}
    seconds = {}
    for speculation in (None, Speculation(PromptLookup(), most=6)):
        runner = FakeRunner(limits(), choose=repeating, seconds=cheap)
        _, engine = run(runner, speculation, requests)
        seconds[speculation is None] = engine.stats().device_seconds
    assert seconds[False] < seconds[True] / 3
    assert engine.stats().accepted_tokens > 80
    assert engine.stats().drafts < 40


def test_a_text_that_does_not_repeat_loses_next_to_nothing():
    # Two tokens, so that every pair has been seen and there is always something to guess.
    def coin(prefix: Tokens[int], seed: int) -> int:
        return random_text(prefix, seed) % 2

    requests = {"a": ([0, 1], greedy(150))}
    seconds = {}
    for speculation in (None, Speculation(PromptLookup(), most=6)):
        runner = FakeRunner(limits(), choose=coin, seconds=lambda rows: 0.010 + 0.006 * rows)
        _, engine = run(runner, speculation, requests)
        seconds[speculation is None] = engine.stats().device_seconds
    assert seconds[False] < seconds[True] * 1.04


def test_guesses_stop_where_rows_are_dear():
    requests = {str(n): ([n, n + 1], greedy(100)) for n in range(4)}
    runner = FakeRunner(limits(), choose=mostly_repeating, seconds=dear)
    _, engine = run(runner, Speculation(PromptLookup()), requests)
    # A few to find out, and then none.
    assert engine.stats().drafts < 8
    assert not any(chunk.draft for step in runner.steps[20:] for chunk in step.chunks)


def test_guesses_begin_when_a_text_begins_to_repeat():
    def late(prefix: Tokens[int], seed: int) -> int:
        return repeating(prefix, seed) if len(prefix) > 70 else random_text(prefix, seed)

    runner = FakeRunner(limits(), choose=late, seconds=lambda rows: 0.010 + 0.003 * rows)
    _, engine = run(runner, Speculation(PromptLookup()), {"a": ([1], greedy(150))})
    assert engine.stats().accepted_tokens > 50


def test_a_stop_token_among_the_guesses_ends_the_sequence_there():
    stop = {"a": ([3, 4], greedy(100, stop_token_ids=frozenset({12}), min_tokens=30))}
    plain, _ = run(FakeRunner(limits(), choose=repeating), None, stop)
    guessed, _ = run(
        FakeRunner(limits(), choose=repeating), Speculation(PromptLookup(), always=True), stop
    )
    assert guessed == plain
    assert guessed["a"][-1] == 12
    assert 12 not in guessed["a"][:30]


def test_what_depends_on_more_than_the_model_is_not_guessed():
    for params in (
        greedy(60, frequency_penalty=0.5),
        greedy(60, min_tokens=60),
    ):
        runner = FakeRunner(limits(), choose=repeating)
        run(runner, Speculation(PromptLookup(), always=True), {"a": ([3, 4], params)})
        assert not any(chunk.draft for step in runner.steps for chunk in step.chunks)


def test_a_runner_that_takes_no_guesses_gets_none():
    runner = FakeRunner(limits(draft_tokens=0), choose=repeating)
    run(runner, Speculation(PromptLookup(), always=True), {"a": ([3, 4], greedy(40))})
    assert not any(chunk.draft for step in runner.steps for chunk in step.chunks)


def test_guesses_never_take_blocks_from_anybody():
    requests = {str(n): ([n, n + 1], greedy(30)) for n in range(4)}
    small = limits(blocks=14, max_model_len=40)
    plain, before = run(FakeRunner(small, choose=repeating), None, requests)
    guessed, after = run(
        FakeRunner(small, choose=repeating), Speculation(PromptLookup(), always=True), requests
    )
    assert guessed == plain
    assert after.stats().preemptions <= before.stats().preemptions


class Broken(Drafter):
    free = True

    def propose(self, wanted: Tokens[tuple[Sequence, int]]) -> Drafts:
        raise RuntimeError("the draft model is on fire")

    def forget(self, seq: Sequence) -> None: ...


def test_a_drafter_that_fails_is_left_out():
    requests = {"a": ([3, 4], greedy(20))}
    plain, _ = run(FakeRunner(limits(), choose=repeating), None, requests)
    answers, _ = run(FakeRunner(limits(), choose=repeating), Speculation(Broken()), requests)
    assert answers == plain


@pytest.mark.parametrize("small", [limits(), limits(blocks=8, max_tokens=8, max_sequences=2)])
@pytest.mark.parametrize("agrees", ["repeating", "mostly", "random"])
def test_a_draft_model_changes_no_answer(small: RunnerLimits, agrees: str):
    requests = {str(n): ([n, n + 1] * (1 + 2 * n), greedy(30)) for n in range(6)}
    plain, _ = run(FakeRunner(limits(), choose=mostly_repeating), None, requests)
    drafter = DraftModel(FakeRunner(small, choose=TEXTS[agrees]))
    runner = FakeRunner(limits(), choose=mostly_repeating)
    guessed, engine = run(runner, Speculation(drafter, always=True), requests)
    assert guessed == plain
    assert engine.stats().draft_tokens > 0
    drafter.check_integrity()
    if agrees == "mostly":
        # The same model: a guess is wrong only where a sequence ends.
        assert engine.stats().accepted_tokens > engine.stats().draft_tokens * 0.9


def test_a_draft_model_that_is_always_wrong_is_hardly_asked():
    def wrong(prefix: Tokens[int], seed: int) -> int:
        return (random_text(prefix, seed) + 1) % VOCABULARY

    small = FakeRunner(limits(), choose=wrong, seconds=lambda rows: 0.002)
    runner = FakeRunner(limits(), choose=random_text, seconds=cheap)
    _, engine = run(runner, Speculation(DraftModel(small)), {"a": ([3, 4], greedy(150))})
    assert engine.stats().draft_tokens < 75
    assert len(small.steps) < 75


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    count=st.integers(1, 6),
    shortest=st.integers(1, 3),
    more=st.integers(0, 2),
)
def test_a_lookup_finds_the_longest_match(tokens: list[int], count: int, shortest: int, more: int):
    longest = shortest + more
    lookup = PromptLookup(shortest=shortest, longest=longest)
    seq = Sequence("a", [], greedy(9), seed=0, max_tokens=9, stop_tokens=frozenset())
    # Grown token by token, as it is when a sequence generates.
    for token in tokens:
        seq.tokens.append(token)
        guess = lookup.propose([(seq, count)]).tokens.get("a")
    places = [
        place
        for place in range(shortest, len(tokens))
        if tokens[place - shortest : place] == tokens[-shortest:]
    ][-8:]

    def common(place: int) -> int:
        length = 0
        while length < min(longest, place) and tokens[place - 1 - length] == tokens[-1 - length]:
            length += 1
        return length

    if not places:
        assert guess is None
        return
    best = max(places, key=lambda place: (common(place), place))
    text = list(tokens)
    while len(text) < best + count:
        text.append(text[best + len(text) - len(tokens)])
    assert guess == tuple(text[best : best + count])


def test_costs_are_learned_from_steps_of_different_sizes():
    costs = StepCosts()
    for _ in range(20):
        costs.step(2, 0.012)
    assert costs.of(2) is None
    costs.step(6, 0.016)
    share, guess = costs.of(2) or (0.0, 0.0)
    assert share == pytest.approx(0.006, rel=0.01)
    assert guess == pytest.approx(0.001, rel=0.01)
    costs.drafted(4, 0.008)
    assert (costs.of(2) or (0, 0))[1] == pytest.approx(0.003, rel=0.01)
    # A step that something else held up changes little.
    costs.step(6, 9.0)
    assert (costs.of(2) or (0, 0))[1] < 0.015
    for _ in range(1000):
        costs.step(2, 0.012)
    assert costs.of(2) is None


@given(
    right=st.floats(0, 1),
    share=st.floats(0.001, 1),
    guess=st.floats(0, 1),
    most=st.integers(1, 12),
)
def test_the_best_length_is_the_best(right: float, share: float, guess: float, most: int):
    def rate(length: int) -> float:
        return sum(right**n for n in range(length + 1)) / (share + length * guess)

    chosen = best_length(right, share, guess, most)
    best = max(rate(length) for length in range(most + 1))
    # What gains less than a tenth is left alone.
    assert rate(chosen) == pytest.approx(best) if chosen else best < 1.11 * rate(0)
    assert chosen == 0 or rate(chosen) > 1.09 * rate(0)
