"""Parameter counts of every family, against transformers' own models without their memory."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from ridgeline_zoo.errors import CannotConvert
from ridgeline_zoo.families import ENCODERS, FAMILIES, context_length, parameter_count

SMALL = {
    "vocab_size": 300,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 72,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DISTIL = {"dim": 48, "n_layers": 3, "n_heads": 6, "hidden_dim": 72}
CHANGES: list[tuple[str, dict[str, object]]] = [
    *((family, {}) for family in FAMILIES if family != "gemma3"),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", {"head_dim": 20}),
    ("mistral", {"sliding_window": 16}),
    ("qwen3", {"attention_bias": True}),
    ("gemma2", {"tie_word_embeddings": False}),
]


def settings(family: str) -> dict[str, object]:
    return {**SMALL, **(DISTIL if family == "distilbert" else {})}


@pytest.mark.parametrize(("family", "changes"), CHANGES)
def test_the_count_is_that_of_transformers(family: str, changes: dict[str, object]) -> None:
    config = AutoConfig.for_model(family, **settings(family) | changes)
    kind = AutoModel if family in ENCODERS else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    counted = parameter_count({**config.to_dict(), "architectures": [type(model).__name__]})
    assert counted == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", ENCODERS)
def test_a_model_for_pairs_has_a_head(family: str) -> None:
    config = AutoConfig.for_model(family, num_labels=1, **settings(family))
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    counted = parameter_count({**config.to_dict(), "architectures": [type(model).__name__]})
    assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_of_a_model_with_images_the_language_model_counts() -> None:
    text = {**SMALL, "head_dim": 8}
    alone = parameter_count({"model_type": "gemma3_text", **text})
    assert parameter_count({"model_type": "gemma3", "text_config": text}) == alone


@pytest.mark.parametrize("config", [{"model_type": "gpt5"}, {"model_type": "gemma3"}, {}])
def test_what_cannot_be_counted_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(CannotConvert):
        parameter_count(config)  # type: ignore[arg-type]


def test_the_context_length_is_found_where_the_family_keeps_it() -> None:
    assert context_length({"model_type": "llama", "max_position_embeddings": 64}) == 64
    inner = {"model_type": "gemma3", "text_config": {"max_position_embeddings": 32}}
    assert context_length(inner) == 32  # type: ignore[arg-type]
    assert context_length({"model_type": "gemma3", "text_config": {}}) == 131_072
    assert context_length({"model_type": "llama"}) is None
