"""The config of a model directory, with the stop tokens of its generation config."""

from __future__ import annotations

from pathlib import Path

from ridgeline_backends.models.config import DecoderConfig, decoder_config
from ridgeline_backends.models.reader import read_json


def read_config(model_dir: Path) -> DecoderConfig:
    """Raises `InvalidModel`."""
    generation = model_dir / "generation_config.json"
    return decoder_config(
        read_json(model_dir / "config.json"),
        read_json(generation) if generation.is_file() else None,
    )
