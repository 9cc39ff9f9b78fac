"""What all bare scripts are told alike, so that they and the recipes do the same work."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from peft import LoraConfig

TEMPLATE = "model_zoo/ridgeline_zoo/recipes/ridgeline_recipes/templates/chatml.jinja"


def records(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "train.jsonl").open()]


def arguments(steps: str, *, batch: int, rate: float) -> dict[str, Any]:
    """Of a trainer: ``batch`` records a step, ``rate`` at its highest."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": int(steps),
        "per_device_train_batch_size": batch,
        "learning_rate": rate,
        "warmup_steps": 0.1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 5,
        "seed": 42,
        "data_seed": 42,
    }


def adapter() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
