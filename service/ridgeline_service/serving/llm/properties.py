"""serving.properties: how a model's folder configures LMI's images. Reads that file alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FILE = "serving.properties"
MODEL_ID = "option.model_id"

_BETWEEN = re.compile(r"(?<!\\)(?:\s*[=:]\s*|\s+)")
_ESCAPED = re.compile(r"\\([\\=:#! ])")


def read_properties(folder: Path) -> str:
    """The file's text, empty where there is none."""
    path = folder / FILE
    return path.read_text(errors="replace") if path.is_file() else ""


def properties_in(text: str) -> Iterator[tuple[str, str]]:
    """Names and values, in order; comments and empty lines are none. As Java has them: ``=``, ``:``
    or white space between the two, with a backslash before one that separates nothing."""
    for raw in text.splitlines():
        line = raw.strip()
        if line and line[0] not in "#!":
            name, *value = _BETWEEN.split(line, maxsplit=1)
            yield _ESCAPED.sub(r"\1", name), _ESCAPED.sub(r"\1", "".join(value))


def model_named_in(text: str) -> str:
    """The model that is to be served: a name, an S3 URI or a path. Empty where none is named."""
    return dict(properties_in(text)).get(MODEL_ID, "")


def is_path(named: str) -> bool:
    """Whether this names a folder, and no model of the zoo, of the hub or in S3."""
    return named.startswith(("/", "./", "../")) or named in (".", "..")
