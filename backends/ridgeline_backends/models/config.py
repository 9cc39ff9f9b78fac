"""What a decoder is, read from a Hugging Face config.

A setting that would change the arithmetic and that no code here honours is refused by name, never
ignored. Imports no torch, so that a planner can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.models.encoder_config import ENCODER_ARCHITECTURES
from ridgeline_backends.models.families import FAMILIES, Bias, Family, Windows
from ridgeline_backends.models.reader import Reader
from ridgeline_backends.models.rope_config import FULL, SLIDING, RopeConfig, read_ropes

DECODER_ARCHITECTURES = tuple(FAMILIES)

Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A decoder-only transformer with RMS norms, rotary positions and a gated MLP.

    `attention_scale`: a score is this times q.k, then capped softly at `attention_softcap`.
    `windows`, per layer: a query at position p sees the keys p - window + 1 to p, all before it if
    None. `layer_rope`: per layer, which of `ropes` turns the first `rotary_dim` numbers of a head.
    `sandwich_norms`: what attention and MLP give is normalised too. `zero_centred_norms`: the file
    holds norm weights less one.
    """

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
    eos_token_ids: frozenset[int]
    activation: Activation
    attention_scale: float
    embedding_scale: float
    attention_softcap: float | None
    final_softcap: float | None
    qk_norm: bool
    sandwich_norms: bool
    zero_centred_norms: bool
    qkv_bias: bool
    o_bias: bool
    windows: tuple[int | None, ...]
    ropes: tuple[RopeConfig, ...]
    layer_rope: tuple[int, ...]
    rotary_dim: int

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
    def projections(self) -> dict[str, tuple[str, int, int]]:
        """The parts of `linear_shapes` as checkpoints name them: matrix, own rows, columns."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": ("qkv", q, self.hidden),
            "k_proj": ("qkv", kv, self.hidden),
            "v_proj": ("qkv", kv, self.hidden),
            "o_proj": ("o", self.hidden, q),
            "gate_proj": ("gate_up", self.intermediate, self.hidden),
            "up_proj": ("gate_up", self.intermediate, self.hidden),
            "down_proj": ("down", self.hidden, self.intermediate),
        }

    def adapter_shapes(self, rank: int) -> dict[str, tuple[int, int, int]]:
        """Rows, columns and rank of what a LoRA adapter of that rank adds to each matrix of
        `linear_shapes`, if it adapts every part that is fused there."""
        parts = [target for target, _, _ in self.projections.values()]
        return {
            target: (rows, columns, rank * parts.count(target))
            for target, (rows, columns) in self.linear_shapes.items()
        }

    @property
    def vector_parameters(self) -> int:
        """Norm weights and biases of the whole model."""
        norms = (4 if self.sandwich_norms else 2) * self.hidden
        if self.qk_norm:
            norms += 2 * self.head_dim
        biases = self.linear_shapes["qkv"][0] if self.qkv_bias else 0
        biases += self.hidden if self.o_bias else 0
        return self.layers * (norms + biases) + self.hidden

    @property
    def parameters(self) -> int:
        """Counted once if the head is tied to the embedding."""
        matrices = sum(rows * columns for rows, columns in self.linear_shapes.values())
        embeddings = self.vocab_size * self.hidden * (1 if self.tied_head else 2)
        return self.layers * matrices + embeddings + self.vector_parameters


def architecture(config: Mapping[str, object]) -> str:
    """The architecture a config names. Raises `UnsupportedModel` with what is supported."""
    names = config.get("architectures")
    supported = DECODER_ARCHITECTURES + ENCODER_ARCHITECTURES
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


def decoder_config(
    config: Mapping[str, object], generation: Mapping[str, object] | None = None
) -> DecoderConfig:
    """Parse the config of any of `FAMILIES`; `generation` (generation_config.json) adds stop
    tokens. Raises `InvalidModel`, and `UnsupportedModel` for what would not be honoured."""
    family = FAMILIES[architecture(config)]
    settings = _settings(config, family)
    read = Reader(settings)
    _refuse_strange(read, family)
    heads = read.integer("num_attention_heads")
    kv_heads = read.integer("num_key_value_heads", heads)
    hidden = read.integer("hidden_size")
    layers = read.integer("num_hidden_layers")
    if heads % kv_heads:
        raise InvalidModel(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}."
        )
    head_dim = read.integer("head_dim", hidden // heads)
    context = read.integer("max_position_embeddings")
    ropes = read_ropes(
        settings,
        context,
        theta=family.theta,
        local_theta=family.local_theta,
        yarn_is_longrope=family.yarn_is_longrope,
        partial_rotary=family.partial_rotary,
    )
    rotary_dim = int(head_dim * ropes.rotary_share)
    for rope in (ropes.full, ropes.sliding):
        _check_rope(rope, rotary_dim)
    if ropes.full.kind == "yarn":
        # Some configs keep the context before the scaling, some write the one after it.
        context = max(context, int(ropes.full.factor * ropes.full.original_context))
    types = _layer_types(read, family, layers)
    window = read.integer("sliding_window") if SLIDING in types else None
    distinct = tuple(dict.fromkeys(ropes.sliding if t == SLIDING else ropes.full for t in types))
    return DecoderConfig(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=read.integer("intermediate_size"),
        vocab_size=read.integer("vocab_size"),
        context_length=context,
        norm_eps=read.number("rms_norm_eps", 1e-6),
        tied_head=read.flag("tie_word_embeddings", False),
        eos_token_ids=_eos(settings) | _eos(generation or {}),
        activation=_activation(read, family),
        attention_scale=(read.number("query_pre_attn_scalar") if family.query_scalar else head_dim)
        ** -0.5,
        embedding_scale=hidden**0.5 if family.scaled_embedding else 1.0,
        attention_softcap=read.optional_number("attn_logit_softcapping"),
        final_softcap=read.optional_number("final_logit_softcapping"),
        qk_norm=family.qk_norm,
        sandwich_norms=family.sandwich_norms,
        zero_centred_norms=family.zero_centred_norms,
        qkv_bias=family.bias is Bias.QKV or _biased(read, family),
        o_bias=_biased(read, family),
        windows=tuple(window if t == SLIDING else None for t in types),
        ropes=distinct,
        layer_rope=tuple(
            distinct.index(ropes.sliding if t == SLIDING else ropes.full) for t in types
        ),
        rotary_dim=rotary_dim,
    )


def _settings(config: Mapping[str, object], family: Family) -> dict[str, object]:
    """The language model's settings, with the family's defaults under them."""
    if not family.text_section:
        return {**family.defaults, **config}
    text = Reader(config).section("text_config")
    outer = {k: config[k] for k in ("tie_word_embeddings", "eos_token_id") if config.get(k)}
    quantised = {"quantization_config": config.get("quantization_config")}
    return {**family.defaults, **text, **outer, **quantised}


def _refuse_strange(read: Reader, family: Family) -> None:
    """Settings that transformers would honour, or that say the weights are of another kind."""
    for switch in ("mlp_bias", "use_bidirectional_attention", "rope_interleaved"):
        read.refuse_unless(switch, False)
    read.refuse_unless("quantization_config", None)
    if family.bias is Bias.NEVER:
        read.refuse_unless("attention_bias", False)
    if not family.attention_softcap:
        read.refuse_unless("attn_logit_softcapping", None)
    if not family.final_softcap:
        read.refuse_unless("final_logit_softcapping", None)


def _activation(read: Reader, family: Family) -> Activation:
    value = read.config.get(family.activation_key, next(iter(family.activations)))
    found = family.activations.get(value) if isinstance(value, str) else None
    if found == "silu":
        return "silu"
    if found == "gelu_tanh":
        return "gelu_tanh"
    raise UnsupportedModel(
        f"{family.activation_key} = {value!r} is not supported.",
        hint=f"Supported for this architecture: {', '.join(family.activations)}.",
    )


def _biased(read: Reader, family: Family) -> bool:
    return family.bias is Bias.AS_CONFIGURED and read.flag("attention_bias", False)


def _layer_types(read: Reader, family: Family, layers: int) -> tuple[str, ...]:
    given = read.config.get("layer_types")
    if given is not None and family.layer_types:
        return _given_types(given, family, layers)
    sliding: list[bool]
    if family.windows is Windows.NEVER:
        read.refuse_unless("sliding_window", None)
        sliding = [False] * layers
    elif read.config.get("sliding_window") is None:
        sliding = [False] * layers
    elif family.windows is Windows.ALL:
        sliding = [True] * layers
    elif family.windows is Windows.LATER:
        first = layers
        if read.flag("use_sliding_window", False):
            # 0 is a proper value here: all layers.
            first = (
                0
                if read.config.get("max_window_layers") == 0
                else read.integer("max_window_layers")
            )
        sliding = [index >= first for index in range(layers)]
    else:
        every = read.integer("sliding_window_pattern")
        sliding = [(index + 1) % every != 0 for index in range(layers)]
    return tuple(SLIDING if one else FULL for one in sliding)


def _given_types(given: object, family: Family, layers: int) -> tuple[str, ...]:
    if not isinstance(given, list) or len(given) != layers:
        raise InvalidModel(f"layer_types in config.json must list {layers} layers.")
    strange = next((one for one in given if one not in (FULL, SLIDING)), None)
    if strange is not None:
        raise UnsupportedModel(
            f"layer_types has {strange!r}, which is not supported.",
            hint=f"Supported: {FULL}, {SLIDING}.",
        )
    if family.windows is Windows.NEVER and SLIDING in given:
        raise UnsupportedModel("layer_types with windows are not supported for this architecture.")
    if family.windows is Windows.ALL and len(set(given)) > 1:
        raise UnsupportedModel("layer_types that differ are not supported for this architecture.")
    return tuple(given)


def _check_rope(rope: RopeConfig, rotary_dim: int) -> None:
    if rotary_dim % 2 or not rotary_dim:
        raise UnsupportedModel(
            f"head_dim with partial_rotary_factor gives {rotary_dim} rotary dimensions; "
            "rotary positions need pairs."
        )
    if rope.kind == "longrope":
        for name, factors in (("short", rope.short_factors), ("long", rope.long_factors)):
            if len(factors) != rotary_dim // 2:
                raise InvalidModel(
                    f"{name}_factor in config.json has {len(factors)} entries; "
                    f"{rotary_dim} rotary dimensions need {rotary_dim // 2}."
                )


def _eos(config: Mapping[str, object]) -> frozenset[int]:
    return Reader(config).token_ids("eos_token_id")
