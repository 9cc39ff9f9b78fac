"""Embeds token sequences with a BERT encoder: encode, pool, normalise.

Pooling follows `1_Pooling/config.json` (sentence-transformers): the mean, which is the default, or
the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.base import Artifact, EmbeddingRunner
from ridgeline_backends.cpu.linear import choose_form
from ridgeline_backends.errors import InvalidSampling, PromptTooLong, UnsupportedModel
from ridgeline_backends.models.bert import Bert
from ridgeline_backends.models.encoder_config import bert_config
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import Weights

Pool = Callable[[Tensor], Tensor]


class CpuEmbeddingRunner(EmbeddingRunner):
    """Computes in float32 whatever the plan's dtype: embeddings are compared by small distances."""

    def __init__(self, artifact: Artifact) -> None:
        plan = artifact.plan
        config = bert_config(read_json(artifact.model_dir / "config.json"))
        self._vocab_size = config.vocab_size
        self._dimensions = config.hidden
        self._max_model_len = plan.max_model_len
        self._max_tokens = max(plan.spec.max_tokens_per_step, plan.max_model_len)
        self._pool = _pooling(artifact.model_dir)
        hidden, inner = config.hidden, config.intermediate
        shapes = [(3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner)]
        with torch.inference_mode(), Weights(artifact.model_dir) as weights:
            self.linear_form, form = choose_form(shapes, torch.float32)
            self._model = Bert(config, weights, form)

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        for tokens in token_ids:
            self._check(tokens)
        vectors: list[list[float]] = []
        with torch.inference_mode():
            for batch in self._batches(token_ids):
                pooled = [self._pool(hidden) for hidden in self._model.forward(batch)]
                vectors.extend(F.normalize(torch.stack(pooled), dim=-1).tolist())
        return vectors

    def _batches(self, token_ids: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        """In order, cut so that no call has more tokens than planned for."""
        batch: list[Sequence[int]] = []
        used = 0
        for tokens in token_ids:
            if batch and used + len(tokens) > self._max_tokens:
                yield batch
                batch, used = [], 0
            batch.append(tokens)
            used += len(tokens)
        if batch:
            yield batch

    def _check(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise InvalidSampling("input", [], "at least one token")
        if len(tokens) > self._max_model_len:
            raise PromptTooLong(len(tokens), self._max_model_len)
        strange = next((token for token in tokens if not 0 <= token < self._vocab_size), None)
        if strange is not None:
            raise InvalidSampling("input", strange, f"token ids below {self._vocab_size}")


def _pooling(model_dir: Path) -> Pool:
    path = model_dir / "1_Pooling" / "config.json"
    if not path.is_file():
        return _mean
    asked = {
        name for name, on in read_json(path).items() if name.startswith("pooling_mode_") and on
    }
    if asked == {"pooling_mode_mean_tokens"}:
        return _mean
    if asked == {"pooling_mode_cls_token"}:
        return _first
    raise UnsupportedModel(
        f"Pooling {', '.join(sorted(asked)) or 'none'} is not supported.",
        hint="Supported: pooling_mode_mean_tokens or pooling_mode_cls_token alone.",
    )


def _mean(hidden: Tensor) -> Tensor:
    return hidden.mean(0)


def _first(hidden: Tensor) -> Tensor:
    return hidden[0]
