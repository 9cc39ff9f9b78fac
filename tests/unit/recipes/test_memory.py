from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.memory import (
    GIB,
    ModelSize,
    Setting,
    available_memory,
    model_size,
    need,
    require_fit,
)

SMOLLM2 = ModelSize(
    parameters=134_515_008,
    layers=30,
    hidden=576,
    inner=1536,
    vocabulary=49_152,
    adapted=30 * ((576 + 576) * 2 + (576 + 192) * 2 + (576 + 1536) * 3),
    inputs=3 * 576 + 576 + 2 * 576 + 1536,
)
LORA = Setting(
    dtype="fp32",
    rank=16,
    batch_size=8,
    gradient_accumulation=1,
    tokens=128,
    gradient_checkpointing=False,
)


def test_what_fits_is_left_alone() -> None:
    assert require_fit(SMOLLM2, LORA, 64 * GIB) == need(SMOLLM2, LORA)


def test_a_refusal_has_both_numbers_and_the_nearest_setting_that_fits() -> None:
    available = need(SMOLLM2, LORA).total - 1
    with pytest.raises(RecipeFailed) as caught:
        require_fit(SMOLLM2, LORA, available)
    message = str(caught.value)
    assert f"needs about {need(SMOLLM2, LORA).total / GIB:.2f} GiB" in message
    assert f"{available / GIB:.2f} GiB are free" in message
    # The same step in two halves changes least.
    assert message.endswith("batch_size=4 gradient_accumulation=2.")


def test_a_batch_holds_no_more_records_than_there_are() -> None:
    few = replace(LORA, tokens=512, records=2)
    assert need(SMOLLM2, few) == need(SMOLLM2, replace(few, records=None, batch_size=2))
    assert need(SMOLLM2, replace(few, records=100)) == need(SMOLLM2, replace(few, records=None))
    with pytest.raises(RecipeFailed) as caught:
        require_fit(SMOLLM2, few, need(SMOLLM2, few).total - 1)
    assert str(caught.value).endswith("batch_size=1 gradient_accumulation=8.")


def test_less_memory_asks_for_a_larger_change() -> None:
    full = replace(LORA, rank=0, tokens=512)
    proposals = []
    for available in (need(SMOLLM2, full).total - 1, int(2.5 * GIB), int(1.2 * GIB)):
        with pytest.raises(RecipeFailed) as caught:
            require_fit(SMOLLM2, full, available)
        proposals.append(str(caught.value).rpartition(": ")[2])
    assert "batch_size=4" in proposals[0]
    assert "gradient_checkpointing" not in proposals[0]
    assert "method=lora dtype=bf16" in proposals[2]
    with pytest.raises(RecipeFailed, match="No setting of this recipe fits: the least is"):
        require_fit(SMOLLM2, full, GIB // 4)


@settings(max_examples=60, deadline=None)
@given(
    rank=st.sampled_from([0, 8, 16]),
    batch_size=st.integers(1, 24),
    tokens=st.integers(1, 4096),
    checkpointing=st.booleans(),
    dtype=st.sampled_from(["bf16", "fp32"]),
    available=st.integers(GIB // 2, 8 * GIB),
)
def test_a_proposal_fits_and_keeps_the_step(
    rank: int, batch_size: int, tokens: int, checkpointing: bool, dtype: str, available: int
) -> None:
    asked = Setting(
        dtype=dtype,
        rank=rank,
        batch_size=batch_size,
        gradient_accumulation=2,
        tokens=tokens,
        gradient_checkpointing=checkpointing,
    )
    try:
        require_fit(SMOLLM2, asked, available)
        return
    except RecipeFailed as error:
        message = str(error)
    if "No setting" in message:
        return
    changes = dict(re.findall(r"(\w+)=(\w+)", message.rpartition(": ")[2]))
    proposed = replace(
        asked,
        rank=16 if changes.get("method") == "lora" else rank,
        dtype=changes.get("dtype", dtype),
        batch_size=int(changes.get("batch_size", batch_size)),
        gradient_accumulation=int(changes.get("gradient_accumulation", 2)),
        tokens=int(changes.get("max_length", tokens)),
        gradient_checkpointing=checkpointing or "gradient_checkpointing" in changes,
    )
    assert need(SMOLLM2, proposed).total <= available
    assert proposed.batch_size * proposed.gradient_accumulation == batch_size * 2


def test_sizes_come_from_the_model_folder(tmp_path: Path) -> None:
    config = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    head = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [100, 8], "data_offsets": [0, 3200]},
            "b": {"dtype": "F32", "shape": [], "data_offsets": [3200, 3204]},
        }
    ).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    size = model_size(tmp_path)
    assert size.parameters == 801
    assert size.adapted == 2 * ((8 + 8) * 2 + (8 + 4) * 2 + (8 + 16) * 3)
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": "8"}))
    with pytest.raises(RecipeFailed, match="no hidden_size: '8'"):
        model_size(tmp_path)


def test_free_memory_is_less_than_the_machine_has() -> None:
    assert 0 < available_memory() < 1 << 50
