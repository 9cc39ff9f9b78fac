"""The BERT encoder: tokens in, one hidden vector per token out, in float32.

All tokens of a call are one flat row; attention is per sequence, so nothing is padded and a
sequence's result does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.arithmetic import gelu
from ridgeline_backends.models.decoder import Linear, MakeLinear
from ridgeline_backends.models.encoder_config import BertConfig
from ridgeline_backends.models.weights import Weights


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Biased:
    linear: Linear
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.bias


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: _Biased
    attention_out: _Biased
    attention_norm: _Norm
    up: _Biased
    down: _Biased
    norm: _Norm


class Bert:
    """Weights of a BERT encoder, and its forward pass."""

    def __init__(self, config: BertConfig, weights: Weights, make_linear: MakeLinear) -> None:
        self._config = c = config
        self._weights = weights
        self._make_linear = make_linear
        # Checkpoints of a bare encoder have no prefix, those of a model with a head do.
        self._prefix = "" if "embeddings.word_embeddings.weight" in weights else "bert."
        self._words = self._get("embeddings.word_embeddings.weight", c.vocab_size, c.hidden)
        self._positions = self._get(
            "embeddings.position_embeddings.weight", c.context_length, c.hidden
        )
        types = self._get("embeddings.token_type_embeddings.weight", c.type_vocab_size, c.hidden)
        self._type = types[0]
        self._norm = self._layer_norm("embeddings.LayerNorm")
        self._layers = [self._layer(f"encoder.layer.{i}") for i in range(c.layers)]

    def forward(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Hidden states [tokens, hidden], one tensor per sequence."""
        c = self._config
        lengths = [len(tokens) for tokens in sequences]
        tokens = torch.tensor([token for one in sequences for token in one])
        positions = torch.cat([torch.arange(length) for length in lengths])
        x = F.embedding(tokens, self._words) + self._type
        x = self._norm(x + F.embedding(positions, self._positions))
        for layer in self._layers:
            qkv = layer.qkv(x).view(len(tokens), 3, c.heads, -1)
            attended = torch.cat([_attend(part) for part in torch.split(qkv, lengths)])
            x = layer.attention_norm(x + layer.attention_out(attended.view(len(tokens), -1)))
            x = layer.norm(x + layer.down(gelu(layer.up(x))))
        return list(torch.split(x, lengths))

    def _layer(self, prefix: str) -> _Layer:
        c = self._config
        attention = f"{prefix}.attention"
        parts = [f"{attention}.self.{name}" for name in ("query", "key", "value")]
        weight = torch.cat([self._get(f"{part}.weight", c.hidden, c.hidden) for part in parts])
        bias = torch.cat([self._get(f"{part}.bias", c.hidden) for part in parts])
        return _Layer(
            qkv=_Biased(self._make_linear(weight), bias),
            attention_out=self._biased(f"{attention}.output.dense", c.hidden, c.hidden),
            attention_norm=self._layer_norm(f"{attention}.output.LayerNorm"),
            up=self._biased(f"{prefix}.intermediate.dense", c.intermediate, c.hidden),
            down=self._biased(f"{prefix}.output.dense", c.hidden, c.intermediate),
            norm=self._layer_norm(f"{prefix}.output.LayerNorm"),
        )

    def _biased(self, name: str, rows: int, columns: int) -> _Biased:
        weight = self._get(f"{name}.weight", rows, columns)
        return _Biased(self._make_linear(weight), self._get(f"{name}.bias", rows))

    def _layer_norm(self, name: str) -> _Norm:
        hidden = self._config.hidden
        weight, bias = self._get(f"{name}.weight", hidden), self._get(f"{name}.bias", hidden)
        return _Norm(weight, bias, self._config.norm_eps)

    def _get(self, name: str, *shape: int) -> Tensor:
        # A copy of its own: the file is closed after loading.
        return self._weights.get(self._prefix + name, *shape).to(torch.float32, copy=True)


def _attend(qkv: Tensor) -> Tensor:
    """[tokens, 3, heads, dim] of one sequence -> [tokens, heads, dim]."""
    q, k, v = qkv.permute(1, 2, 0, 3)
    scores = torch.matmul(q * (1 / sqrt(q.shape[-1])), k.transpose(1, 2))
    return torch.matmul(torch.softmax(scores, -1), v).transpose(0, 1).contiguous()
