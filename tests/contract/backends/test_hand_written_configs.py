"""Configs spelt as transformers reads them but never writes them: what it makes of them counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_models import save_random
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from ridgeline_backends.base import Chunk, LoadSpec, Step
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cpu.runner import CpuRunner
from ridgeline_backends.models.reader import read_json

CONTEXT = 128
TOLERANCE = 2e-4
SETTINGS = {
    "vocab_size": 151,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 72,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA_3 = {
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "sliding_window": 20,
    "sliding_window_pattern": 2,
}
KINDS: dict[str, tuple[type[PreTrainedModel], type[PreTrainedConfig], dict[str, object]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {}),
    "phi3": (Phi3ForCausalLM, Phi3Config, {}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, GEMMA_3),
}
DEFAULT = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "factor": 2.0}
ALL_FULL = ["full_attention"] * 3
EDITS: dict[str, tuple[str, dict[str, object]]] = {
    "both spellings of a rope": ("llama", {"rope_parameters": DEFAULT, "rope_scaling": LINEAR}),
    "both spellings, theta on top": (
        "llama",
        {"rope_parameters": DEFAULT, "rope_scaling": LINEAR, "rope_theta": 900.0},
    ),
    "an empty older spelling": ("llama", {"rope_parameters": DEFAULT, "rope_scaling": {}}),
    "both thetas": ("llama", {"rope_parameters": DEFAULT, "rope_theta": 900.0}),
    "both spellings, by layer": (
        "gemma3",
        {
            "rope_parameters": {"full_attention": DEFAULT, "sliding_attention": DEFAULT},
            "rope_scaling": LINEAR,
        },
    ),
    "a share that llama ignores": ("llama", {"partial_rotary_factor": 0.5}),
    "a share within a rope that llama ignores": (
        "llama",
        {"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.5}},
    ),
    "a share that phi3 honours": (
        "phi3",
        {"partial_rotary_factor": 0.5, "rope_parameters": DEFAULT},
    ),
    "layer types that phi3 ignores": ("phi3", {"layer_types": ALL_FULL, "sliding_window": 16}),
    "layer types that mistral honours": (
        "mistral",
        {"layer_types": ALL_FULL, "sliding_window": 16},
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_logits_are_those_of_transformers(edit: str, tmp_path: Path):
    family, changes = EDITS[edit]
    kind, config, own = KINDS[family]
    save_random(kind, config(**SETTINGS, **own), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**read_json(file), **changes}))

    chance = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 151, (100,), generator=chance)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32
    )
    with torch.inference_mode():
        theirs = model(input_ids=tokens[None]).logits[0]
        ours = _load(tmp_path).logits(
            Step(
                (
                    Chunk(
                        sequence_id="s",
                        tokens=tuple(tokens.tolist()),
                        start=0,
                        blocks=tuple(range(CONTEXT // 16)),
                    ),
                )
            )
        )
    assert theirs.std() > 0.5, "logits that tell nothing apart prove nothing"
    assert (ours - theirs).abs().max() < TOLERANCE


def _load(model_dir: Path) -> CpuRunner:
    backend = CpuBackend()
    spec = LoadSpec(dtype="fp32", max_model_len=CONTEXT, max_num_seqs=1)
    plan = backend.plan(read_json(model_dir / "config.json"), spec)
    runner = backend.load(backend.compile(model_dir, plan))
    assert isinstance(runner, CpuRunner)
    return runner
