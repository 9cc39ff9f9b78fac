"""serving.properties: how a model's folder configures LMI's images. Reads that file alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

FILE = "serving.properties"
MODEL_ID = "option.model_id"


def read_properties(folder: Path) -> str:
    """The file's text, empty where there is none."""
    path = folder / FILE
    return path.read_text(errors="replace") if path.is_file() else ""


def properties_in(text: str) -> Iterator[tuple[str, str]]:
    """Names and values, in order; comments and empty lines are none."""
    for raw in text.splitlines():
        line = raw.strip()
        if line and line[0] not in "#!":
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def model_named_in(text: str) -> str:
    """The model that is to be served: a name, an S3 URI or a path. Empty where none is named."""
    return dict(properties_in(text)).get(MODEL_ID, "")
