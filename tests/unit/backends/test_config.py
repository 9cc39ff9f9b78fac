"""Configurations and weights that cannot be run are refused with the name of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ridgeline_backends.errors import (
    InvalidModel,
    MismatchedTensor,
    MissingTensor,
    UnsupportedModel,
)
from ridgeline_backends.models.config import architecture, decoder_config
from ridgeline_backends.models.encoder_config import encoder_config
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.weights import INDEX, Weights

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "eos_token_id": [128001, 128008],
}
MINILM = {
    "architectures": ["BertModel"],
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


def test_a_published_config_gives_the_published_size():
    config = decoder_config(LLAMA_3_8B, {"eos_token_id": 128009})
    assert config.parameters == 8_030_261_248
    assert config.head_dim == 128
    assert config.eos_token_ids == {128001, 128008, 128009}
    assert (config.ropes[0].kind, config.ropes[0].factor) == ("llama3", 8.0)
    # all-MiniLM-L6-v2 without its pooler, which embeddings do not use.
    assert encoder_config(MINILM, "BertModel").parameters == 22_713_216 - 384 * 385


def test_both_spellings_of_rope_settings_are_read():
    scaling = LLAMA_3_8B["rope_scaling"]
    assert isinstance(scaling, dict)
    newer = {k: v for k, v in LLAMA_3_8B.items() if k not in ("rope_scaling", "rope_theta")}
    newer["rope_parameters"] = {**scaling, "rope_theta": 500000.0}
    assert decoder_config(newer).ropes == decoder_config(LLAMA_3_8B).ropes
    older = {**LLAMA_3_8B, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert decoder_config(older).ropes[0].kind == "linear"


def test_a_sliding_window_leaves_the_context_whole():
    mistral = {**LLAMA_3_8B, "architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    config = decoder_config(mistral)
    assert config.context_length == 131072
    assert config.windows == (4096,) * 32


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sliding_window": 4096}, "sliding_window"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "axial", "factor": 4.0}}, "axial"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0, "sections": 3}}, "sections"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"head_dim": 63}, "head_dim"),
    ],
)
def test_what_would_change_the_arithmetic_is_refused(changes: dict[str, object], named: str):
    with pytest.raises(UnsupportedModel, match=named):
        decoder_config({**LLAMA_3_8B, **changes})


@pytest.mark.parametrize("value", [None, "4096", 0, True, 1.5])
def test_a_bad_number_is_named(value: object):
    with pytest.raises(InvalidModel, match="hidden_size"):
        decoder_config({**LLAMA_3_8B, "hidden_size": value})


def test_more_layers_than_any_model_has_are_refused_before_they_are_listed():
    for count in (4097, 10**15):
        with pytest.raises(
            InvalidModel, match=f"num_hidden_layers in config.json is {count}; .* 40"
        ):
            decoder_config({**LLAMA_3_8B, "num_hidden_layers": count})
        with pytest.raises(InvalidModel, match=f"num_hidden_layers in config.json is {count};"):
            encoder_config({**MINILM, "num_hidden_layers": count}, "BertModel")
    assert decoder_config({**LLAMA_3_8B, "num_hidden_layers": 4096}).layers == 4096


def test_an_unknown_architecture_is_told_what_is_supported():
    with pytest.raises(UnsupportedModel, match=r"(?s)MambaForCausalLM.*LlamaForCausalLM"):
        architecture({"architectures": ["MambaForCausalLM"]})
    with pytest.raises(InvalidModel, match="architecture"):
        architecture({})


def test_an_unreadable_config_is_named(tmp_path: Path):
    with pytest.raises(InvalidModel, match=r"config\.json is missing"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidModel, match=r"config\.json cannot be read"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(InvalidModel, match=r"config\.json cannot be read"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InvalidModel, match="object"):
        read_json(tmp_path / "config.json")


def test_tensors_are_checked_by_name_shape_and_type(tmp_path: Path):
    save_file({"a": torch.zeros(2, 3), "i": torch.zeros(2).int()}, tmp_path / "model.safetensors")
    with Weights(tmp_path) as weights:
        assert weights.get("a", 2, 3).shape == (2, 3)
        with pytest.raises(MissingTensor, match="'b'"):
            weights.get("b", 2, 3)
        with pytest.raises(MismatchedTensor, match=r"'a'.*\(2, 3\).*\(3, 2\)"):
            weights.get("a", 3, 2)
        with pytest.raises(MismatchedTensor, match="int32"):
            weights.get("i", 2)


def test_shards_are_joined_and_may_not_lie_elsewhere(tmp_path: Path):
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "two.safetensors")
    index = {"a": "one.safetensors", "b": "two.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": index}))
    with Weights(tmp_path) as weights:
        assert weights.get("a", 1).item() == 1
        assert weights.get("b", 2).sum().item() == 2
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "../one.safetensors"}}))
    with pytest.raises(InvalidModel, match=r"one\.safetensors"):
        Weights(tmp_path)


def test_other_weight_formats_and_torn_files_are_refused(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidModel, match="Only safetensors"):
        Weights(tmp_path)
    save_file({"a": torch.ones(1000)}, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(InvalidModel, match="cannot be read"):
        Weights(tmp_path)


def test_a_missing_layer_is_found_when_loading(make_llama):  # type: ignore[no-untyped-def]
    from ridgeline_backends.base import LoadSpec
    from ridgeline_backends.cpu.backend import CpuBackend

    model_dir = make_llama()
    tensors = load_file(model_dir / "model.safetensors")
    gone = "model.layers.1.mlp.down_proj.weight"
    del tensors[gone]
    save_file(tensors, model_dir / "model.safetensors")
    backend = CpuBackend()
    plan = backend.plan(read_json(model_dir / "config.json"), LoadSpec(dtype="fp32"))
    with pytest.raises(MissingTensor) as caught:
        backend.load(backend.compile(model_dir, plan))
    assert caught.value.tensors == (gone,)
