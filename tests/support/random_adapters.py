"""A tiny model and random LoRA adapters for it, in PEFT's format."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RANK = 4


def tiny_model(folder: Path) -> Path:
    """The zoo's seeded model, prepared into `folder`."""
    prepare = [sys.executable, "-m", "ridgeline_zoo.prepare", "tiny-llama-seeded"]
    command = [*prepare, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


def write_adapter(model_dir: Path, folder: Path, seed: int) -> None:
    """A random adapter of the query and down projections, in PEFT's format."""
    config = json.loads((model_dir / "config.json").read_text())
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"] * (
        config.get("head_dim") or hidden // config["num_attention_heads"]
    )
    shapes = {"self_attn.q_proj": (hidden, heads), "mlp.down_proj": (intermediate, hidden)}
    drawn = np.random.default_rng(seed)
    tensors = {}
    for layer, (module, (inputs, outputs)) in itertools.product(
        range(config["num_hidden_layers"]), shapes.items()
    ):
        name = f"base_model.model.model.layers.{layer}.{module}"
        for side, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
            tensors[f"{name}.lora_{side}.weight"] = drawn.normal(0, 0.3, shape).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
