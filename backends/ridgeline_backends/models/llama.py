"""The Llama family: Llama 2 and 3, SmolLM2, TinyLlama, Mistral.

Arithmetic between the matrices is in float32, and every operation gives a row the same bits
whatever rows are beside it. What a linear layer is and where KV lives is the backend's affair: it
passes `make_linear` and `attend`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.models.config import LlamaConfig, RopeConfig
from ridgeline_backends.models.weights import Weights

Linear = Callable[[Tensor], Tensor]
"""[rows, in] -> [rows, out], both float32."""

MakeLinear = Callable[[Tensor], Linear]
"""From a weight [out, in]."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [rows, heads, dim], k and v [rows, kv heads, dim]) -> [rows, heads, dim]."""


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: Tensor
    qkv: Linear
    o: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Llama:
    """Weights of a Llama, and its forward pass over a flat row of tokens."""

    def __init__(
        self,
        config: LlamaConfig,
        weights: Weights,
        make_linear: MakeLinear,
        *,
        table_dtype: torch.dtype,
        max_positions: int,
    ) -> None:
        self.config = config
        c, get = config, weights.get
        shape = (c.vocab_size, c.hidden)
        self._embedding = get("model.embed_tokens.weight", *shape).to(table_dtype, copy=True)
        self._layers = [self._layer(f"model.layers.{i}", get, make_linear) for i in range(c.layers)]
        self._norm = get("model.norm.weight", c.hidden).to(torch.float32, copy=True)
        head = "model.embed_tokens.weight" if c.tied_head else "lm_head.weight"
        self._head = make_linear(get(head, *shape))
        self._cos, self._sin = rope_tables(c.rope, c.head_dim, max_positions)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend, wanted: Tensor) -> Tensor:
        """Logits [len(wanted), vocabulary] of the rows `wanted`, for `tokens` at `positions`."""
        c = self.config
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        x = F.embedding(tokens, self._embedding).float()
        rows = x.shape[0]
        rotated_heads = c.heads + c.kv_heads
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(self._rms(x, layer.norm)).view(rows, -1, c.head_dim)
            qk, v = qkv[:, :rotated_heads], qkv[:, rotated_heads:]
            qk = _rotate(qk, cos, sin)
            attended = attend(index, qk[:, : c.heads], qk[:, c.heads :], v)
            x = x.add_(layer.o(attended.reshape(rows, -1)))
            gate, up = layer.gate_up(self._rms(x, layer.mlp_norm)).chunk(2, -1)
            x = x.add_(layer.down(silu(gate).mul_(up)))
        return self._head(self._rms(x[wanted], self._norm))

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (self.config.hidden,), weight, self.config.norm_eps)

    def _layer(self, prefix: str, get: Callable[..., Tensor], make_linear: MakeLinear) -> _Layer:
        c = self.config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        qkv = torch.cat(
            [
                get(f"{attention}.q_proj.weight", q, c.hidden),
                get(f"{attention}.k_proj.weight", kv, c.hidden),
                get(f"{attention}.v_proj.weight", kv, c.hidden),
            ]
        )
        gate_up = torch.cat(
            [
                get(f"{mlp}.gate_proj.weight", c.intermediate, c.hidden),
                get(f"{mlp}.up_proj.weight", c.intermediate, c.hidden),
            ]
        )

        def norm(name: str) -> Tensor:
            # A copy of its own: what `get` returns lies in the mapped file.
            return get(f"{prefix}.{name}.weight", c.hidden).to(torch.float32, copy=True)

        return _Layer(
            norm=norm("input_layernorm"),
            qkv=make_linear(qkv),
            o=make_linear(get(f"{attention}.o_proj.weight", c.hidden, q)),
            mlp_norm=norm("post_attention_layernorm"),
            gate_up=make_linear(gate_up),
            down=make_linear(get(f"{mlp}.down_proj.weight", c.hidden, c.intermediate)),
        )


def rope_tables(rope: RopeConfig, dim: int, positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin, [positions, dim]: for both halves of a head, sin negated for the first."""
    frequencies = 1.0 / rope.theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    if rope.kind == "linear":
        frequencies = frequencies / rope.factor
    elif rope.kind == "llama3":
        frequencies = _llama3(frequencies, rope)
    angles = torch.outer(torch.arange(positions).float(), frequencies)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x). Not `F.silu`: its vectorised body and its scalar tail round differently, so
    that a value's bits depend on where it stands in the tensor; those of `exp` do not."""
    return x / torch.exp(-x).add_(1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The halves of each head against each other; `sin` carries the sign of the first."""
    return (x * cos).add_(x.roll(x.shape[-1] // 2, -1).mul_(sin))


def _llama3(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1 report)."""
    turns = rope.original_context * frequencies / (2 * math.pi)
    span = rope.high_freq_factor - rope.low_freq_factor
    keep = ((turns - rope.low_freq_factor) / span).clamp(0, 1)
    return (1 - keep) * frequencies / rope.factor + keep * frequencies
