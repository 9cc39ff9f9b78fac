"""The decoder families as data: how each one differs from Llama, and what its config may omit.

Imports no torch. A family that differs in arithmetic that `DecoderConfig` has no word for does not
belong here: it runs on the generic path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto


class Windows(Enum):
    """Which layers look at a sliding window only, where the config lists no `layer_types`."""

    NEVER = auto()
    ALL = auto()
    """All, if `sliding_window` is set."""
    LATER = auto()
    """Those from `max_window_layers` on, if `use_sliding_window` (Qwen)."""
    PATTERN = auto()
    """All but each `sliding_window_pattern`-th (Gemma)."""


class Bias(Enum):
    """Where the attention's projections add a bias."""

    NEVER = auto()
    QKV = auto()
    AS_CONFIGURED = auto()
    """Everywhere or nowhere, by `attention_bias`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`defaults`: settings that published configs leave out, as transformers fills them in.
    `layer_types`: the setting of that name is honoured. `partial_rotary`: so is
    `partial_rotary_factor`. `zero_centred_norms`: norms multiply by 1 + weight. `query_scalar`:
    attention scores are divided by the root of `query_pre_attn_scalar`, not of the head size.
    `text_section`: the language model's settings are in `text_config`."""

    windows: Windows = Windows.NEVER
    layer_types: bool = True
    bias: Bias = Bias.NEVER
    activations: Mapping[str, str] = field(default_factory=lambda: {"silu": "silu"})
    activation_key: str = "hidden_act"
    qk_norm: bool = False
    sandwich_norms: bool = False
    zero_centred_norms: bool = False
    scaled_embedding: bool = False
    query_scalar: bool = False
    attention_softcap: bool = False
    final_softcap: bool = False
    local_theta: float | None = None
    theta: float = 10000.0
    yarn_is_longrope: bool = False
    partial_rotary: bool = False
    text_section: bool = False
    defaults: Mapping[str, object] = field(default_factory=dict)


_TANH = {"gelu_pytorch_tanh": "gelu_tanh"}

_GEMMA_3 = Family(
    windows=Windows.PATTERN,
    bias=Bias.AS_CONFIGURED,
    activations=_TANH,
    activation_key="hidden_activation",
    qk_norm=True,
    sandwich_norms=True,
    zero_centred_norms=True,
    scaled_embedding=True,
    query_scalar=True,
    final_softcap=True,
    theta=1_000_000.0,
    local_theta=10_000.0,
    defaults={
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "eos_token_id": 1,
    },
)
FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family(bias=Bias.AS_CONFIGURED),
    "MistralForCausalLM": Family(
        windows=Windows.ALL, defaults={"num_key_value_heads": 8, "sliding_window": 4096}
    ),
    "Qwen2ForCausalLM": Family(
        windows=Windows.LATER,
        bias=Bias.QKV,
        defaults={"sliding_window": 4096, "max_window_layers": 28},
    ),
    "Qwen3ForCausalLM": Family(
        windows=Windows.LATER,
        bias=Bias.AS_CONFIGURED,
        qk_norm=True,
        defaults={"head_dim": 128, "sliding_window": 4096, "max_window_layers": 28},
    ),
    "GemmaForCausalLM": Family(
        bias=Bias.AS_CONFIGURED,
        # The first releases wrote "gelu" and meant its tanh form.
        activations={**_TANH, "gelu": "gelu_tanh"},
        zero_centred_norms=True,
        scaled_embedding=True,
        defaults={
            "hidden_act": "gelu_pytorch_tanh",
            "head_dim": 256,
            "tie_word_embeddings": True,
            "eos_token_id": 1,
        },
    ),
    "Gemma2ForCausalLM": Family(
        windows=Windows.PATTERN,
        bias=Bias.AS_CONFIGURED,
        activations=_TANH,
        activation_key="hidden_activation",
        sandwich_norms=True,
        zero_centred_norms=True,
        scaled_embedding=True,
        query_scalar=True,
        attention_softcap=True,
        final_softcap=True,
        defaults={
            "hidden_activation": "gelu_pytorch_tanh",
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "sliding_window_pattern": 2,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
            "eos_token_id": 1,
        },
    ),
    "Gemma3ForCausalLM": _GEMMA_3,
    "Gemma3ForConditionalGeneration": replace(_GEMMA_3, text_section=True),
    "Phi3ForCausalLM": Family(
        windows=Windows.ALL,
        layer_types=False,
        yarn_is_longrope=True,
        partial_rotary=True,
        defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
    ),
}
