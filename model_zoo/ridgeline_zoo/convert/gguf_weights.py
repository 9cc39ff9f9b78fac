"""Weights and configuration of a Llama-family GGUF, under Hugging Face's names.

Dequantisation is the gguf package's (numpy); the sums stay in fp32 until they are rounded once.
Knows the Llama layout only: other architectures are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from ridgeline_zoo.card import Json
from ridgeline_zoo.convert.safetensors_file import DTYPE_NAMES, TensorPlan, to_bytes
from ridgeline_zoo.errors import CannotConvert

_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
# Rotary frequencies are computed from the configuration.
_IGNORED = {"rope_freqs.weight"}


@dataclass(frozen=True)
class GgufModel:
    """An opened GGUF: its metadata as plain values, and its tensors as they lie on disk."""

    name: str
    metadata: Mapping[str, Any]
    tensors: tuple[ReaderTensor, ...]

    def require(self, key: str) -> Any:
        """A metadata value. Raises CannotConvert if the file lacks it."""
        if key not in self.metadata:
            raise CannotConvert(f"{self.name} has no metadata {key!r}")
        return self.metadata[key]


def open_gguf(path: Path) -> GgufModel:
    """Open a GGUF (memory-mapped). Raises CannotConvert if it is damaged or of another family."""
    try:
        reader = GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise CannotConvert(f"{path.name} is no GGUF file, or is damaged: {error}") from error
    model = GgufModel(path.name, metadata, tuple(reader.tensors))
    architecture = model.require("general.architecture")
    if architecture != "llama":
        raise CannotConvert(
            f"{path.name} holds the architecture {architecture!r}; only llama is converted",
            hint="Use the model's safetensors instead.",
        )
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none" or any(t.name == "rope_freqs.weight" for t in reader.tensors):
        raise CannotConvert(
            f"{path.name} scales its rotary positions in a way the file does not spell out",
            hint="Use the model's safetensors instead.",
        )
    return model


def llama_config(model: GgufModel, dtype: str) -> dict[str, Json]:
    """The ``config.json`` of the model, in the form Hugging Face publishes."""
    hidden = int(model.require("llama.embedding_length"))
    heads = int(model.require("llama.attention.head_count"))
    config: dict[str, Json] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": _token(model, "bos"),
        "eos_token_id": _token(model, "eos"),
        "pad_token_id": _token(model, "padding"),
        "head_dim": int(model.metadata.get("llama.rope.dimension_count", hidden // heads)),
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": int(model.require("llama.feed_forward_length")),
        "max_position_embeddings": int(model.require("llama.context_length")),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": int(model.require("llama.block_count")),
        "num_key_value_heads": int(model.metadata.get("llama.attention.head_count_kv", heads)),
        "rms_norm_eps": _shortest(model.require("llama.attention.layer_norm_rms_epsilon")),
        "rope_scaling": None,
        "rope_theta": _shortest(model.metadata.get("llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in model.tensors),
        "torch_dtype": {"bf16": "bfloat16", "fp32": "float32"}[dtype],
        "use_cache": True,
        "vocab_size": len(model.require("tokenizer.ggml.tokens")),
    }
    return config


def tensor_plans(model: GgufModel, config: Mapping[str, Json], dtype: str) -> list[TensorPlan]:
    """Every tensor under its Hugging Face name, dequantised when it is written."""
    heads = {
        "attn_q.weight": int(str(config["num_attention_heads"])),
        "attn_k.weight": int(str(config["num_key_value_heads"])),
    }
    plans = []
    for tensor in model.tensors:
        name, part = _hugging_face_name(tensor.name, model.name)
        if name is None:
            continue
        # GGUF lists the fastest axis first.
        shape = tuple(int(length) for length in reversed(tensor.shape))
        plans.append(_plan(tensor, name, shape, heads.get(part), dtype))
    return sorted(plans, key=lambda plan: plan.name)


def _plan(
    tensor: ReaderTensor, name: str, shape: tuple[int, ...], heads: int | None, dtype: str
) -> TensorPlan:
    def produce() -> bytes:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        return to_bytes(values if heads is None else _half_rotation(values, heads), dtype)

    return TensorPlan(name, shape, DTYPE_NAMES[dtype], produce)


def _half_rotation(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo the row order that GGUF gives Q and K.

    llama.cpp rotates neighbouring pairs of a head's rows, Hugging Face the first half against the
    second: its converter interleaves the halves, and this puts them apart again.
    """
    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _hugging_face_name(name: str, origin: str) -> tuple[str | None, str]:
    """The Hugging Face name (None to leave the tensor out), and the name inside its layer."""
    if name in _IGNORED:
        return None, name
    if name in _OUTER:
        return _OUTER[name], name
    block, _, rest = name.partition(".")
    index, _, part = rest.partition(".")
    if block == "blk" and index.isdigit() and part in _LAYER:
        return f"model.layers.{index}.{_LAYER[part]}", part
    raise CannotConvert(f"{origin} holds the tensor {name!r}, which no Llama model has")


def _token(model: GgufModel, kind: str) -> int | None:
    value = model.metadata.get(f"tokenizer.ggml.{kind}_token_id")
    return None if value is None else int(value)


def _shortest(value: float) -> float:
    """A number kept as fp32, as the shortest decimal that gives it: 1e-05, not 9.9999997e-06."""
    return float(str(np.float32(value)))
