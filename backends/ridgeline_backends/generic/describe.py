"""What transformers knows about a model from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.generic.passes import takes_plain_text
from ridgeline_backends.models.reader import check_counts

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
        text = parsed.get_text_config()
        vocab_size, kv_width = text.vocab_size, _kv_width(text)
    except Exception as error:  # hundreds of model classes read what came from outside
        raise InvalidModel(f"transformers cannot build {architecture}: {error}") from error
    if not takes_plain_text(architecture, model):
        raise UnsupportedModel(
            f"{architecture} needs more than the newest token to generate the next one, which is "
            "not supported."
        )
    context = getattr(text, "max_position_embeddings", None)
    return Description(
        architecture=architecture,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocab_size=vocab_size,
        context_length=context if isinstance(context, int) and context > 0 else UNBOUNDED_CONTEXT,
        kv_width=kv_width,
    )


def parse(config: Mapping[str, object]) -> PreTrainedConfig:
    """The config as transformers has it. Raises `InvalidModel`."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise InvalidModel("config.json names no model_type.")
    try:
        check_counts(config)
        settings = {key: _decoded(value) for key, value in config.items() if key != "model_type"}
        return AutoConfig.for_model(kind, **settings)
    except InvalidModel:
        raise
    except Exception as error:  # as above
        raise InvalidModel(f"transformers cannot read this config: {error}") from error


def _decoded(value: object) -> object:
    """As transformers does when it reads a file, where it writes infinity as an object."""
    if isinstance(value, Mapping):
        tagged = value.get("__float__")
        if tagged in ("Infinity", "-Infinity", "NaN"):
            return float(tagged)
        return {key: _decoded(one) for key, one in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value


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
    """Of all layers, which may differ where transformers keeps a config for each."""
    layers = int(text.num_hidden_layers)
    each = getattr(text, "per_layer_config", None)
    if each is None:
        return layers * _layer_kv_width(text)
    return sum(_layer_kv_width(each[layer]) for layer in range(layers))


def _layer_kv_width(layer: PreTrainedConfig) -> int:
    """By the settings that transformers calls alike everywhere; at worst a whole hidden state for
    keys and for values."""
    hidden = int(layer.hidden_size)
    heads = getattr(layer, "num_attention_heads", None)
    if not isinstance(heads, int):
        return 2 * hidden
    kv_heads = getattr(layer, "num_key_value_heads", None) or heads
    head_dim = getattr(layer, "head_dim", None) or hidden // heads
    return int(2 * kv_heads * head_dim)
