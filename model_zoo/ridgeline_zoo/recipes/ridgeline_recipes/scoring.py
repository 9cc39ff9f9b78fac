"""How likely a model holds what is labelled: for perplexity, and for the margin of preferences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ridgeline_recipes.template import IGNORED, Encoded

_AT_ONCE = 4


def log_likelihoods(model: Any, rows: Sequence[Encoded]) -> list[tuple[float, int]]:
    """For each row the sum of its labelled tokens' log probabilities (nats), and their number."""
    model.eval()
    found: list[tuple[float, int]] = []
    for start in range(0, len(rows), _AT_ONCE):
        batch = rows[start : start + _AT_ONCE]
        longest = max(len(row.ids) for row in batch)
        ids = _padded([row.ids for row in batch], longest, 0).to(model.device)
        labels = _padded([row.labels for row in batch], longest, IGNORED).to(model.device)
        mask = _padded([[1] * len(row.ids) for row in batch], longest, 0).to(model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            wanted = labels[:, 1:]
            kept = wanted != IGNORED
            chosen = logits.gather(2, wanted.clamp(min=0).unsqueeze(2)).squeeze(2)
            scores = torch.where(kept, chosen - logits.logsumexp(2), torch.zeros_like(chosen))
        sums = scores.double().sum(1).tolist()
        found += list(zip(sums, kept.sum(1).tolist(), strict=True))
    return found


def perplexity(scores: Sequence[tuple[float, int]]) -> float:
    """Of all labelled tokens together."""
    total, tokens = sum(score for score, _ in scores), sum(count for _, count in scores)
    return math.exp(-total / max(tokens, 1))


def _padded(rows: Sequence[Sequence[int]], length: int, value: int) -> torch.Tensor:
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
