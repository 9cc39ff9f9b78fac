"""Choosing tokens from logits, one row at a time.

A row's choice depends on its logits and its `SampleRequest` alone: the random number is a hash of
(seed, index), so neither the batch nor a preemption nor the device can change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from ridgeline_backends.base import SampledToken, SampleRequest
from ridgeline_backends.engine.api import TokenLogprobs

_LIKELY = 256
"""How many of the likeliest tokens are looked at before the whole vocabulary is sorted."""

_COLD = 1e-5
"""Below this temperature only the best token has a chance, and a division would overflow."""


def sample(logits: Tensor, requests: Sequence[SampleRequest]) -> tuple[SampledToken, ...]:
    """One token per row of `logits` [rows, vocabulary] in float32, which is left unchanged."""
    if logits.shape[0] != len(requests):
        raise ValueError(f"{logits.shape[0]} rows of logits for {len(requests)} requests")
    # All rows at once, because it is the common case. Ties go to the lowest id.
    best = logits.argmax(-1).tolist() if any(map(_is_greedy, requests)) else []
    tokens = []
    for index, request in enumerate(requests):
        row = logits[index]
        token = best[index] if _is_greedy(request) else _choose(row, request)
        tokens.append(SampledToken(token, _logprobs(row, token, request.logprobs)))
    return tuple(tokens)


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1), the same for equal arguments on every machine."""
    text = f"{seed}:{index}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest()) / 2**64 * (1 - 2**-53)


def _is_greedy(request: SampleRequest) -> bool:
    return request.temperature < _COLD and not request.banned


def _choose(row: Tensor, request: SampleRequest) -> int:
    if request.banned:
        row = row.clone()
        known = [token for token in request.banned if 0 <= token < row.numel()]
        row[known] = -torch.inf
    if request.temperature < _COLD:
        return int(row.argmax())
    # In float64, where the sums below keep every token that has a chance.
    scaled = row.double() / request.temperature
    probabilities = torch.softmax(scaled, -1)
    if not request.top_k and request.top_p >= 1:
        return _draw(probabilities.cumsum(-1), request)
    ordered, ids = _likeliest(probabilities, request)
    cumulative = ordered.cumsum(-1)
    # The smallest set whose mass reaches top_p: the token that crosses the line belongs to it.
    kept = min(
        int(torch.searchsorted(cumulative, request.top_p * float(cumulative[-1]))) + 1,
        len(ids),
    )
    return int(ids[_draw(cumulative[:kept], request)])


def _likeliest(probabilities: Tensor, request: SampleRequest) -> tuple[Tensor, Tensor]:
    """Probabilities and ids, best first, as many as top-k or top-p can need."""
    size = probabilities.numel()
    if request.top_k:
        # top-p then applies to what top-k left.
        ordered, ids = probabilities.topk(min(request.top_k, size))
        return ordered, ids
    ordered, ids = probabilities.topk(min(_LIKELY, size))
    if float(ordered.sum()) < request.top_p:
        ordered, ids = probabilities.sort(descending=True, stable=True)
    elif len(ids) < size:
        # A tail entry stands for the rest, so that the total stays 1; it is never drawn.
        rest = (1 - ordered.sum()).clamp(min=0).reshape(1)
        ordered, ids = torch.cat([ordered, rest]), torch.cat([ids, ids[-1:]])
    return ordered, ids


def _draw(cumulative: Tensor, request: SampleRequest) -> int:
    """Invert a cumulative distribution that need not end at 1."""
    point = uniform(request.seed, request.index) * float(cumulative[-1])
    index = int(torch.searchsorted(cumulative, point, right=True))
    return min(index, cumulative.numel() - 1)


def _logprobs(row: Tensor, token: int, count: int | None) -> TokenLogprobs | None:
    if count is None:
        return None
    logprobs = torch.log_softmax(row.double(), -1)
    values, ids = logprobs.topk(min(count, row.numel()))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprobs(token, float(logprobs[token]), top)
