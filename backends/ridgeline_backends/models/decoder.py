"""The decoder of every family: its weights, read one layer at a time, and its forward pass.

Arithmetic between the matrices is in float32, and every operation gives a row the same bits
whatever rows are beside it. What a linear layer is and where KV lives is the backend's affair: it
passes `make_linear` and `attend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.errors import InvalidModel
from ridgeline_backends.models.arithmetic import gelu_tanh, silu, softcap
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.rope import rope_tables, rotate
from ridgeline_backends.models.weights import Weights

Linear = Callable[[Tensor], Tensor]
"""[rows, in] -> [rows, out], both float32."""

MakeLinear = Callable[[Tensor], Linear]
"""From a weight [out, in]."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [rows, heads, dim], k and v [rows, kv heads, dim]) -> [rows, heads, dim]."""

Adapt = Callable[[int, str, Tensor, Tensor], Tensor]
"""(layer, "qkv" or "o" or "gate_up" or "down", x, what that matrix made of x) -> the latter with
what LoRA adapters add."""

# As checkpoints with a language model among other parts have called it over time.
_PREFIXES = ("model.", "language_model.model.", "model.language_model.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """The tensors of one layer. Norms and biases are float32, with Gemma's "1 +" folded in;
    matrices [out, in] are as stored, and may lie in the mapped file: keep a copy."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Tensor
    o_bias: Tensor | None
    post_attention_norm: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    """Gate rows first."""
    down: Tensor
    post_mlp_norm: Tensor | None


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """`embedding` and `head` [vocabulary, hidden], the same tensor if they are tied."""

    embedding: Tensor
    norm: Tensor
    head: Tensor
    _read_layer: Callable[[int], LayerWeights]
    _count: int
    _drop_pages: Callable[[], None] = lambda: None

    def layers(self) -> Iterator[LayerWeights]:
        """The layers in order, each read when it is asked for and held by nobody else."""
        for index in range(self._count):
            yield self._read_layer(index)
            self._drop_pages()


def read_decoder(config: DecoderConfig, weights: Weights) -> DecoderWeights:
    """The weights of a decoder. Use it while `weights` is open.

    Raises `MissingTensor` and `MismatchedTensor`, for a layer when it is read.
    """
    prefix = next((p for p in _PREFIXES if f"{p}embed_tokens.weight" in weights), _PREFIXES[0])
    reader = _Reader(config, weights, prefix)
    shape = (config.vocab_size, config.hidden)
    embedding = weights.get(f"{prefix}embed_tokens.weight", *shape)
    head = embedding
    inner = prefix.removesuffix("model.") + "lm_head.weight"
    named = inner if inner in weights else "lm_head.weight"
    if not config.tied_head:
        head = weights.get(named, *shape)
    elif named in weights:
        _check_tied(named, weights.stored(named), embedding)
    norm = reader.norm("norm", config.hidden)
    return DecoderWeights(embedding, norm, head, reader.layer, config.layers, weights.drop_pages)


def _check_tied(name: str, stored: Tensor, embedding: Tensor) -> None:
    """Some versions of transformers use such a head and some do not: nobody can tell which of the
    two the model was trained with."""
    if not stored.numel():
        return  # what sharded training leaves of a tensor that it keeps elsewhere
    if not (stored.is_floating_point() and _same_bits(stored.to(embedding.dtype), embedding)):
        kind = f"{stored.dtype}, {tuple(stored.shape)}"
        raise InvalidModel(
            f"{name} ({kind}) differs from the embedding, "
            "which config.json says is used in its place.",
            hint='Set "tie_word_embeddings" to false in config.json to use it, '
            "or take it out of the weights.",
        )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Not by value, for NaN equals nothing."""
    return one.shape == other.shape and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


@dataclass(frozen=True, slots=True)
class _Reader:
    config: DecoderConfig
    weights: Weights
    prefix: str

    def layer(self, index: int) -> LayerWeights:
        c = self.config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        layer = f"layers.{index}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        projections = {"q_proj": q, "k_proj": kv, "v_proj": kv}
        halves = {"gate_proj": c.intermediate, "up_proj": c.intermediate}
        sandwich = c.sandwich_norms
        before_mlp = "pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"
        return LayerWeights(
            attention_norm=self.norm(f"{layer}.input_layernorm", c.hidden),
            qkv=self._fused(attention, "qkv_proj", projections),
            qkv_bias=self._biases(attention, projections) if c.qkv_bias else None,
            q_norm=self.norm(f"{attention}.q_norm", c.head_dim) if c.qk_norm else None,
            k_norm=self.norm(f"{attention}.k_norm", c.head_dim) if c.qk_norm else None,
            o=self._get(f"{attention}.o_proj.weight", c.hidden, q),
            o_bias=self._biases(attention, {"o_proj": c.hidden}) if c.o_bias else None,
            post_attention_norm=(
                self.norm(f"{layer}.post_attention_layernorm", c.hidden) if sandwich else None
            ),
            mlp_norm=self.norm(f"{layer}.{before_mlp}", c.hidden),
            gate_up=self._fused(mlp, "gate_up_proj", halves),
            down=self._get(f"{mlp}.down_proj.weight", c.hidden, c.intermediate),
            post_mlp_norm=(
                self.norm(f"{layer}.post_feedforward_layernorm", c.hidden) if sandwich else None
            ),
        )

    def norm(self, name: str, size: int) -> Tensor:
        # A copy of its own: what `get` returns lies in the mapped file.
        weight = self._get(f"{name}.weight", size).to(torch.float32, copy=True)
        return weight.add_(1) if self.config.zero_centred_norms else weight

    def _fused(self, parent: str, whole: str, parts: dict[str, int]) -> Tensor:
        """The matrix `whole`, or where the file has its parts, those under each other."""
        columns = self.config.hidden
        if f"{self.prefix}{parent}.{whole}.weight" in self.weights:
            return self._get(f"{parent}.{whole}.weight", sum(parts.values()), columns)
        return torch.cat(
            [self._get(f"{parent}.{part}.weight", rows, columns) for part, rows in parts.items()]
        )

    def _biases(self, parent: str, parts: dict[str, int]) -> Tensor:
        found = [self._get(f"{parent}.{part}.bias", rows) for part, rows in parts.items()]
        return torch.cat(found).to(torch.float32, copy=True)

    def _get(self, name: str, *shape: int) -> Tensor:
        return self.weights.get(self.prefix + name, *shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    attention_norm: Tensor
    qkv: Linear
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Linear
    o_bias: Tensor | None
    post_attention_norm: Tensor | None
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    post_mlp_norm: Tensor | None


class Decoder:
    """A decoder ready to run over a flat row of tokens."""

    def __init__(
        self,
        config: DecoderConfig,
        weights: DecoderWeights,
        make_linear: MakeLinear,
        *,
        table_dtype: torch.dtype,
        max_positions: int,
    ) -> None:
        self.config = config
        self._activation = silu if config.activation == "silu" else gelu_tanh
        self._embedding = weights.embedding.to(table_dtype, copy=True)
        self._layers = [_layer(layer, make_linear) for layer in weights.layers()]
        self._norm = weights.norm
        self._head = make_linear(weights.head)
        self._ropes = [rope_tables(r, config.rotary_dim, max_positions) for r in config.ropes]

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        attend: Attend,
        wanted: Tensor,
        adapt: Adapt = lambda layer, target, x, out: out,
    ) -> Tensor:
        """Logits [len(wanted), vocabulary] of the rows `wanted`, for `tokens` at `positions`."""
        c = self.config
        ropes = [(cos[positions, None], sin[positions, None]) for cos, sin in self._ropes]
        x = F.embedding(tokens, self._embedding).float()
        if c.embedding_scale != 1:
            x = x * c.embedding_scale
        for index, layer in enumerate(self._layers):
            normed = self._normed(x, layer.attention_norm)
            qkv = adapt(index, "qkv", normed, layer.qkv(normed))
            q, k, v = self._heads(layer, qkv, ropes[c.layer_rope[index]])
            attended = attend(index, q, k, v).reshape(x.shape[0], -1)
            out = adapt(index, "o", attended, layer.o(attended))
            if layer.o_bias is not None:
                out = out.add_(layer.o_bias)
            x = x.add_(self._normed(out, layer.post_attention_norm))
            normed = self._normed(x, layer.mlp_norm)
            gate, up = adapt(index, "gate_up", normed, layer.gate_up(normed)).chunk(2, -1)
            inner = self._activation(gate).mul_(up)
            out = adapt(index, "down", inner, layer.down(inner))
            x = x.add_(self._normed(out, layer.post_mlp_norm))
        logits = self._head(self._normed(x[wanted], self._norm))
        return logits if c.final_softcap is None else softcap(logits, c.final_softcap)

    def _heads(
        self, layer: _Layer, qkv: Tensor, rope: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [rows, heads of its own, dim]."""
        c = self.config
        if layer.qkv_bias is not None:
            qkv = qkv.add_(layer.qkv_bias)
        qkv = qkv.view(qkv.shape[0], -1, c.head_dim)
        qk, v = qkv[:, : c.heads + c.kv_heads], qkv[:, c.heads + c.kv_heads :]
        if layer.q_norm is not None:
            q = self._normed(qk[:, : c.heads], layer.q_norm)
            k = self._normed(qk[:, c.heads :], layer.k_norm)
            qk = torch.cat([q, k], 1)
        qk = rotate(qk, *rope)
        return qk[:, : c.heads], qk[:, c.heads :], v

    def _normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """`x` itself where the family has no norm at this place."""
        if weight is None:
            return x
        return F.rms_norm(x, weight.shape, weight, self.config.norm_eps)


def _layer(weights: LayerWeights, make_linear: MakeLinear) -> _Layer:
    return _Layer(
        attention_norm=weights.attention_norm,
        qkv=make_linear(weights.qkv),
        qkv_bias=weights.qkv_bias,
        q_norm=weights.q_norm,
        k_norm=weights.k_norm,
        o=make_linear(weights.o),
        o_bias=weights.o_bias,
        post_attention_norm=weights.post_attention_norm,
        mlp_norm=weights.mlp_norm,
        gate_up=make_linear(weights.gate_up),
        down=make_linear(weights.down),
        post_mlp_norm=weights.post_mlp_norm,
    )
