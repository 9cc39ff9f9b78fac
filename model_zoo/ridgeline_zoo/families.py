"""Parameter counts of the model families the engines run, from a Hugging Face configuration.

Pure arithmetic, so that a card's figures can be recomputed without weights. Knows no dtype
beyond its width and nothing of activations or KV memory: that is a backend's plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ridgeline_zoo.card import BYTES_PER_PARAMETER, Json
from ridgeline_zoo.errors import CannotConvert


def parameter_count(config: Mapping[str, Json]) -> int:
    """Number of weights of a model with this configuration.

    Raises CannotConvert if the family is unknown, or if the configuration lacks a size or asks
    for something that the family's engine does not run.
    """
    model_type = config.get("model_type")
    counter = FAMILIES.get(str(model_type))
    if counter is None:
        raise CannotConvert(
            f"model_type {model_type!r} is not a family that the engines run",
            hint=f"Known: {', '.join(sorted(FAMILIES))}.",
        )
    return counter(config)


def weight_memory(parameters: int) -> dict[str, int]:
    """Bytes of the weights per dtype."""
    return {dtype: parameters * width for dtype, width in BYTES_PER_PARAMETER.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoder:
    """What tells a family of decoders from Llama, as far as weights go. `text_section`: where the
    language model's settings are, in families with other parts."""

    qkv_bias: bool = False
    qk_norm: bool = False
    norms: int = 2
    tied: bool = False
    head_dim: int | None = None
    text_section: str = ""
    defaults: Mapping[str, Json] = field(default_factory=dict)

    def __call__(self, config: Mapping[str, Json]) -> int:
        section = config.get(self.text_section) if self.text_section else config
        if not isinstance(section, Mapping):
            raise CannotConvert(f"the configuration has no {self.text_section}")
        given = {key: value for key, value in section.items() if value is not None}
        own: Mapping[str, Json] = {**self.defaults, **given}
        hidden, inner = _size(own, "hidden_size"), _size(own, "intermediate_size")
        heads = _size(own, "num_attention_heads")
        kv_heads = _size(own, "num_key_value_heads", heads)
        head_dim = _size(own, "head_dim", self.head_dim or hidden // heads)
        rows = (heads + 2 * kv_heads) * head_dim
        layer = rows * hidden + hidden * heads * head_dim + 3 * hidden * inner
        layer += self.norms * hidden + (2 * head_dim if self.qk_norm else 0)
        if own.get("attention_bias"):
            layer += rows + hidden
        elif self.qkv_bias:
            layer += rows
        if own.get("mlp_bias"):
            layer += 2 * inner + hidden
        tables = 1 if own.get("tie_word_embeddings", self.tied) else 2
        embeddings = _size(own, "vocab_size") * hidden * tables
        return embeddings + _size(own, "num_hidden_layers") * layer + hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoder:
    """What tells a family of encoders from BERT. `names`: its own words for BERT's settings."""

    names: Mapping[str, str] = field(default_factory=dict)
    token_types: bool = True
    pooler: bool = True
    relative: bool = False

    def __call__(self, config: Mapping[str, Json]) -> int:
        def size(name: str, default: int | None = None) -> int:
            return _size(config, self.names.get(name, name), default)

        if config.get("position_embedding_type", "absolute") != "absolute":
            raise CannotConvert("only absolute position embeddings are supported for encoders")
        hidden, inner = size("hidden_size"), size("intermediate_size")
        rows = size("vocab_size") + size("max_position_embeddings")
        rows += size("type_vocab_size", 2) if self.token_types else 0
        norm, square = 2 * hidden, hidden * hidden + hidden
        layer = 4 * square + 2 * norm + 2 * hidden * inner + inner + hidden
        total = rows * hidden + norm + size("num_hidden_layers") * layer
        if self.relative:
            buckets = size("relative_attention_num_buckets", 32)
            total += buckets * size("num_attention_heads")
        if ranks(config):
            # A square layer and one number: in BERT the pooler is the first of the two.
            return total + square + hidden + 1
        return total + (square if self.pooler else 0)


def context_length(config: Mapping[str, Json]) -> int | None:
    """The most tokens of a sequence, or None where the configuration does not say."""
    section = config.get("text_config")
    found = (section if isinstance(section, Mapping) else config).get("max_position_embeddings")
    if found is None and config.get("model_type") == "gemma3":
        found = 131_072  # left out of published configs
    return found if isinstance(found, int) else None


def ranks(config: Mapping[str, Json]) -> bool:
    """Whether the model scores pairs of texts."""
    names = config.get("architectures")
    return isinstance(names, list) and any(
        isinstance(name, str) and name.endswith("ForSequenceClassification") for name in names
    )


_GEMMA_3 = _Decoder(
    qk_norm=True,
    norms=4,
    tied=True,
    head_dim=256,
    # What published configs leave out.
    defaults={"vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4},
)

ENCODERS: Mapping[str, Callable[[Mapping[str, Json]], int]] = {
    "bert": _Encoder(),
    "roberta": _Encoder(),
    "xlm-roberta": _Encoder(),
    "mpnet": _Encoder(token_types=False, relative=True),
    "distilbert": _Encoder(
        names={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
        },
        token_types=False,
        pooler=False,
    ),
}
FAMILIES: Mapping[str, Callable[[Mapping[str, Json]], int]] = {
    "llama": _Decoder(),
    "mistral": _Decoder(),
    "qwen2": _Decoder(qkv_bias=True),
    "qwen3": _Decoder(qk_norm=True, head_dim=128),
    "gemma": _Decoder(tied=True, head_dim=256),
    "gemma2": _Decoder(norms=4, tied=True, head_dim=256),
    "gemma3_text": _GEMMA_3,
    "gemma3": replace(_GEMMA_3, text_section="text_config"),
    "phi3": _Decoder(),
    **ENCODERS,
}


def _size(config: Mapping[str, Json], name: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CannotConvert(f"the configuration's {name} must be a positive number, not {value!r}")
    return value
