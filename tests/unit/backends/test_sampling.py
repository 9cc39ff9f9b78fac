"""Sampling: the right distribution, reproducible, blind to the batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_backends.base import Chunk, SampleRequest, Step
from ridgeline_backends.biases import Biases
from ridgeline_backends.engine.api import NO_TOKEN
from ridgeline_backends.history import Penalties, TokenHistory
from ridgeline_backends.logit_edits import edit
from ridgeline_backends.sampling import results, sample, uniform, wanted_rows

PROBABILITIES = [0.5, 0.25, 0.15, 0.1]
LOGITS = torch.tensor(PROBABILITIES).log()


def packed(tokens: set[int]) -> Callable[[], bytes]:
    """A grammar's mask of one byte."""
    return lambda: bytes([sum(1 << token for token in tokens)])


def draws(count: int, **settings: object) -> list[int]:
    requests = [
        SampleRequest(seed=3, index=index, **{"temperature": 1.0, **settings})  # type: ignore[arg-type]
        for index in range(count)
    ]
    return [token.token_id for token in sample(LOGITS.expand(count, -1), requests)]


def shares(tokens: list[int]) -> list[float]:
    return [tokens.count(token) / len(tokens) for token in range(len(PROBABILITIES))]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PROBABILITIES),
        ({"temperature": 0.5}, [0.7246, 0.1812, 0.0652, 0.0290]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.75}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.76}, [0.5556, 0.2778, 0.1667, 0]),
        ({"top_k": 3, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_k": 99, "top_p": 1e-9}, [1, 0, 0, 0]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"temperature": 1e-300}, [1, 0, 0, 0]),
        ({"banned": frozenset({0})}, [0, 0.5, 0.3, 0.2]),
        ({"temperature": 0, "banned": frozenset({0, 77})}, [0, 1, 0, 0]),
        ({"min_p": 0.4}, [2 / 3, 1 / 3, 0, 0]),
        ({"min_p": 0.4, "top_k": 1}, [1, 0, 0, 0]),
        ({"min_p": 0.25, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"min_p": 1.0}, [1, 0, 0, 0]),
        ({"bias": ((0, -100.0), (3, math.log(2.5)))}, [0, 0.3846, 0.2308, 0.3846]),
        ({"temperature": 0, "bias": ((2, 5.0),)}, [0, 0, 1, 0]),
        ({"allowed": packed({1, 3})}, [0, 5 / 7, 0, 2 / 7]),
        ({"allowed": packed({3}), "top_k": 2, "top_p": 0.5}, [0, 0, 0, 1]),
        ({"temperature": 0, "allowed": packed({2, 3})}, [0, 0, 1, 0]),
        ({"allowed": packed({1, 3}), "banned": frozenset({1})}, [0, 0, 0, 1]),
        # A grammar that leaves nothing but banned tokens is followed all the same.
        ({"allowed": packed({1}), "banned": frozenset({1})}, [0, 1, 0, 0]),
    ],
)
def test_the_distribution_is_the_one_asked_for(settings: dict[str, object], expected: list[float]):
    count = 4000
    for share, wanted in zip(shares(draws(count, **settings)), expected, strict=True):
        # Four standard deviations, so exactly where a token must never or always come. The
        # expected shares are rounded to four places.
        spread = 4 * math.sqrt(wanted * (1 - wanted) / count)
        assert abs(share - wanted) <= spread + (0 if wanted in (0, 1) else 1e-4)


def penalised(
    prompt: list[int], generated: list[int], logits: list[float], **settings: float
) -> list[float]:
    history = TokenHistory(prompt)
    for token in generated:
        history.add(token)
    request = SampleRequest(
        seed=0, index=0, temperature=0, penalties=Penalties(history=history, **settings)
    )
    rows = torch.tensor([logits])
    edit(rows, [request])
    values: list[float] = rows[0].tolist()
    return values


def test_penalties_are_those_of_the_papers_and_of_openai():
    logits = [2.0, -2.0, 1.0, 0.5]
    # Token 0 in the prompt alone, 1 generated twice, 2 in both, 3 nowhere.
    said = ([0, 2], [1, 1, 2])
    assert penalised(*said, logits, presence=0.5) == [2.0, -2.5, 0.5, 0.5]
    assert penalised(*said, logits, frequency=0.5) == [2.0, -3.0, 0.5, 0.5]
    assert penalised(*said, logits, repetition=2.0) == [1.0, -4.0, 0.5, 0.5]
    assert penalised(*said, logits, repetition=2.0, presence=1.0, frequency=0.25) == [
        1.0,
        -5.5,
        -0.75,
        0.5,
    ]
    assert penalised([], [], logits, presence=2.0) == logits


@settings(max_examples=50, deadline=None)
@given(
    prompt=st.lists(st.integers(0, 9), max_size=12),
    generated=st.lists(st.integers(0, 9), max_size=30),
)
def test_a_history_counts_what_was_generated(prompt: list[int], generated: list[int]):
    history = TokenHistory(prompt)
    for token in generated:
        history.add(token)
    counted = dict(zip(history.ids, history.counts, strict=True))
    assert counted == {token: generated.count(token) for token in {*prompt, *generated}}


@st.composite
def sample_requests(draw: st.DrawFn, vocabulary: int) -> SampleRequest:
    history = TokenHistory(draw(st.lists(st.integers(0, vocabulary - 1), max_size=5)))
    for token in draw(st.lists(st.integers(0, vocabulary - 1), max_size=5)):
        history.add(token)
    penalties = Penalties(history=history, presence=0.5, frequency=0.25, repetition=1.5)
    mask = draw(st.binary(min_size=vocabulary // 8 + 1, max_size=vocabulary // 8 + 1))
    allowed = draw(st.sampled_from([None, mask if any(mask[:-1]) else None]))
    return SampleRequest(
        seed=draw(st.integers(0, 1000)),
        index=draw(st.integers(0, 100)),
        temperature=draw(st.sampled_from([0.0, 0.01, 1.0, 1.0, 50.0])),
        top_k=draw(st.sampled_from([0, 0, 1, 7, 100, 300, 5000])),
        top_p=draw(st.sampled_from([0.01, 0.5, 0.99, 1.0])),
        min_p=draw(st.sampled_from([0.0, 0.0, 0.1])),
        logprobs=draw(st.sampled_from([None, 0, 3, 20])),
        banned=draw(st.sampled_from([frozenset(), frozenset({0, 1})])),
        bias=draw(st.sampled_from([(), ((2, 3.0), (1, -100.0))])),
        penalties=draw(st.sampled_from([None, penalties])),
        allowed=None if allowed is None else lambda: allowed,
    )


@settings(max_examples=150, deadline=None)
@given(data=st.data(), vocabulary=st.sampled_from([5, 50, 300, 3000]), seed=st.integers(0, 1000))
def test_a_row_does_not_see_its_neighbours(data: st.DataObject, vocabulary: int, seed: int):
    requests = data.draw(st.lists(sample_requests(vocabulary), min_size=1, max_size=6))
    rows = len(requests)
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 4
    # Few distinct values, so that many are tied.
    logits = (logits * 4).round() / 4 if seed % 2 else logits
    before = logits.clone()
    together = sample(logits, requests)
    assert torch.equal(logits, before)
    for row, request in enumerate(requests):
        assert sample(logits[row : row + 1], [request]) == (together[row],)
        assert together[row].token_id in _allowed(logits[row], request)


def test_rows_that_take_a_second_look_keep_their_own_tokens():
    """A row whose top-p needs more tokens joins those that look at all of them, behind them: each
    was given the token of another."""
    logits = torch.randn(3, 3000, generator=torch.Generator().manual_seed(2)) * 4
    all_at_once = SampleRequest(seed=0, index=0, temperature=0.01, top_k=300, top_p=0.01)
    later = SampleRequest(seed=0, index=0, temperature=1.0, top_k=0, top_p=0.99)
    requests = [all_at_once, later, all_at_once]
    alone = tuple(sample(logits[row : row + 1], [one])[0] for row, one in enumerate(requests))
    assert sample(logits, requests) == alone


def test_a_broken_row_does_not_fail_its_neighbours():
    logits = torch.stack([torch.full((400,), torch.nan), torch.arange(400.0)])
    for chosen in ({}, {"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}):
        requests = [
            SampleRequest(seed=1, index=0, temperature=1.0, **chosen),  # type: ignore[arg-type]
            SampleRequest(seed=1, index=0, temperature=0.0),
        ]
        assert sample(logits, requests)[1].token_id == 399


def chunk(name: str, tokens: int, **more: object) -> Chunk:
    return Chunk(sequence_id=name, tokens=(1,) * tokens, start=0, blocks=(), **more)  # type: ignore[arg-type]


GREEDY = SampleRequest(seed=1, index=4, temperature=0)


def test_rows_are_those_that_choose_and_those_that_are_scored():
    step = Step(
        (
            chunk("prefill", 3),
            chunk("decode", 1, sample=GREEDY),
            chunk("guesses", 5, sample=GREEDY, draft=2),
            chunk("scored", 3, score=(7, 8, 9)),
            chunk("scored to its end", 3, score=(7, 8), sample=GREEDY),
            chunk("scored under guesses", 4, score=(7, 8, 9), sample=GREEDY, draft=2),
        )
    )
    rows = wanted_rows(step)
    assert rows == [3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    logits = torch.zeros(19, 30)
    logits[torch.arange(19), torch.arange(19)] = 5.0
    found = results(step, logits[rows])
    # The likeliest token of row i is i, so that a token tells its row.
    assert [token.token_id for token in found.tokens] == [3, 6, 7, 8, 14, 16, 17, 18]
    assert [[score.token_id for score in scores] for scores in found.scores] == [
        [7, 8, 9],
        [7, 8],
        [7, 8, 9],
    ]
    assert found.scores[0][0].top == ()


def test_scores_are_the_models_log_probabilities():
    logits = torch.randn(40, 50, generator=torch.Generator().manual_seed(3))
    known = tuple(range(40))
    [scores] = results(Step((chunk("a", 40, score=known, score_top=2),)), logits).scores
    expected = torch.log_softmax(logits.double(), -1)
    for row, score in enumerate(scores):
        assert score.logprob == pytest.approx(float(expected[row, row]))
        assert [token for token, _ in score.top] == expected[row].topk(2).indices.tolist()


def test_logprobs_describe_the_model_whatever_the_settings():
    requests = [SampleRequest(seed=1, index=0, temperature=0.1, top_k=1, logprobs=2)]
    logprobs = sample(LOGITS[None], requests)[0].logprobs
    assert logprobs is not None
    assert logprobs.logprob == pytest.approx(math.log(0.5))
    assert [token for token, _ in logprobs.top] == [0, 1]
    assert logprobs.top[1][1] == pytest.approx(math.log(0.25))


def test_random_numbers_are_fixed_for_ever():
    # Replies that were logged with a seed must come out the same after an upgrade.
    assert uniform(1, 0) == 0.3214364412611488
    assert uniform(2**63, 17) == 0.29707850980902223
    assert len({uniform(seed, index) for seed in range(30) for index in range(30)}) == 900
    values = [uniform(7, index) for index in range(5000)]
    assert 0 <= min(values) < 0.01
    assert 0.99 < max(values) < 1
    assert sum(values) / 5000 == pytest.approx(0.5, abs=0.02)


def _allowed(row: torch.Tensor, request: SampleRequest) -> set[int]:
    """What may be chosen, written the slow way; generous by one token at the edge of rounding."""
    rows = row[None].clone()
    edit(rows, [request])
    if request.temperature == 0:
        return {int(rows[0].argmax())}
    probabilities = torch.softmax(rows[0].double() / request.temperature, -1)
    probabilities[probabilities < request.min_p * probabilities.max()] = 0
    possible = set(probabilities.nonzero().flatten().tolist())
    if request.top_k:
        least = probabilities.sort(descending=True).values[: request.top_k][-1]
        possible &= set((probabilities >= least).nonzero().flatten().tolist())
        probabilities = torch.where(probabilities >= least, probabilities, 0)
    ordered = probabilities.sort(descending=True).values
    before = (ordered / ordered.sum()).cumsum(-1) - ordered / ordered.sum()
    # Tied tokens may stand in any order, so each counts from the first of them.
    least = ordered[before <= request.top_p + 1e-9].min()
    return possible & set((probabilities >= least).nonzero().flatten().tolist())


@given(
    rows=st.lists(
        st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 1.0, 2.0]), min_size=17, max_size=17),
        min_size=1,
        max_size=4,
    ),
    padding=st.integers(0, 3),
)
@settings(max_examples=30)
def test_the_best_token_is_the_first_of_the_likeliest(
    rows: list[list[float]], padding: int
) -> None:
    """Also where rows do not lie side by side."""
    logits = torch.nn.functional.pad(torch.tensor(rows), (0, padding), value=7.0)[:, :17]
    requests = [SampleRequest(seed=0, index=0, temperature=0.0)] * len(rows)
    found = [token.token_id for token in sample(logits, requests)]
    best = [row.index(max(row)) for row in rows]
    assert found == [
        token if row[token] > -math.inf else NO_TOKEN for row, token in zip(rows, best, strict=True)
    ]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 0.7, "top_k": 3},
        {"temperature": 0.7, "min_p": 0.1},
        {"temperature": 0.0, "banned": frozenset({1})},
        {"temperature": 1.0, "bias": ((1, 2.0),)},
    ],
)
def test_logits_that_are_no_numbers_give_no_token_and_leave_their_neighbours_alone(
    settings: dict[str, object], broken: float
) -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(5))
    request = SampleRequest(seed=4, index=2, logprobs=2, **settings)  # type: ignore[arg-type]
    whole = sample(logits, [request] * 5)
    logits[1] = math.nan
    logits[3, 17] = broken
    found = sample(logits, [request] * 5)
    assert [found[row].token_id for row in (1, 3)] == [NO_TOKEN, NO_TOKEN]
    assert found[1].logprobs is None
    for row in (0, 2, 4):
        assert found[row] == whole[row]


def test_a_bias_may_be_laid_out_once_for_all_steps() -> None:
    pairs = ((3, -1.5), (0, 2.25), (3, 0.5))
    rows = torch.zeros(2, 5)
    edit(
        rows,
        [SampleRequest(seed=0, index=0, temperature=0, bias=b) for b in (pairs, Biases(pairs))],
    )
    assert rows.tolist() == [[2.25, 0, 0, -1.0, 0]] * 2
