"""Reading Hugging Face configurations into small types, with errors that name the setting.

A setting that would change the arithmetic and that no code here honours is refused, never ignored.
Imports no torch, so that a planner can use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ridgeline_backends.errors import InvalidModel, UnsupportedModel

LLAMA_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
BERT_ARCHITECTURES = ("BertModel",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary positions: `theta`, and the "llama3" or "linear" rescaling if `kind` says so."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab_size: int
    context_length: int
    norm_eps: float
    tied_head: bool
    rope: RopeConfig
    eos_token_ids: frozenset[int]

    @property
    def head_groups(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """[out, in] of the matrices of one layer, as they are fused here."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        return {
            "qkv": (qkv, self.hidden),
            "o": (self.hidden, self.heads * self.head_dim),
            "gate_up": (2 * self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
        }

    @property
    def parameters(self) -> int:
        """Counted once if the head is tied to the embedding."""
        matrices = sum(rows * columns for rows, columns in self.linear_shapes.values())
        embeddings = self.vocab_size * self.hidden * (1 if self.tied_head else 2)
        return self.layers * (matrices + 2 * self.hidden) + embeddings + self.hidden


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


def architecture(config: Mapping[str, object]) -> str:
    """The architecture a config names. Raises `UnsupportedModel` with what is supported."""
    names = config.get("architectures")
    supported = LLAMA_ARCHITECTURES + BERT_ARCHITECTURES
    found = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if not found:
        raise InvalidModel(
            "config.json names no architecture.",
            hint=f'It needs "architectures", one of: {", ".join(supported)}.',
        )
    for name in found:
        if name in supported:
            return name
    raise UnsupportedModel(
        f"Architecture {found[0]!r} is not supported.", hint=f"Supported: {', '.join(supported)}."
    )


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file of a model directory. Raises `InvalidModel`."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InvalidModel(
            f"{path.name} is missing from the model directory.",
            hint="It must be in Hugging Face format.",
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise InvalidModel(f"{path.name} must hold a JSON object.")
    return value


def llama_config(
    config: Mapping[str, object], generation: Mapping[str, object] | None = None
) -> LlamaConfig:
    """Parse a Llama or Mistral config; `generation` (generation_config.json) adds stop tokens."""
    read = _Reader(config)
    read.refuse_unless("hidden_act", "silu")
    for switch in ("attention_bias", "mlp_bias"):
        read.refuse_unless(switch, False)
    read.refuse_unless("quantization_config", None)
    heads = read.integer("num_attention_heads")
    kv_heads = read.integer("num_key_value_heads", heads)
    hidden = read.integer("hidden_size")
    if heads % kv_heads:
        raise InvalidModel(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}."
        )
    context = read.integer("max_position_embeddings")
    if config.get("sliding_window") is not None:
        # Inside one window a sliding window changes nothing.
        context = min(context, read.integer("sliding_window"))
    head_dim = hidden // heads if config.get("head_dim") is None else read.integer("head_dim")
    if head_dim % 2:
        raise UnsupportedModel(f"head_dim {head_dim} is odd; rotary positions need pairs.")
    eos = _token_ids(config) | _token_ids(generation or {})
    return LlamaConfig(
        hidden=hidden,
        layers=read.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=read.integer("intermediate_size"),
        vocab_size=read.integer("vocab_size"),
        context_length=context,
        norm_eps=read.number("rms_norm_eps", 1e-6),
        tied_head=bool(config.get("tie_word_embeddings", False)),
        rope=_rope(config, context),
        eos_token_ids=eos,
    )


def bert_config(config: Mapping[str, object]) -> BertConfig:
    read = _Reader(config)
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


@dataclass(frozen=True, slots=True)
class _Reader:
    config: Mapping[str, object]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidModel(f"{key} in config.json must be a positive integer, not {value!r}.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.config.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InvalidModel(f"{key} in config.json must be a positive number, not {value!r}.")
        return float(value)

    def refuse_unless(self, key: str, only: object) -> None:
        value = self.config.get(key, only)
        if value != only and value is not None:
            raise UnsupportedModel(f"{key} = {value!r} is not supported; only {only!r} is.")


def _rope(config: Mapping[str, object], context: int) -> RopeConfig:
    # transformers 5 writes everything into rope_parameters, earlier ones into two keys.
    scaling: object = config.get("rope_parameters")
    if scaling is None:
        scaling = config.get("rope_scaling")
    if scaling is None:
        scaling = {}
    if not isinstance(scaling, Mapping):
        raise InvalidModel(f"rope_scaling in config.json must be an object, not {scaling!r}.")
    merged = {"rope_theta": config.get("rope_theta"), **scaling}
    read = _Reader(merged)
    theta = read.number("rope_theta", 10000.0)
    kind = merged.get("rope_type", merged.get("type", "default"))
    _Reader({**config, **scaling}).refuse_unless("partial_rotary_factor", 1.0)
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, kind="linear", factor=read.number("factor"))
    if kind == "llama3":
        return RopeConfig(
            theta=theta,
            kind="llama3",
            factor=read.number("factor"),
            low_freq_factor=read.number("low_freq_factor"),
            high_freq_factor=read.number("high_freq_factor"),
            original_context=read.integer("original_max_position_embeddings", context),
        )
    raise UnsupportedModel(
        f"rope_type {kind!r} is not supported.", hint="Supported: default, linear, llama3."
    )


def _token_ids(config: Mapping[str, object]) -> frozenset[int]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return frozenset(v for v in values if isinstance(v, int) and not isinstance(v, bool))
