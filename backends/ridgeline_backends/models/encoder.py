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

from ridgeline_backends.errors import InvalidSampling, PromptTooLong
from ridgeline_backends.models.arithmetic import gelu, gelu_tanh
from ridgeline_backends.models.decoder import Linear, MakeLinear
from ridgeline_backends.models.encoder_config import EncoderConfig
from ridgeline_backends.models.encoder_weights import (
    Affine,
    EncoderLayerWeights,
    EncoderWeights,
)
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

    def check(self, *, vocab_size: int, max_model_len: int) -> None:
        """Raises `PromptTooLong`, and `InvalidSampling` for no token and for strange ones."""
        tokens = self.token_ids
        if not tokens:
            raise InvalidSampling("input", [], "at least one token")
        if len(tokens) > max_model_len:
            raise PromptTooLong(len(tokens), max_model_len)
        strange = next((token for token in tokens if not 0 <= token < vocab_size), None)
        if strange is not None:
            raise InvalidSampling("input", strange, f"token ids below {vocab_size}")

    def places(self, config: EncoderConfig) -> Tensor:
        """The row of the position table for each token."""
        tokens = torch.tensor(self.token_ids)
        if not config.family.positions_after_padding:
            return torch.arange(len(tokens))
        # A padding token within a text has a position of its own, and none is counted.
        real = (tokens != config.padding_id).long()
        return real.cumsum(0) * real + config.padding_id

    def kinds(self, config: EncoderConfig) -> Tensor:
        """The row of the table of segments for each token."""
        # A model with one kind of segment sees no difference between the two of a pair.
        kinds = torch.tensor(self.type_ids or [0] * len(self.token_ids))
        return kinds.clamp(max=config.token_types - 1)


@dataclass(frozen=True, slots=True)
class _Norm:
    affine: Affine
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.affine.weight, self.affine.bias, self.eps)


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
        read = EncoderWeights(config, weights)
        self._activation = _ACTIVATIONS[c.activation]
        self._words = read.words()
        self._positions = read.positions()
        self._types = read.types()
        self._distances = read.distances()
        self._norm = _Norm(read.norm(), c.norm_eps)
        self._layers = [_layer(c, read.layer(index), make_linear) for index in range(c.layers)]

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
        words = F.embedding(torch.tensor(one.token_ids), self._words)
        x = words + F.embedding(one.places(c), self._positions)
        if c.token_types:
            x = x + F.embedding(one.kinds(c), self._types)
        return x

    def _bias(self, length: int) -> Tensor | None:
        return None if self._distances is None else distance_bias(self._distances, length)


class PairHead:
    """From the first token's hidden state to one number: a cross-encoder's judgement."""

    def __init__(self, config: EncoderConfig, weights: Weights) -> None:
        first, last = EncoderWeights(config, weights).head()
        self._squash = _ACTIVATIONS[config.family.head_squash]
        self._first = _biased(first, _plain)
        self._last = _biased(last, _plain)

    def __call__(self, hidden: Tensor) -> float:
        """`hidden` [tokens, hidden] of one pair."""
        return float(self._last(self._squash(self._first(hidden[:1]))))


def distance_bias(distances: Tensor, length: int) -> Tensor:
    """What attention adds by distance [heads, length, length], of `distances` [kinds, heads]."""
    places = torch.arange(length)
    buckets = _buckets(places - places[:, None], distances.shape[0])
    return F.embedding(buckets, distances).permute(2, 0, 1)


def _layer(config: EncoderConfig, read: EncoderLayerWeights, make_linear: MakeLinear) -> _Layer:
    return _Layer(
        qkv=_biased(read.qkv, make_linear),
        attention_out=_biased(read.attention_out, make_linear),
        attention_norm=_Norm(read.attention_norm, config.norm_eps),
        up=_biased(read.up, make_linear),
        down=_biased(read.down, make_linear),
        norm=_Norm(read.norm, config.norm_eps),
    )


def _biased(read: Affine, make_linear: MakeLinear) -> _Biased:
    return _Biased(make_linear(read.weight), read.bias)


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
