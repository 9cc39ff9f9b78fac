"""What an encoder is, read from a Hugging Face config. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.models.encoder_families import (
    EMBEDDING_FAMILIES,
    RERANK_FAMILIES,
    EncoderFamily,
)
from ridgeline_backends.models.reader import Reader

ENCODER_ARCHITECTURES = (*EMBEDDING_FAMILIES, *RERANK_FAMILIES)

Activation = Literal["gelu", "gelu_tanh", "relu"]
_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """An encoder with learned positions and norms after its blocks.

    `positions`: rows of the position table, of which `context_length` can be used. `token_types`:
    kinds of segments, 0 if the family has none. `padding_id`: the token after whose id positions
    start, in families that count so. `relative_buckets`: distances told apart by the attention's
    bias. `rerank`: it ends in one number for a pair, not in hidden states.
    """

    family: EncoderFamily
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocab_size: int
    positions: int
    token_types: int
    padding_id: int
    relative_buckets: int
    norm_eps: float
    activation: Activation
    rerank: bool

    @property
    def context_length(self) -> int:
        if self.family.positions_after_padding:
            return self.positions - self.padding_id - 1
        return self.positions

    @property
    def linear_shapes(self) -> list[tuple[int, int]]:
        """[out, in] of the matrices of one layer, as they are fused here."""
        hidden, inner = self.hidden, self.intermediate
        return [(3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner)]

    @property
    def parameters(self) -> int:
        per_layer = 4 * self.hidden * (self.hidden + 1) + 4 * self.hidden
        per_layer += 2 * self.hidden * self.intermediate + self.intermediate + self.hidden
        tables = (self.vocab_size + self.positions + self.token_types) * self.hidden
        head = self.hidden * (self.hidden + 1) + self.hidden + 1 if self.rerank else 0
        bias = self.relative_buckets * self.heads
        return self.layers * per_layer + tables + 2 * self.hidden + head + bias


def encoder_config(config: Mapping[str, object], architecture: str) -> EncoderConfig:
    """Parse the config of one of `ENCODER_ARCHITECTURES`. Raises `InvalidModel`, and
    `UnsupportedModel` for what would not be honoured."""
    rerank = architecture in RERANK_FAMILIES
    family = (RERANK_FAMILIES if rerank else EMBEDDING_FAMILIES)[architecture]
    read = Reader({**family.defaults, **config})

    def own(name: str) -> str:
        return family.settings.get(name, name)

    read.refuse_unless("position_embedding_type", "absolute")
    for switch in ("is_decoder", "sinusoidal_pos_embds", "add_cross_attention"):
        read.refuse_unless(switch, False)
    read.refuse_unless("quantization_config", None)
    if family.relative_positions:
        read.refuse_unless("relative_attention_num_buckets", 32)
    if rerank and _labels(config) != 1:
        raise UnsupportedModel(
            f"{architecture} with {_labels(config)} labels is not supported.",
            hint="A model that scores pairs (a cross-encoder) has one.",
        )
    activation = _ACTIVATIONS.get(str(read.config.get(own("hidden_act"), "gelu")))
    if activation is None:
        raise UnsupportedModel(
            f"{own('hidden_act')} = {read.config.get(own('hidden_act'))!r} is not supported.",
            hint=f"Supported: {', '.join(_ACTIVATIONS)}.",
        )
    padding = read.config.get("pad_token_id")
    hidden, heads = read.integer(own("hidden_size")), read.integer(own("num_attention_heads"))
    if hidden % heads:
        raise InvalidModel(f"{own('hidden_size')} {hidden} is no multiple of {heads} heads.")
    return EncoderConfig(
        family=family,
        hidden=hidden,
        layers=read.integer(own("num_hidden_layers")),
        heads=heads,
        intermediate=read.integer(own("intermediate_size")),
        vocab_size=read.integer("vocab_size"),
        positions=read.integer("max_position_embeddings"),
        token_types=read.integer("type_vocab_size") if family.token_types else 0,
        padding_id=padding if isinstance(padding, int) else 0,
        relative_buckets=(
            read.integer("relative_attention_num_buckets") if family.relative_positions else 0
        ),
        norm_eps=read.number("layer_norm_eps", 1e-12),
        activation=activation,
        rerank=rerank,
    )


def scores_pairs(config: Mapping[str, object]) -> bool:
    """Whether a classifier is a cross-encoder: it has one label. Raises `InvalidModel`."""
    return _labels(config) == 1


def _labels(config: Mapping[str, object]) -> int:
    """As transformers counts them: two where the config does not say."""
    read = Reader(config)
    return read.integer("num_labels", len(read.section("id2label")) or 2)
