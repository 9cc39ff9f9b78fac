"""From what a source delivered to the model folder that every backend reads."""

from __future__ import annotations

from ridgeline_zoo.convert.model_dir import build_model_dir

__all__ = ["build_model_dir"]
