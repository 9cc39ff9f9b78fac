"""A Llama of two small layers that has learnt nothing, as a folder that transformers reads; written
by the standard library alone: tiny_llama.py FOLDER."""

from __future__ import annotations

import json
import struct
import sys
from math import prod
from pathlib import Path

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LAYER = {
    "self_attn.q_proj": [32, 32],
    "self_attn.k_proj": [16, 32],
    "self_attn.v_proj": [16, 32],
    "self_attn.o_proj": [32, 32],
    "mlp.gate_proj": [48, 32],
    "mlp.up_proj": [48, 32],
    "mlp.down_proj": [32, 48],
    "input_layernorm": [32],
    "post_attention_layernorm": [32],
}


def write(folder: Path) -> None:
    shapes = {"model.embed_tokens.weight": [96, 32]}
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in LAYER.items()}
    shapes |= {"model.norm.weight": [32], "lm_head.weight": [96, 32]}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    weights = struct.pack("<Q", len(text)) + text + bytes(end)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(CONFIG))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
