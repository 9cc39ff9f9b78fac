"""What the families' configs mean: windows, rotary positions, defaults, and what is refused."""

from __future__ import annotations

import math

import pytest

from ridgeline_backends.base import LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.errors import InvalidModel, UnsupportedModel
from ridgeline_backends.models.config import DecoderConfig, decoder_config
from ridgeline_backends.models.rope import rope_tables

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 1024,
}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def config(architecture: str, **changes: object) -> DecoderConfig:
    return decoder_config({**SMALL, "architectures": [architecture], **changes})


@pytest.mark.parametrize(
    ("architecture", "changes", "windows"),
    [
        ("LlamaForCausalLM", {}, [None] * 6),
        ("MistralForCausalLM", {"sliding_window": 8, "num_key_value_heads": 2}, [8] * 6),
        ("MistralForCausalLM", {"sliding_window": None, "num_key_value_heads": 2}, [None] * 6),
        ("Qwen2ForCausalLM", {"sliding_window": 8, "max_window_layers": 2}, [None] * 6),
        (
            "Qwen2ForCausalLM",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 4},
            [None] * 4 + [8] * 2,
        ),
        (
            "Qwen3ForCausalLM",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
            [8] * 6,
        ),
        ("Gemma2ForCausalLM", {"sliding_window": 8}, [8, None] * 3),
        ("Gemma3ForCausalLM", {"sliding_window": 8}, [8] * 5 + [None]),
        (
            "Gemma3ForCausalLM",
            {"sliding_window": 8, "layer_types": ["full_attention"] * 5 + ["sliding_attention"]},
            [None] * 5 + [8],
        ),
    ],
)
def test_windows_follow_the_family(
    architecture: str, changes: dict[str, object], windows: list[int | None]
):
    assert list(config(architecture, **changes).windows) == windows


def test_gemma_3_turns_sliding_layers_by_a_rope_of_their_own():
    scaling = {"rope_type": "linear", "factor": 8.0}
    older = config("Gemma3ForCausalLM", rope_scaling=scaling, rope_theta=1e6)
    newer = config(
        "Gemma3ForCausalLM",
        rope_parameters={
            "full_attention": {**scaling, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    assert older == newer
    sliding, full = (older.ropes[older.layer_rope[layer]] for layer in (0, 5))
    assert (sliding.kind, sliding.theta) == ("default", 1e4)
    assert (full.kind, full.theta, full.factor) == ("linear", 1e6, 8.0)


def test_published_gemma_3_leaves_out_what_transformers_fills_in():
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    found = decoder_config(
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "eos_token_id": [1, 106],
            "text_config": text,
        }
    )
    assert found.parameters == 3_880_263_168
    assert found.context_length == 131_072
    assert found.eos_token_ids == {1, 106}
    assert found.embedding_scale == pytest.approx(math.sqrt(2560))
    assert found.windows.count(None) == 5


def test_dynamic_scaling_changes_nothing_within_the_context():
    scaling = {"rope_type": "dynamic", "factor": 4.0}
    assert config("LlamaForCausalLM", rope_scaling=scaling) == config("LlamaForCausalLM")


def test_yarn_stretches_the_context():
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    found = config("Qwen2ForCausalLM", rope_scaling=scaling)
    assert found.context_length == 4096
    assert found.ropes[0].attention_factor == pytest.approx(0.1 * math.log(4) + 1)


def test_longrope_reads_all_texts_by_the_factors_of_the_length_that_is_served():
    changes = {"rope_scaling": LONGROPE, "original_max_position_embeddings": 256}
    rope = config("Phi3ForCausalLM", **changes).ropes[0]
    short, long = rope_tables(rope, 16, 256)[0], rope_tables(rope, 16, 257)[0]
    scale = rope.attention_factor
    assert scale == pytest.approx(math.sqrt(1 + math.log(4) / math.log(256)))
    assert float(short[1, 0]) == pytest.approx(scale * math.cos(1))
    assert float(long[1, 0]) == pytest.approx(scale * math.cos(1 / 2))
    model = {**SMALL, "architectures": ["Phi3ForCausalLM"], **changes}
    plan = CpuBackend().plan(model, LoadSpec(dtype="fp32"))
    assert any("256" in note for note in plan.notes)
    assert not CpuBackend().plan(model, LoadSpec(dtype="fp32", max_model_len=256)).notes


def test_the_first_names_of_longrope_are_known():
    for name in ("su", "yarn"):
        scaling = {**LONGROPE, "rope_type": name}
        assert config("Phi3ForCausalLM", rope_scaling=scaling).ropes[0].kind == "longrope"


@pytest.mark.parametrize(
    ("architecture", "changes", "named"),
    [
        ("Gemma2ForCausalLM", {"hidden_activation": "relu"}, "hidden_activation"),
        ("Gemma3ForCausalLM", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("Gemma3ForCausalLM", {"use_bidirectional_attention": True}, "use_bidirectional"),
        ("Phi3ForCausalLM", {"attention_bias": True}, "attention_bias"),
        ("Qwen3ForCausalLM", {"layer_types": ["chunked_attention"] * 6}, "chunked_attention"),
        ("LlamaForCausalLM", {"layer_types": ["sliding_attention"] * 6}, "layer_types"),
        ("Phi3ForCausalLM", {"partial_rotary_factor": 0.3, "head_dim": 10}, "rotary"),
        ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "default", "mrope": [1]}}, "mrope"),
        ("Qwen3ForCausalLM", {"rope_parameters": {"full_attention": {}}}, "full_attention"),
        ("Gemma3ForCausalLM", {"rope_parameters": {"rope_type": "default"}}, "rope_type"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    architecture: str, changes: dict[str, object], named: str
):
    with pytest.raises(UnsupportedModel, match=named):
        config(architecture, **changes)


@pytest.mark.parametrize(
    ("architecture", "changes", "named"),
    [
        ("Phi3ForCausalLM", {"rope_scaling": {**LONGROPE, "long_factor": [1.0] * 7}}, "long_f"),
        ("Phi3ForCausalLM", {"rope_scaling": {**LONGROPE, "short_factor": "x"}}, "short_factor"),
        ("Phi3ForCausalLM", {"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        (
            "LlamaForCausalLM",
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5},
            "partial_rotary_factor",
        ),
        ("Qwen2ForCausalLM", {"layer_types": ["full_attention"]}, "6 layers"),
        ("Qwen2ForCausalLM", {"use_sliding_window": "yes"}, "use_sliding_window"),
        ("LlamaForCausalLM", {"num_key_value_heads": 3}, "num_key_value_heads"),
        ("LlamaForCausalLM", {"rope_scaling": "yarn"}, "rope_scaling"),
        ("Gemma3ForConditionalGeneration", {"text_config": 3}, "text_config"),
    ],
)
def test_what_makes_no_sense_is_named(architecture: str, changes: dict[str, object], named: str):
    with pytest.raises(InvalidModel, match=named):
        config(architecture, **changes)
