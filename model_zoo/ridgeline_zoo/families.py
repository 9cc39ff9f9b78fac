"""Parameter counts of the model families the engines run, from a Hugging Face configuration.

Pure arithmetic, so that a card's figures can be recomputed without weights. Knows no dtype
beyond its width and nothing of activations or KV memory: that is a backend's plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def _llama(config: Mapping[str, Json]) -> int:
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise CannotConvert("biases in attention or MLP are not supported for Llama models")
    if config.get("sliding_window") is not None:
        raise CannotConvert(
            f"sliding-window attention (sliding_window={config['sliding_window']}) is not supported"
        )
    hidden = _size(config, "hidden_size")
    heads = _size(config, "num_attention_heads")
    kv_heads = _size(config, "num_key_value_heads", heads)
    head_dim = _size(config, "head_dim", hidden // heads)
    vocabulary = _size(config, "vocab_size")
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    mlp = 3 * hidden * _size(config, "intermediate_size")
    layer = attention + mlp + 2 * hidden
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return embeddings + _size(config, "num_hidden_layers") * layer + hidden


def _bert(config: Mapping[str, Json]) -> int:
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise CannotConvert("only absolute position embeddings are supported for BERT encoders")
    hidden = _size(config, "hidden_size")
    intermediate = _size(config, "intermediate_size")
    rows = (
        _size(config, "vocab_size")
        + _size(config, "max_position_embeddings")
        + _size(config, "type_vocab_size", 2)
    )
    norm = 2 * hidden
    square = hidden * hidden + hidden
    layer = 4 * square + 2 * norm + 2 * hidden * intermediate + intermediate + hidden
    pooler = square
    return rows * hidden + norm + _size(config, "num_hidden_layers") * layer + pooler


FAMILIES: Mapping[str, Callable[[Mapping[str, Json]], int]] = {
    "llama": _llama,
    "mistral": _llama,
    "bert": _bert,
}


def _size(config: Mapping[str, Json], name: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CannotConvert(f"the configuration's {name} must be a positive number, not {value!r}")
    return value
