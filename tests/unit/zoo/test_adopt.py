"""Safetensors that are taken as they come: what must fit, and what is put right."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ridgeline_zoo import Card
from ridgeline_zoo.convert import build_model_dir
from ridgeline_zoo.errors import CannotConvert
from ridgeline_zoo.progress import silent


def adopt(card: Card, folders: tuple[Path, Path], files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folders[0] / name).write_bytes(content)
    build_model_dir(card, *folders, silent)


BASE = {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}"}


def weights(dtype: str = "F32", size: int = 4) -> bytes:
    entry = {"w": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}
    header = json.dumps(entry).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model.safetensors": weights()}, r"lacks config\.json"),
        ({"config.json": b"{}", "model.safetensors": weights("F64", 8)}, "as F64"),
        (
            {"config.json": b'{"quantization_config": {}}', "model.safetensors": weights()},
            "quantised",
        ),
        ({"config.json": b"{}", "model.safetensors": weights("BF16", 2)[:-1]}, "cut short"),
        ({"config.json": b"{}", "model.safetensors": b"\xff" * 64}, "no safetensors"),
        ({"config.json": b"{}", "model.safetensors": weights("BF16", 2)}, "model_type=None"),
    ],
)
def test_safetensors_that_do_not_fit_are_refused(
    tiny: Card, folders: tuple[Path, Path], files: dict[str, bytes], says: str
) -> None:
    with pytest.raises(CannotConvert, match=says):
        adopt(tiny, folders, BASE | files)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_take_the_dtype_of_the_card(
    tiny: Card, folders: tuple[Path, Path], dtype: Any, stored: torch.dtype
) -> None:
    torch.manual_seed(0)
    # A second float dtype beside it, as norms often have, so that something is always cast.
    other = torch.float16 if stored == torch.float32 else torch.float32
    tensors = {
        "b": torch.randn(3, 5).to(stored),
        "a": torch.arange(4),
        "c": torch.ones(2).to(other),
    }
    save_file(tensors, folders[0] / "model.safetensors")
    files = {"config.json": json.dumps({**tiny.config, "dtype": "float16"}).encode()}
    adopt(replace(tiny, dtype=dtype), folders, BASE | files)
    ours = load_file(folders[1] / "model.safetensors")
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    assert torch.equal(ours["a"], tensors["a"])
    config = json.loads((folders[1] / "config.json").read_text())
    assert config["torch_dtype"] == {"bf16": "bfloat16", "fp32": "float32"}[dtype]
    assert "dtype" not in config
    for name in "bc":
        assert ours[name].dtype == kind
        assert torch.equal(ours[name], tensors[name].to(kind))


def test_missing_shards_are_named(tiny: Card, folders: tuple[Path, Path]) -> None:
    index = {"weight_map": {"w": "model-1.safetensors", "v": "model-2.safetensors"}}
    files = {
        "config.json": b"{}",
        "model-1.safetensors": weights("BF16", 2),
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    with pytest.raises(CannotConvert, match=r"shards model-2\.safetensors"):
        adopt(tiny, folders, BASE | files)


@pytest.mark.parametrize("newer", [True, False])
def test_rotary_settings_are_found_where_either_transformers_puts_them(
    tiny: Card, folders: tuple[Path, Path], newer: bool
) -> None:
    config = dict(tiny.config)
    if newer:
        theta = config.pop("rope_theta")
        config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": weights("BF16", 2),
    }
    adopt(tiny, folders, BASE | files)
    assert (folders[1] / "model.safetensors").read_bytes() == weights("BF16", 2)
