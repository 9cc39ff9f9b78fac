"""How a model of transformers takes a text on: from what it remembers of it, or all of it anew."""

from __future__ import annotations

import inspect

from torch import nn

MEMORIES = ("past_key_values", "cache_params", "state")
"""What a model remembers of a sequence, under the names that transformers' models use."""

COMPUTED_WHOLE = frozenset(
    {
        "OpenAIGPTLMHeadModel",  # remembers nothing
        "RecurrentGemmaForCausalLM",  # keeps its memory in itself, where sequences would mix
    }
)
"""Architectures that are given the whole text for each of its tokens."""

_WHOLE_TEXT_BESIDE_MEMORY = frozenset({"CpmAntForCausalLM"})


def takes_plain_text(architecture: str, model: nn.Module) -> bool:
    """Whether new tokens, and perhaps a memory, are all that the model is given to go on. Others
    want masks, languages or another model's states, which their `generate` makes for each token."""
    if architecture in _WHOLE_TEXT_BESIDE_MEMORY:
        return False
    accepted = inspect.signature(model.forward).parameters
    return architecture in COMPUTED_WHOLE or any(name in accepted for name in MEMORIES)


def takes_positions(model: nn.Module) -> bool:
    """Whether the model is to be told the positions of the tokens it is given, counted from 0. It
    may count them wrongly itself: not all memories, nor all of their layers, know their length."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    return not any(
        # RoBERTa and its like count from behind the position that padding has.
        name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        for name, module in model.named_modules()
    )
