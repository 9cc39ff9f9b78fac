"""The generic path runs what is in the files, and nothing that transformers would draw instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_models import save_random
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from ridgeline_backends.base import LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.errors import InvalidModel, MismatchedTensor, MissingTensor
from ridgeline_backends.models.reader import read_json

SMALL = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPT = (OpenAIGPTLMHeadModel, OpenAIGPTConfig(**SMALL))
GPT2 = (GPT2LMHeadModel, GPT2Config(**SMALL))


def load(folder: Path) -> None:
    backend = CpuBackend()
    plan = backend.plan(read_json(folder / "config.json"), LoadSpec(dtype="fp32"))
    assert plan.generic
    backend.load(backend.compile(folder, plan)).close()


def change(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Write the tensor in the place of what is stored, or nothing."""
    tensors = load_file(folder / "model.safetensors")
    assert name in tensors
    del tensors[name]
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("model", [GPT, GPT2], ids=["gpt", "gpt2"])
def test_a_tensor_that_is_missing_is_named(
    model: tuple[type[PreTrainedModel], PreTrainedConfig], tmp_path: Path
):
    save_random(*model, tmp_path)
    load(tmp_path)
    for name in ("transformer.h.0.mlp.c_fc.weight", "transformer.h.1.ln_1.bias"):
        change(tmp_path, name, None)
    with pytest.raises(MissingTensor) as caught:
        load(tmp_path)
    assert "'transformer.h.0.mlp.c_fc.weight', 'transformer.h.1.ln_1.bias'" in str(caught.value)


def test_a_head_that_is_neither_stored_nor_tied_is_missing(tmp_path: Path):
    config = Gemma3TextConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=64,
        layer_types=["full_attention"],
    )
    save_random(Gemma3ForCausalLM, config, tmp_path)
    written = read_json(tmp_path / "config.json")
    written["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    written["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(MissingTensor, match=r"lm_head\.weight"):
        load(tmp_path)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path):
    save_random(*GPT, tmp_path)
    change(tmp_path, "transformer.h.0.ln_1.bias", torch.zeros(31))
    with pytest.raises(MismatchedTensor, match=r"'transformer\.h\.0\.ln_1\.bias'.*\(31,\).*\(32,"):
        load(tmp_path)


def test_a_file_that_was_cut_short_is_no_fault_of_ours(tmp_path: Path):
    save_random(*GPT, tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidModel, match="cannot load"):
        load(tmp_path)
