"""What transformers knows about a model from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ridgeline_backends.errors import InvalidModel, UnsupportedModel

UNBOUNDED_CONTEXT = 2048
"""Context length of a model that declares none (recurrent ones)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`kv_width`: numbers that one token adds to the memory of a sequence, at most."""

    architecture: str
    parameters: int
    vocab_size: int
    context_length: int
    kv_width: int


def describe(config: Mapping[str, object]) -> Description:
    """Raises `UnsupportedModel` for what transformers does not generate with, and `InvalidModel`
    for a config it cannot use."""
    architecture = _architecture(config)
    if config.get("quantization_config") is not None:
        raise UnsupportedModel(
            "quantization_config is not supported.",
            hint="Deploy the weights as they were before they were quantised.",
        )
    parsed = parse(config)
    try:
        # Shapes without memory.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(parsed)  # type: ignore[no-untyped-call]
    except Exception as error:  # hundreds of model classes read what came from outside
        raise InvalidModel(f"transformers cannot build {architecture}: {error}") from error
    text = parsed.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    return Description(
        architecture=architecture,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocab_size=text.vocab_size,
        context_length=context if isinstance(context, int) and context > 0 else UNBOUNDED_CONTEXT,
        kv_width=_kv_width(text),
    )


def parse(config: Mapping[str, object]) -> PreTrainedConfig:
    """The config as transformers has it. Raises `InvalidModel`."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise InvalidModel("config.json names no model_type.")
    settings = {key: value for key, value in config.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(kind, **settings)
    except Exception as error:  # as above
        raise InvalidModel(f"transformers cannot read this config: {error}") from error


def _architecture(config: Mapping[str, object]) -> str:
    """The one of the config's architectures that transformers generates text with."""
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    kind = config.get("model_type")
    generating = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    for name in names:
        if generating is not None and name in generating:
            return name
    raise UnsupportedModel(
        "The installed transformers does not generate text with "
        f"{', '.join(names) or 'a model without architectures'} (model_type {kind!r}) either.",
        hint="Code that comes with a model is never run.",
    )


def _kv_width(text: PreTrainedConfig) -> int:
    """By the settings that transformers calls alike everywhere; at worst a whole hidden state for
    keys and for values in every layer."""
    layers, hidden = int(text.num_hidden_layers), int(text.hidden_size)
    heads = getattr(text, "num_attention_heads", None)
    if not isinstance(heads, int):
        return 2 * layers * hidden
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or hidden // heads
    return int(2 * layers * kv_heads * head_dim)
