"""A prepared Llama folder as one GGUF file, so that peers which read GGUF serve the same weights.

    .venv/bin/python tests/bench/gguf_model.py MODEL_DIR OUT.gguf --type bf16

Matrices are written as bf16, f16 or q8_0, norms as float32. Knows the plain Llama layout alone
(no biases, byte-level BPE with digits split), which is that of the model the benchmark serves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

TYPES = {
    "bf16": gguf.GGMLQuantizationType.BF16,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
_FILE_TYPES = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_STORED: Mapping[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Matrix = npt.NDArray[np.float32]


def write_gguf(model_dir: Path, out: Path, kind: str) -> None:
    """Write ``out`` with matrices of type ``kind`` ("bf16", "f16" or "q8_0").

    Raises ValueError for a model of another architecture, KeyError for a tensor it does not know.
    """
    config = json.loads((model_dir / "config.json").read_text())
    if config["model_type"] != "llama":
        raise ValueError(f"{model_dir} is a {config['model_type']} model; only llama is written.")
    writer = gguf.GGUFWriter(str(out), "llama")
    _write_settings(writer, config, kind)
    _write_tokenizer(writer, model_dir, config)
    for name, tensor in _tensors(model_dir / "model.safetensors"):
        target = _renamed(name)
        if target.endswith(("attn_q.weight", "attn_k.weight")):
            heads = "num_attention_heads" if "attn_q" in target else "num_key_value_heads"
            tensor = _interleaved(tensor, config[heads])
        if tensor.ndim == 1:
            writer.add_tensor(target, tensor)
        else:
            stored = gguf.quants.quantize(tensor, TYPES[kind])
            writer.add_tensor(target, stored, raw_dtype=TYPES[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_settings(writer: gguf.GGUFWriter, config: Mapping[str, Any], kind: str) -> None:
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _write_tokenizer(writer: gguf.GGUFWriter, model_dir: Path, config: Mapping[str, Any]) -> None:
    tokenizer = json.loads((model_dir / "tokenizer.json").read_text())
    vocabulary = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    control = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    vocabulary |= {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([vocabulary[number] for number in range(config["vocab_size"])])
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL if number in control else gguf.TokenType.NORMAL
            for number in range(config["vocab_size"])
        ]
    )
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    template = json.loads((model_dir / "tokenizer_config.json").read_text())["chat_template"]
    writer.add_chat_template(template)


def _tensors(path: Path) -> Iterator[tuple[str, Matrix]]:
    """Every tensor of a safetensors file as float32; bf16 has no numpy type of its own."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    length = int(raw[:8].view("<u8")[0])
    header = json.loads(raw[8 : 8 + length].tobytes())
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        stored = raw[8 + length + start : 8 + length + end].view(_STORED[entry["dtype"]])
        if entry["dtype"] == "BF16":
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        yield name, np.ascontiguousarray(stored, dtype=np.float32).reshape(entry["shape"])


def _renamed(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{suffix}"
    _, _, rest = stem.partition("model.layers.")
    layer, _, part = rest.partition(".")
    return f"blk.{layer}.{_LAYER[part]}.{suffix}"


def _interleaved(weight: Matrix, heads: int) -> Matrix:
    """GGUF's llama rotates neighbouring pairs of a head; the folder has them half a head apart."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a model folder as GGUF.")
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=TYPES, default="bf16")
    arguments = parser.parse_args()
    write_gguf(arguments.model_dir, arguments.out, arguments.type)
