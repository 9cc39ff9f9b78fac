"""Tiny models with seeded random weights, written as a real model directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from safetensors.torch import save_file

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 80,
    "vocab_size": 199,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "eos_token_id": 2,
    "bos_token_id": 1,
}

MakeLlama = Callable[..., Path]


@pytest.fixture(scope="session")
def make_llama(tmp_path_factory: pytest.TempPathFactory) -> MakeLlama:
    """Build a Llama from `LLAMA` with some settings changed; equal arguments, equal weights."""

    def make(dtype: torch.dtype = torch.float32, **changes: object) -> Path:
        config = {**LLAMA, **changes}
        folder = tmp_path_factory.mktemp("llama")
        (folder / "config.json").write_text(json.dumps(config))
        save_file(_tensors(config, dtype), folder / "model.safetensors")
        return folder

    return make


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    torch.set_num_threads(2)


def _tensors(config: dict[str, object], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.15).to(dtype)

    def integer(key: str) -> int:
        value = config[key]
        assert isinstance(value, int)
        return value

    hidden, inner = integer("hidden_size"), integer("intermediate_size")
    q = integer("num_attention_heads") * integer("head_dim")
    kv = integer("num_key_value_heads") * integer("head_dim")
    tensors = {
        "model.embed_tokens.weight": random(integer("vocab_size"), hidden) * 6,
        "model.norm.weight": 1 + random(hidden),
    }
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = random(integer("vocab_size"), hidden)
    for index in range(integer("num_hidden_layers")):
        prefix = f"model.layers.{index}"
        tensors |= {
            f"{prefix}.input_layernorm.weight": 1 + random(hidden),
            f"{prefix}.post_attention_layernorm.weight": 1 + random(hidden),
            f"{prefix}.self_attn.q_proj.weight": random(q, hidden),
            f"{prefix}.self_attn.k_proj.weight": random(kv, hidden),
            f"{prefix}.self_attn.v_proj.weight": random(kv, hidden),
            f"{prefix}.self_attn.o_proj.weight": random(hidden, q),
            f"{prefix}.mlp.gate_proj.weight": random(inner, hidden),
            f"{prefix}.mlp.up_proj.weight": random(inner, hidden),
            f"{prefix}.mlp.down_proj.weight": random(hidden, inner),
        }
    return tensors
