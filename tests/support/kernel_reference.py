"""A decoder in float64, plain and obvious, for the native kernels to be held against.

It follows the formulas alone: whole sequences, no blocks, no tiles. What kernels do round on
purpose, weights, keys and values to the stored type, activations for int8 and for bfloat16
products, is rounded here too, so that tolerances need to cover arithmetic only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import DecoderWeights, LayerWeights
from ridgeline_backends.models.lora import Adapter

_PADDED = 64
Multiply = Callable[[Tensor, Tensor], Tensor]
"""(x [rows, k], weight [n, k], both float64) -> [rows, n]"""


def exact(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.T


def rounded_pairs(x: Tensor, weight: Tensor) -> Tensor:
    """As processors with bfloat16 products see activations."""
    return x.bfloat16().double() @ weight.T


def in_int8(group: int, *, narrow: bool) -> Multiply:
    """Both sides as whole numbers up to 127, with a scale for every `group` of k. Where sums are
    `narrow`, it keeps those of four weights of one sign within 128."""

    def multiply(x: Tensor, weight: Tensor) -> Tensor:
        padding = (0, -x.shape[1] % _PADDED)
        pairs = zip(
            *(torch.nn.functional.pad(each, padding).split(group, 1) for each in (x, weight)),
            strict=True,
        )
        return torch.stack([_group(part, side, narrow=narrow) for part, side in pairs]).sum(0)

    return multiply


def _group(part: Tensor, side: Tensor, *, narrow: bool) -> Tensor:
    x_scale = part.abs().amax(1, keepdim=True) / 127
    limits = [side.abs().amax(1, keepdim=True) / 127]
    if narrow:
        limits += [
            (sign * side[:, [8 * i + j for j in four]]).clamp(min=0).sum(1, keepdim=True) / 126
            for i in range(side.shape[1] // 8)
            for four in ((0, 1, 4, 5), (2, 3, 6, 7))
            for sign in (1, -1)
        ]
    w_scale = torch.cat(limits, 1).amax(1, keepdim=True).bfloat16().double()
    x_whole = (part / x_scale.clamp(min=1e-300)).round()
    w_whole = (side / w_scale.clamp(min=1e-30)).round().clamp(-127, 127)
    return (x_whole @ w_whole.T) * x_scale * w_scale.T


@dataclass(frozen=True, slots=True)
class Reference:
    """`weights` are served as `stored`; `multiply` is how the matrices of a variant multiply."""

    config: DecoderConfig
    weights: DecoderWeights
    stored: torch.dtype
    multiply: Multiply

    def logits(self, tokens: Sequence[int], adapter: Adapter | None = None) -> Tensor:
        """[tokens, vocabulary] of one whole sequence."""
        c = self.config
        x = self._served(self.weights.embedding)[list(tokens)] * c.embedding_scale
        for index, layer in enumerate(self.weights.layers()):
            added = adapter.layers[index] if adapter else {}
            normed = self._norm(x, layer.attention_norm)
            qkv = self._linear(normed, layer.qkv, layer.qkv_bias, added.get("qkv"))
            attended = self._attention(index, layer, qkv)
            out = self._linear(attended, layer.o, layer.o_bias, added.get("o"))
            x = x + self._norm(out, layer.post_attention_norm)
            normed = self._norm(x, layer.mlp_norm)
            both = self._linear(normed, layer.gate_up, None, added.get("gate_up"))
            gate, up = both.chunk(2, -1)
            out = self._linear(self._activation(gate) * up, layer.down, None, added.get("down"))
            x = x + self._norm(out, layer.post_mlp_norm)
        logits = self._linear(self._norm(x, self.weights.norm), self.weights.head)
        return logits if c.final_softcap is None else _capped(logits, c.final_softcap)

    def _served(self, weight: Tensor) -> Tensor:
        return weight.to(self.stored).double()

    def _linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        added: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        out = self.multiply(x, self._served(weight))
        if bias is not None:
            out = out + bias.double()
        if added is not None:
            down, up = added
            out = out + x @ down.double().T @ up.double().T
        return out

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:
            return x
        squares = x.square().mean(-1, keepdim=True)
        return x / (squares + self.config.norm_eps).sqrt() * weight.double()

    def _activation(self, x: Tensor) -> Tensor:
        if self.config.activation == "silu":
            return x / (1 + torch.exp(-x))
        inner = (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + torch.tanh(inner))

    def _attention(self, index: int, layer: LayerWeights, qkv: Tensor) -> Tensor:
        c = self.config
        heads = qkv.view(len(qkv), -1, c.head_dim)
        q, k, v = heads.split([c.heads, c.kv_heads, c.kv_heads], 1)
        theta = c.ropes[c.layer_rope[index]].theta
        q = self._turned(self._norm(q, layer.q_norm), theta)
        k = self._served(self._turned(self._norm(k, layer.k_norm), theta))
        v = self._served(v)
        k, v = (part.repeat_interleave(c.head_groups, 1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * c.attention_scale
        if c.attention_softcap is not None:
            scores = _capped(scores, c.attention_softcap)
        distance = torch.arange(len(qkv))[:, None] - torch.arange(len(qkv))
        window = c.windows[index] or len(qkv)
        hidden = (distance < 0) | (distance >= window)
        shares = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", shares, v).flatten(1)

    def _turned(self, x: Tensor, theta: float) -> Tensor:
        """The first `rotary_dim` numbers of every head, turned by their row's position."""
        half = self.config.rotary_dim // 2
        speed = theta ** -(torch.arange(half).double() / half)
        angle = torch.arange(len(x)).double()[:, None, None] * speed
        a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
        turned = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), rest]
        return torch.cat(turned, -1)


def _capped(x: Tensor, cap: float) -> Tensor:
    return cap * torch.tanh(x / cap)


def random_weights(config: DecoderConfig, seed: int) -> DecoderWeights:
    """Float32 weights of a size that keeps activations near 1."""
    draw = torch.Generator().manual_seed(seed)

    def matrix(name: str) -> Tensor:
        rows, columns = config.linear_shapes[name]
        return torch.randn(rows, columns, generator=draw) / columns**0.5

    def vector(size: int, *, wanted: bool = True, around: float = 1.0) -> Tensor | None:
        values = around + 0.2 * torch.randn(size, generator=draw)
        return values if wanted else None

    def norm(size: int) -> Tensor:
        return 1 + 0.2 * torch.randn(size, generator=draw)

    def layer() -> LayerWeights:
        qkv = config.linear_shapes["qkv"][0]
        return LayerWeights(
            attention_norm=norm(config.hidden),
            qkv=matrix("qkv"),
            qkv_bias=vector(qkv, wanted=config.qkv_bias, around=0),
            q_norm=vector(config.head_dim, wanted=config.qk_norm),
            k_norm=vector(config.head_dim, wanted=config.qk_norm),
            o=matrix("o"),
            o_bias=vector(config.hidden, wanted=config.o_bias, around=0),
            post_attention_norm=vector(config.hidden, wanted=config.sandwich_norms),
            mlp_norm=norm(config.hidden),
            gate_up=matrix("gate_up"),
            down=matrix("down"),
            post_mlp_norm=vector(config.hidden, wanted=config.sandwich_norms),
        )

    layers = [layer() for _ in range(config.layers)]
    embedding = torch.randn(config.vocab_size, config.hidden, generator=draw)
    head = embedding
    if not config.tied_head:
        head = torch.randn(config.vocab_size, config.hidden, generator=draw)
    return DecoderWeights(
        embedding, norm(config.hidden), head, layers.__getitem__, len(layers), lambda: None
    )


def random_adapter(config: DecoderConfig, name: str, rank: int, seed: int) -> Adapter:
    """One that changes every matrix of the first layer, and no gates and ups of the others."""
    draw = torch.Generator().manual_seed(seed)

    def pair(target: str) -> tuple[Tensor, Tensor]:
        rows, columns, width = config.adapter_shapes(rank)[target]
        down = torch.randn(width, columns, generator=draw) / columns**0.5
        return down, torch.randn(rows, width, generator=draw) / width**0.5

    layers = [
        {t: pair(t) for t in config.linear_shapes if index == 0 or t != "gate_up"}
        for index in range(config.layers)
    ]
    return Adapter(name, rank, tuple(layers))
