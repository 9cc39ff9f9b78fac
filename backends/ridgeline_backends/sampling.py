"""From logits to tokens and log-probabilities, for every runner and for the host.

A row's choice depends on its logits and its `SampleRequest` alone: the random number is a hash of
(seed, index), and rows share a batched operation only where each row of its result is computed by
itself. So neither the batch nor a preemption nor a guess can change a choice. A row that is no
finite numbers, which damaged weights or an overflow make, gets `NO_TOKEN`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite

import torch
from torch import Tensor

from ridgeline_backends.base import SampledToken, SampleRequest, Step
from ridgeline_backends.engine.api import MAX_LOGPROBS, NO_TOKEN, TokenLogprobs
from ridgeline_backends.logit_edits import edit, is_edited

_FEW, _MANY, _MOST = 64, 256, 4096
"""How many of the likeliest tokens are looked at, in turn, before all are sorted."""

_COLD = 1e-5
"""Below this temperature only the best token has a chance, and a division would overflow."""

_SCORED_AT_ONCE = 16
"""Rows whose log-probabilities are in memory together, in float64, while a prompt is scored."""


@dataclass(frozen=True, slots=True)
class Results:
    """What the logits of a step gave, as in `StepResult`."""

    tokens: tuple[SampledToken, ...]
    scores: tuple[tuple[TokenLogprobs, ...], ...]


def wanted_rows(step: Step) -> list[int]:
    """The rows of the flat step (all tokens of all chunks) whose logits are needed, in order."""
    rows: list[int] = []
    begin = 0
    for chunk in step.chunks:
        end = begin + len(chunk.tokens)
        first = end if chunk.sample is None else end - chunk.draft - 1
        rows.extend(range(begin, min(begin + len(chunk.score), first)))
        rows.extend(range(first, end))
        begin = end
    return rows


def results(step: Step, logits: Tensor) -> Results:
    """Choose and score. `logits` [rows, vocabulary] in float32 are those of `wanted_rows`."""
    sampled: list[int] = []
    scores: list[tuple[TokenLogprobs, ...]] = []
    row = 0
    for chunk in step.chunks:
        drawn = 0 if chunk.sample is None else chunk.draft + 1
        known = len(chunk.score)
        if known:
            scores.append(_score(logits[row : row + known], chunk.score, chunk.score_top))
        # A row may be both: the token that follows it is known, and a guess is checked there.
        total = min(len(chunk.tokens), known + drawn)
        sampled.extend(range(row + total - drawn, row + total))
        row += total
    chosen = logits if len(sampled) == logits.shape[0] else logits[sampled]
    return Results(sample(chosen, step.samples), tuple(scores))


def sample(logits: Tensor, requests: Sequence[SampleRequest]) -> tuple[SampledToken, ...]:
    """One token per row of `logits` [rows, vocabulary] in float32, which is left unchanged; for a
    row that has no number to go by, `NO_TOKEN`."""
    if logits.shape[0] != len(requests):
        raise ValueError(f"{logits.shape[0]} rows of logits for {len(requests)} requests")
    tokens = [0] * len(requests)
    edited = [row for row, request in enumerate(requests) if is_edited(request)]
    changed = _picked(logits, edited)
    if edited:
        changed = changed.clone() if changed is logits else changed
        edit(changed, [requests[row] for row in edited])
    _choose(changed, edited, requests, tokens)
    plain = [row for row, request in enumerate(requests) if not is_edited(request)]
    _choose(_picked(logits, plain), plain, requests, tokens)
    asked = [
        row
        for row, request in enumerate(requests)
        if request.logprobs is not None and tokens[row] != NO_TOKEN
    ]
    logprobs: dict[int, TokenLogprobs] = {}
    if asked:
        counts = [requests[row].logprobs or 0 for row in asked]
        found = _logprobs(_picked(logits, asked), [tokens[row] for row in asked], counts)
        logprobs = dict(zip(asked, found, strict=True))
    return tuple(SampledToken(token, logprobs.get(row)) for row, token in enumerate(tokens))


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1), the same for equal arguments on every machine."""
    text = f"{seed}:{index}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest()) / 2**64 * (1 - 2**-53)


def _picked(logits: Tensor, rows: Sequence[int]) -> Tensor:
    return logits if list(rows) == list(range(logits.shape[0])) else logits[list(rows)]


def _choose(
    logits: Tensor, rows: Sequence[int], requests: Sequence[SampleRequest], tokens: list[int]
) -> None:
    """Fill in `tokens` at `rows`; row `i` of `logits` is that of request `rows[i]`."""
    greedy = [place for place, row in enumerate(rows) if requests[row].temperature < _COLD]
    if greedy:
        for place, token in zip(greedy, _likeliest(_picked(logits, greedy)), strict=True):
            tokens[rows[place]] = token
    drawn = [place for place, row in enumerate(rows) if requests[row].temperature >= _COLD]
    if drawn:
        asked = [requests[rows[place]] for place in drawn]
        for place, token in zip(drawn, _draw(_picked(logits, drawn), asked), strict=True):
            tokens[rows[place]] = token


def _likeliest(logits: Tensor) -> list[int]:
    """The best token of each row; ties go to the lowest id. What is no number counts as best."""
    if logits.device.type == "cpu":
        # Several numbers at a time, where torch compares them one by one: a tenth of the time.
        rows = logits.numpy()
        found = [int(row.argmax()) for row in rows]
        return [
            token if isfinite(row[token]) else NO_TOKEN
            for row, token in zip(rows, found, strict=True)
        ]
    best = logits.argmax(-1, keepdim=True)
    tokens: list[int] = best.where(logits.gather(-1, best).isfinite(), NO_TOKEN).flatten().tolist()
    return tokens


def _draw(logits: Tensor, requests: Sequence[SampleRequest]) -> list[int]:
    # In float64, where the sums below keep every token that has a chance.
    temperatures = _column(logits, [request.temperature for request in requests])
    probabilities = torch.softmax(logits.double() / temperatures, -1)
    # One logit that is no number makes none of its row's probabilities one.
    broken = probabilities[:, 0].isnan().tolist()
    if any(request.min_p for request in requests):
        least = probabilities.amax(-1, keepdim=True) * _column(
            probabilities, [request.min_p for request in requests]
        )
        probabilities.masked_fill_(probabilities < least, 0)
    tokens = [0] * len(requests)
    # A row's kind depends on its own request, so that its neighbours cannot change its ties.
    kinds: dict[int, list[int]] = {}
    for row, request in enumerate(requests):
        kinds.setdefault(_looked_at(request, logits.shape[-1]), []).append(row)
    vocabulary = logits.shape[-1]
    while kinds:
        size, rows = kinds.popitem()
        picked = _picked(probabilities, rows)
        asked = [requests[row] for row in rows]
        found = _filtered(picked, asked, size) if size else _invert(picked.cumsum(-1), asked)
        for row, token in zip(rows, found, strict=True):
            if token is None:
                more = min(_MOST, vocabulary) if size < _MOST else vocabulary
                kinds.setdefault(more, []).append(row)
            else:
                tokens[row] = token
    return [NO_TOKEN if bad else token for bad, token in zip(broken, tokens, strict=True)]


def _looked_at(request: SampleRequest, vocabulary: int) -> int:
    """How many of the likeliest tokens this request needs at first; 0: all, in any order."""
    if not request.top_k and request.top_p >= 1:
        return 0
    if request.top_k > _MANY:
        return vocabulary
    return min(_FEW if 0 < request.top_k <= _FEW else _MANY, vocabulary)


def _filtered(
    probabilities: Tensor, requests: Sequence[SampleRequest], size: int
) -> list[int | None]:
    """Draw among the `size` likeliest under top-k, then top-p of what top-k left.

    None for a row whose top-p needs more than `size` tokens.
    """
    vocabulary = probabilities.shape[-1]
    if size < vocabulary:
        ordered, ids = probabilities.topk(size)
    else:
        ordered, ids = probabilities.sort(descending=True, stable=True)
    cumulative = ordered.cumsum(-1)
    most = [min(request.top_k or size, size) for request in requests]
    last = torch.tensor(most, device=ordered.device)[:, None] - 1
    bounded = torch.tensor([bool(request.top_k) for request in requests], device=ordered.device)
    total = torch.where(
        bounded[:, None], cumulative.gather(-1, last), probabilities.cumsum(-1)[:, -1:]
    )
    limit = total * _column(ordered, [request.top_p for request in requests])
    # The smallest set whose mass reaches top_p: the token that crosses the line belongs to it.
    reached = (cumulative < limit).sum(-1, keepdim=True)
    enough = ((reached <= last) | bounded[:, None] | (size == vocabulary)).flatten().tolist()
    cumulative = cumulative.minimum(cumulative.gather(-1, reached.minimum(last)))
    places = torch.tensor(_invert(cumulative, requests), device=ids.device)[:, None]
    tokens = ids.gather(-1, places).flatten().tolist()
    return [token if decided else None for token, decided in zip(tokens, enough, strict=True)]


def _invert(cumulative: Tensor, requests: Sequence[SampleRequest]) -> list[int | None]:
    """A place in each row of cumulative distributions, which need not end at 1."""
    total = cumulative[:, -1:]
    chances = _column(cumulative, [uniform(request.seed, request.index) for request in requests])
    # Below the total, however the product is rounded: a token without a chance is never drawn.
    points = (total * chances).minimum(torch.nextafter(total, torch.zeros_like(total)))
    places = torch.searchsorted(cumulative, points, right=True).flatten()
    # Beyond the end where logits were no numbers: a broken row must not fail its neighbours.
    found: list[int | None] = places.clamp(max=cumulative.shape[-1] - 1).tolist()
    return found


def _logprobs(logits: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenLogprobs]:
    """The model's own log-probabilities of one token a row, with as many of the likeliest."""
    logprobs = torch.log_softmax(logits.double(), -1)
    chosen = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])
    if not any(counts):
        return [
            TokenLogprobs(token, value)
            for token, value in zip(tokens, chosen.flatten().tolist(), strict=True)
        ]
    # Always as many, so that ties fall the same way whatever the neighbours ask for.
    values, ids = logprobs.topk(min(MAX_LOGPROBS, logits.shape[-1]))
    rows = zip(
        tokens, chosen.flatten().tolist(), ids.tolist(), values.tolist(), counts, strict=True
    )
    return [
        TokenLogprobs(token, value, tuple(zip(top[:count], tops[:count], strict=True)))
        for token, value, top, tops, count in rows
    ]


def _score(logits: Tensor, tokens: Sequence[int], count: int) -> tuple[TokenLogprobs, ...]:
    made: list[TokenLogprobs] = []
    for start in range(0, len(tokens), _SCORED_AT_ONCE):
        part = tokens[start : start + _SCORED_AT_ONCE]
        rows = logits[start : start + len(part)]
        made.extend(_logprobs(rows, part, [count] * len(part)))
    return tuple(made)


def _column(like: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]
