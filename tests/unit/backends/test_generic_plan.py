"""Which models the generic path takes, what it promises, and what it refuses."""

from __future__ import annotations

import json
import sys

import pytest
from transformers import Mamba2Config

from ridgeline_backends.base import LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.errors import InvalidModel, UnsupportedModel

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 100,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
}
# Embeddings; per layer two norms, qkv, output, the MLP's two matrices; the last norm.
GPT2_PARAMETERS = (100 + 128) * 32 + 2 * (2 * 64 + 33 * 96 + 33 * 32 + 33 * 128 + 129 * 32) + 64


def test_an_architecture_of_transformers_is_planned_and_says_that_it_is_slower():
    plan = CpuBackend().plan(GPT2, LoadSpec(dtype="fp32", max_num_seqs=3))
    assert plan.fits
    assert plan.generic
    assert plan.max_model_len == 128
    assert plan.kv_blocks == 3
    assert plan.memory.weights == GPT2_PARAMETERS * 4
    assert plan.memory.kv == 3 * 128 * 2 * 2 * 32 * 4
    assert "GPT2LMHeadModel" in plan.notes[0]
    assert "slower" in plan.notes[0]


def test_what_does_not_fit_is_refused_with_reasons():
    long = CpuBackend().plan(GPT2, LoadSpec(max_model_len=129))
    assert "128" in long.refusals[0]
    tight = CpuBackend().plan(GPT2, LoadSpec(kv_cache_bytes=1000))
    assert "KV memory" in tight.refusals[0]


def test_a_setting_that_no_code_of_ours_honours_leads_here():
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    assert not CpuBackend().plan(config, LoadSpec()).generic
    plan = CpuBackend().plan({**config, "mlp_bias": True}, LoadSpec())
    assert plan.generic
    assert "mlp_bias" in plan.notes[0]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["NoSuchForCausalLM"], "model_type": "no-such"}, "NoSuchForCausalLM"),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "T5"),
        ({**GPT2, "quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
)
def test_what_transformers_cannot_run_either_is_refused(config: dict[str, object], named: str):
    with pytest.raises(UnsupportedModel) as caught:
        CpuBackend().plan(config, LoadSpec())
    assert named in str(caught.value)


def test_code_that_comes_with_a_model_is_never_run():
    config = {
        "architectures": ["OwnForCausalLM"],
        "model_type": "own",
        "auto_map": {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"},
    }
    with pytest.raises(UnsupportedModel, match="never run"):
        CpuBackend().plan(config, LoadSpec())


def test_a_config_that_transformers_cannot_use_is_named():
    with pytest.raises(InvalidModel, match="transformers cannot"):
        CpuBackend().plan({**GPT2, "n_layer": "many"}, LoadSpec())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_layer": 10**15}, "n_layer"),
        ({"num_labels": 10**15}, "num_labels"),
        ({"text_config": {"num_local_experts": 10**15}}, "num_local_experts"),
    ],
)
def test_a_config_that_would_be_built_without_end_is_refused(
    changes: dict[str, object], named: str
):
    with pytest.raises(InvalidModel, match=f"{named} in config.json is 1000000000000000; at most"):
        CpuBackend().plan({**GPT2, **changes}, LoadSpec())


def test_a_config_nested_without_end_is_refused():
    nested: list[object] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(InvalidModel, match="transformers cannot read"):
        CpuBackend().plan({**GPT2, "remark": nested}, LoadSpec())


def test_infinity_is_read_as_transformers_writes_it():
    config = Mamba2Config(
        vocab_size=100, hidden_size=32, num_heads=4, head_dim=16, state_size=8, num_hidden_layers=1
    )
    written = json.loads(config.to_json_string()) | {"architectures": ["Mamba2ForCausalLM"]}
    assert written["time_step_limit"] == [0.0, {"__float__": "Infinity"}]
    assert CpuBackend().plan(written, LoadSpec()).generic


def test_layers_that_differ_are_counted_one_by_one():
    config = {
        "architectures": ["Gemma4ForCausalLM"],
        "model_type": "gemma4_text",
        "vocab_size": 100,
        "vocab_size_per_layer_input": 100,
        "hidden_size": 64,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "max_position_embeddings": 128,
    }
    plan = CpuBackend().plan(config, LoadSpec(dtype="fp32", max_num_seqs=1))
    assert plan.memory.kv == 128 * 2 * 2 * (16 + 16 + 32) * 4


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("XLMWithLMHeadModel", "xlm"),
        ("XLNetLMHeadModel", "xlnet"),
        ("ReformerModelWithLMHead", "reformer"),
        ("CpmAntForCausalLM", "cpmant"),
    ],
)
def test_a_model_that_generates_from_more_than_tokens_is_refused(
    architecture: str, model_type: str
):
    config = {"architectures": [architecture], "model_type": model_type, "is_decoder": True}
    with pytest.raises(UnsupportedModel) as caught:
        CpuBackend().plan(config, LoadSpec(dtype="fp32"))
    assert f"{architecture} needs more than the newest token" in str(caught.value)


def test_without_transformers_the_hint_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    for name in list(sys.modules):
        if name.startswith("ridgeline_backends.generic"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnsupportedModel) as caught:
        CpuBackend().plan(GPT2, LoadSpec())
    assert "ridgeline[generic]" in caught.value.hint
