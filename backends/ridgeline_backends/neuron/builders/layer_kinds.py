"""Which layers of a decoder are of which kind, by its config.json: what mixes the tokens, and
whether experts do the rest. Configs list the layers, or give a rule for them. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.models.reader import Reader

FULL = ("full_attention", "attention", "global")
RECURRENT = ("mamba", "mamba2", "linear_attention", "recurrent", "conv")
"""Layers whose work does not grow with the context."""

_LISTS = ("layer_types", "layers_block_type")
_DENSE_FIRST = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
_STEPS = ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval")

NAMES = {
    *(*_LISTS, *_DENSE_FIRST, *_STEPS), "block_types", "attn_type_list", "attn_layer_indices",
    "attn_layer_period", "attn_layer_offset", "full_attention_interval", "mlp_layer_types",
    "moe_layers", "moe_layer_end_index", "mlp_only_layers", "moe_layer_freq",
    "expert_layer_period", "expert_layer_offset",
}  # fmt: skip
"""Settings that are read here, as far as those before them leave something open."""


def mixer_kind(config: Mapping[str, object], index: int) -> str:
    """As transformers names it in `layer_types`. Raises `UnsupportedModel` for one that is not
    known."""
    kind = _mixer_kind(config, index)
    if kind not in RECURRENT and kind not in ("global", "local") and "attention" not in kind:
        raise UnsupportedModel(f"Layers of kind {kind!r} in config.json are not modelled.")
    return kind


def _mixer_kind(config: Mapping[str, object], index: int) -> str:
    for name in _LISTS:
        given = _listed(config, name)
        if index < len(given):
            return str(given[index])
    pattern = _listed(config, "block_types")
    if pattern:
        return str(pattern[index % len(pattern)])
    choices = _listed(config, "attn_type_list")
    if index < len(choices):
        return "full_attention" if choices[index] else "linear_attention"
    chosen = _listed(config, "attn_layer_indices")
    if chosen:
        return "full_attention" if index in chosen else "mamba"
    period = _count(config, "attn_layer_period")
    if period:
        own = index % period == _count(config, "attn_layer_offset")
        return "full_attention" if own else "mamba"
    every = _count(config, "full_attention_interval")
    if every and (index + 1) % every:
        return "linear_attention"
    windowed = Reader(config).flag(
        "use_sliding_window", config.get("model_type") in ("mistral", "starcoder2")
    )
    return "sliding_attention" if config.get("sliding_window") and windowed else "full_attention"


def is_sparse(config: Mapping[str, object], index: int) -> bool:
    """Whether the layer's experts are chosen, in a model that has some."""
    kinds = _listed(config, "mlp_layer_types")
    if index < len(kinds):
        return kinds[index] != "dense"
    sparse = _listed(config, "moe_layers")
    if sparse:
        return index in sparse
    if any(index < _count(config, name) for name in _DENSE_FIRST):
        return False
    last = config.get("moe_layer_end_index")
    if isinstance(last, int) and 0 <= last < index:
        return False
    if index in _listed(config, "mlp_only_layers"):
        return False
    own = _listed(config, "moe_layer_freq")
    if index < len(own):
        return bool(own[index])
    period = _count(config, "expert_layer_period")
    if period:
        return index % period == _count(config, "expert_layer_offset")
    if not own and index % (_count(config, "moe_layer_freq") or 1):
        return False
    return all((index + 1) % (_count(config, name) or 1) == 0 for name in _STEPS)


def _listed(config: Mapping[str, object], name: str) -> Sequence[object]:
    value = config.get(name)
    return value if isinstance(value, list) else ()


def _count(config: Mapping[str, object], name: str) -> int:
    """0 where it says nothing."""
    return Reader(config).integer(name) if config.get(name) else 0
