"""Which folder of its data a model lies in: all of it, unless serving.properties names another."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.properties import MODEL_ID, is_path, model_named_in

_UNPACKED = PurePosixPath("/opt/ml/model")
"""Where containers see the data, wherever it lies here."""


def model_folder(data: Path, properties: str) -> Path:
    """``properties`` is the text of the data's serving.properties, whose ``option.model_id`` may be
    a path from the data's root, or one below /opt/ml/model. Raises InvalidSetting for a path that
    is no folder of the data."""
    named = model_named_in(properties)
    if not is_path(named):
        return data
    path = PurePosixPath(named)
    inside = path.relative_to(_UNPACKED) if path.is_relative_to(_UNPACKED) else path
    folder = data / inside
    if inside.is_absolute() or ".." in inside.parts or not folder.is_dir():
        raise InvalidSetting(
            f"serving.properties: {MODEL_ID}={named} is no folder of the model data.",
            hint=f"Name one from the data's root (./folder) or below {_UNPACKED}; leave the line "
            "out where the model lies at the root.",
        )
    return folder
