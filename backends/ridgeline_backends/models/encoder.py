"""The encoder of every family: tokens in, one hidden vector per token out, in float32.

All tokens of a call are one flat row; attention is per sequence, so nothing is padded and a
sequence's result does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.arithmetic import gelu, gelu_tanh
from ridgeline_backends.models.decoder import Linear, MakeLinear
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.weights import Weights

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": torch.relu,
    "tanh": torch.tanh,
}
# Distances beyond this one are all alike to MPNet (and T5, where the scheme is from).
_FARTHEST = 128


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """One sequence. `type_ids` tell the first text of a pair (0) from the second (1); empty for
    all 0."""

    token_ids: Sequence[int]
    type_ids: Sequence[int] = ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    qkv: _Biased
    attention_out: _Biased
    attention_norm: _Norm
    up: _Biased
    down: _Biased
    norm: _Norm


class Encoder:
    """Weights of an encoder, and its forward pass."""

    def __init__(self, config: EncoderConfig, weights: Weights, make_linear: MakeLinear) -> None:
        self._config = c = config
        reader = _Reader(config, weights, make_linear)
        self._activation = _ACTIVATIONS[c.activation]
        self._words = reader.table("word_embeddings", c.vocab_size)
        self._positions = reader.table("position_embeddings", c.positions)
        self._types = reader.table("token_type_embeddings", c.token_types)
        self._distances = reader.distances()
        self._norm = reader.norm("embeddings.LayerNorm")
        self._layers = [reader.layer(index) for index in range(c.layers)]

    def forward(self, inputs: Sequence[EncoderInput]) -> list[Tensor]:
        """Hidden states [tokens, hidden], one tensor per sequence."""
        lengths = [len(one.token_ids) for one in inputs]
        x = self._norm(torch.cat([self._embed(one) for one in inputs]))
        biases = [self._bias(length) for length in lengths]
        for layer in self._layers:
            qkv = layer.qkv(x).view(x.shape[0], 3, self._config.heads, -1)
            parts = zip(torch.split(qkv, lengths), biases, strict=True)
            attended = torch.cat([_attend(part, bias) for part, bias in parts])
            x = layer.attention_norm(x + layer.attention_out(attended.view(x.shape)))
            x = layer.norm(x + layer.down(self._activation(layer.up(x))))
        return list(torch.split(x, lengths))

    def _embed(self, one: EncoderInput) -> Tensor:
        c = self._config
        tokens = torch.tensor(one.token_ids)
        positions = torch.arange(len(tokens))
        if c.family.positions_after_padding:
            # A padding token within a text has a position of its own, and none is counted.
            real = (tokens != c.padding_id).long()
            positions = real.cumsum(0) * real + c.padding_id
        x = F.embedding(tokens, self._words) + F.embedding(positions, self._positions)
        if c.token_types:
            # A model with one kind of segment sees no difference between the two of a pair.
            kinds = torch.tensor(one.type_ids or [0] * len(tokens)).clamp(max=c.token_types - 1)
            x = x + F.embedding(kinds, self._types)
        return x

    def _bias(self, length: int) -> Tensor | None:
        """What attention adds by distance, [heads, tokens, tokens]."""
        if self._distances is None:
            return None
        places = torch.arange(length)
        buckets = _buckets(places - places[:, None], self._config.relative_buckets)
        return F.embedding(buckets, self._distances).permute(2, 0, 1)


class PairHead:
    """From the first token's hidden state to one number: a cross-encoder's judgement."""

    def __init__(self, config: EncoderConfig, weights: Weights) -> None:
        reader = _Reader(config, weights, _plain)
        first, last = config.family.head
        self._squash = _ACTIVATIONS[config.family.head_squash]
        self._first = reader.full(first, config.hidden)
        self._last = reader.full(last, 1)

    def __call__(self, hidden: Tensor) -> float:
        """`hidden` [tokens, hidden] of one pair."""
        return float(self._last(self._squash(self._first(hidden[:1]))))


@dataclass(frozen=True, slots=True)
class _Reader:
    config: EncoderConfig
    weights: Weights
    make_linear: MakeLinear

    def table(self, name: str, rows: int) -> Tensor:
        full = f"embeddings.{name}.weight"
        return self._get(full, rows, self.config.hidden) if rows else torch.empty(0)

    def distances(self) -> Tensor | None:
        c = self.config
        if not c.relative_buckets:
            return None
        return self._get("encoder.relative_attention_bias.weight", c.relative_buckets, c.heads)

    def layer(self, index: int) -> _Layer:
        c, names = self.config, self.config.family.names
        parent = f"{c.family.layer}.{index}"
        parts = [f"{parent}.{name}" for name in (names.query, names.key, names.value)]
        weight = torch.cat([self._get(f"{part}.weight", c.hidden, c.hidden) for part in parts])
        bias = torch.cat([self._get(f"{part}.bias", c.hidden) for part in parts])
        return _Layer(
            qkv=_Biased(self.make_linear(weight), bias),
            attention_out=self._biased(f"{parent}.{names.attention_out}", c.hidden, c.hidden),
            attention_norm=self.norm(f"{parent}.{names.attention_norm}"),
            up=self._biased(f"{parent}.{names.up}", c.intermediate, c.hidden),
            down=self._biased(f"{parent}.{names.down}", c.hidden, c.intermediate),
            norm=self.norm(f"{parent}.{names.norm}"),
        )

    def norm(self, name: str) -> _Norm:
        size = self.config.hidden
        weight, bias = self._get(f"{name}.weight", size), self._get(f"{name}.bias", size)
        return _Norm(weight, bias, self.config.norm_eps)

    def full(self, name: str, rows: int) -> _Biased:
        """A linear layer of the head, by its name in the file."""
        weight = self._own(self.weights.get(f"{name}.weight", rows, self.config.hidden))
        return _Biased(self.make_linear(weight), self._own(self.weights.get(f"{name}.bias", rows)))

    def _biased(self, name: str, rows: int, columns: int) -> _Biased:
        weight = self._get(f"{name}.weight", rows, columns)
        return _Biased(self.make_linear(weight), self._get(f"{name}.bias", rows))

    def _get(self, name: str, *shape: int) -> Tensor:
        # Checkpoints of a bare encoder have no prefix, those of a model with a head do.
        prefixed = self.config.family.prefix + name
        return self._own(self.weights.get(prefixed if prefixed in self.weights else name, *shape))

    @staticmethod
    def _own(tensor: Tensor) -> Tensor:
        # A copy of its own: the file is closed after loading.
        return tensor.to(torch.float32, copy=True)


def _plain(weight: Tensor) -> Linear:
    """For one row at a time, which has no neighbours."""
    return lambda x: F.linear(x, weight)


def _attend(qkv: Tensor, bias: Tensor | None) -> Tensor:
    """[tokens, 3, heads, dim] of one sequence -> [tokens, heads, dim]."""
    q, k, v = qkv.permute(1, 2, 0, 3)
    scores = torch.matmul(q * (1 / math.sqrt(q.shape[-1])), k.transpose(1, 2))
    if bias is not None:
        scores = scores + bias
    return torch.matmul(torch.softmax(scores, -1), v).transpose(0, 1).contiguous()


def _buckets(ahead: Tensor, count: int) -> Tensor:
    """How far a key is ahead of the query, as one of `count` kinds: the first half behind or at
    the query, the second ahead of it; near distances one by one, far ones by their logarithm (T5,
    arXiv 1910.10683)."""
    half = count // 2
    near = half // 2
    distance = ahead.abs()
    share = torch.log(distance.clamp(min=1).float() / near) / math.log(_FARTHEST / near)
    far = near + (share * (half - near)).long()
    kinds = torch.where(distance < near, distance, far.clamp(max=half - 1))
    return kinds + half * (ahead > 0)
