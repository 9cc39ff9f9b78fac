"""An encoder's tensors as a checkpoint of any family has them, in float32.

Read when asked for: each is a copy of its own, for the file is closed after loading.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.weights import Weights


@dataclass(frozen=True, slots=True)
class Affine:
    """A matrix [out, in], or a norm's [hidden], and the bias that is added after it."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderLayerWeights:
    """`qkv` [3 hidden, hidden]: queries, keys and values below each other."""

    qkv: Affine
    attention_out: Affine
    attention_norm: Affine
    up: Affine
    down: Affine
    norm: Affine


class EncoderWeights:
    """Raises `MissingTensor` and `MismatchedTensor`, as `Weights` does."""

    def __init__(self, config: EncoderConfig, weights: Weights) -> None:
        self._config = config
        self._weights = weights

    def words(self) -> Tensor:
        return self._table("word_embeddings", self._config.vocab_size)

    def positions(self) -> Tensor:
        return self._table("position_embeddings", self._config.positions)

    def types(self) -> Tensor:
        """Empty for a family without kinds of segments."""
        rows = self._config.token_types
        return self._table("token_type_embeddings", rows) if rows else torch.empty(0)

    def distances(self) -> Tensor | None:
        """What attention adds by kind of distance [kinds, heads], where the family has that."""
        c = self._config
        if not c.relative_buckets:
            return None
        return self._get("encoder.relative_attention_bias.weight", c.relative_buckets, c.heads)

    def norm(self) -> Affine:
        """Of the embedded tokens."""
        return self._norm("embeddings.LayerNorm")

    def layer(self, index: int) -> EncoderLayerWeights:
        c, names = self._config, self._config.family.names
        parent = f"{c.family.layer}.{index}"
        parts = [f"{parent}.{name}" for name in (names.query, names.key, names.value)]
        weight = torch.cat([self._get(f"{part}.weight", c.hidden, c.hidden) for part in parts])
        bias = torch.cat([self._get(f"{part}.bias", c.hidden) for part in parts])
        return EncoderLayerWeights(
            qkv=Affine(weight, bias),
            attention_out=self._affine(f"{parent}.{names.attention_out}", c.hidden, c.hidden),
            attention_norm=self._norm(f"{parent}.{names.attention_norm}"),
            up=self._affine(f"{parent}.{names.up}", c.intermediate, c.hidden),
            down=self._affine(f"{parent}.{names.down}", c.hidden, c.intermediate),
            norm=self._norm(f"{parent}.{names.norm}"),
        )

    def head(self) -> tuple[Affine, Affine]:
        """The two linear layers of a cross-encoder: [hidden, hidden] and [1, hidden]."""
        first, last = self._config.family.head
        return self._full(first, self._config.hidden), self._full(last, 1)

    def _table(self, name: str, rows: int) -> Tensor:
        return self._get(f"embeddings.{name}.weight", rows, self._config.hidden)

    def _norm(self, name: str) -> Affine:
        size = self._config.hidden
        return Affine(self._get(f"{name}.weight", size), self._get(f"{name}.bias", size))

    def _affine(self, name: str, rows: int, columns: int) -> Affine:
        return Affine(self._get(f"{name}.weight", rows, columns), self._get(f"{name}.bias", rows))

    def _full(self, name: str, rows: int) -> Affine:
        """A linear layer of the head, by its name in the file."""
        weight = self._own(self._weights.get(f"{name}.weight", rows, self._config.hidden))
        return Affine(weight, self._own(self._weights.get(f"{name}.bias", rows)))

    def _get(self, name: str, *shape: int) -> Tensor:
        # Checkpoints of a bare encoder have no prefix, those of a model with a head do.
        prefixed = self._config.family.prefix + name
        return self._own(self._weights.get(prefixed if prefixed in self._weights else name, *shape))

    @staticmethod
    def _own(tensor: Tensor) -> Tensor:
        return tensor.to(torch.float32, copy=True)
