"""What an encoder is, read from a Hugging Face config. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline_backends.models.reader import Reader

ENCODER_ARCHITECTURES = ("BertModel",)


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig:
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocab_size: int
    context_length: int
    type_vocab_size: int
    norm_eps: float

    @property
    def parameters(self) -> int:
        per_layer = 4 * self.hidden * (self.hidden + 1) + 4 * self.hidden
        per_layer += 2 * self.hidden * self.intermediate + self.intermediate + self.hidden
        tables = self.vocab_size + self.context_length + self.type_vocab_size
        return self.layers * per_layer + (tables + 2) * self.hidden


def bert_config(config: Mapping[str, object]) -> BertConfig:
    read = Reader(config)
    read.refuse_unless("hidden_act", "gelu")
    read.refuse_unless("position_embedding_type", "absolute")
    read.refuse_unless("quantization_config", None)
    read.refuse_unless("is_decoder", False)
    return BertConfig(
        hidden=read.integer("hidden_size"),
        layers=read.integer("num_hidden_layers"),
        heads=read.integer("num_attention_heads"),
        intermediate=read.integer("intermediate_size"),
        vocab_size=read.integer("vocab_size"),
        context_length=read.integer("max_position_embeddings"),
        type_vocab_size=read.integer("type_vocab_size", 2),
        norm_eps=read.number("layer_norm_eps", 1e-12),
    )
