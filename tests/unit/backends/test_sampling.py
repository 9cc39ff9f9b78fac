"""Sampling: the right distribution, reproducible, blind to the batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_backends.base import SampleRequest
from ridgeline_backends.sampling import sample, uniform

PROBABILITIES = [0.5, 0.25, 0.15, 0.1]
LOGITS = torch.tensor(PROBABILITIES).log()


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
    ],
)
def test_the_distribution_is_the_one_asked_for(settings: dict[str, object], expected: list[float]):
    count = 4000
    for share, wanted in zip(shares(draws(count, **settings)), expected, strict=True):
        # Four standard deviations, so exactly where a token must never or always come. The
        # expected shares are rounded to four places.
        spread = 4 * math.sqrt(wanted * (1 - wanted) / count)
        assert abs(share - wanted) <= spread + (0 if wanted in (0, 1) else 1e-4)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    vocabulary=st.sampled_from([3, 50, 300, 3000]),
    top_k=st.sampled_from([0, 1, 7, 5000]),
    top_p=st.sampled_from([0.01, 0.5, 0.99, 1.0]),
    temperature=st.sampled_from([0.0, 0.01, 1.0, 50.0]),
    seed=st.integers(0, 1000),
)
def test_a_row_does_not_see_its_neighbours(
    rows: int, vocabulary: int, top_k: int, top_p: float, temperature: float, seed: int
):
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 4
    before = logits.clone()
    requests = [
        SampleRequest(
            seed=seed, index=row, temperature=temperature, top_k=top_k, top_p=top_p, logprobs=3
        )
        for row in range(rows)
    ]
    together = sample(logits, requests)
    assert torch.equal(logits, before)
    for row, request in enumerate(requests):
        assert sample(logits[row : row + 1], [request]) == (together[row],)
        allowed = _allowed(logits[row], request)
        assert together[row].token_id in allowed


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
    """Top-k then top-p, written the slow way; generous by one token at the edge of rounding."""
    if request.temperature == 0:
        return {int(row.argmax())}
    probabilities = torch.softmax(row.double() / request.temperature, -1)
    ordered, ids = probabilities.sort(descending=True)
    if request.top_k:
        ordered, ids = ordered[: request.top_k], ids[: request.top_k]
    before = (ordered / ordered.sum()).cumsum(-1) - ordered / ordered.sum()
    return set(ids[before <= request.top_p + 1e-9].tolist())
