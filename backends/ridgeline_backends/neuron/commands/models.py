"""A model as commands name it: a config.json, a model directory, or a public model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ridgeline.cli._common import say
from ridgeline.errors import InvalidInput, NotFound


def config_of(model: str) -> Mapping[str, object]:
    """The config.json of a file or of a model directory, or that of a public model by its name.
    One that is not known stands as the nearest in size, and is said to. Raises `InvalidInput`,
    `NotFound`."""
    path = Path(model)
    if path.is_dir():
        path /= "config.json"
    if path.suffix == ".json" or path.exists():
        return _read(path)
    if model.startswith(("/", ".", "~")):
        raise NotFound(f"There is no {model}.", hint="Name a config.json, or a public model.")
    from ridgeline_backends.neuron.catalogue import entries, find  # yaml: not for --help

    try:
        found = find(model, "decoders")
    except NotFound as unknown:
        raise NotFound(
            f"The sizes of {model!r} are not known.",
            hint="Give the path of its config.json, or a public name, like "
            f"{', '.join(sorted(entries('decoders'))[:3])}.",
        ) from unknown
    if not found.exact:
        say(f"warning: {model} is not known here, it stands as {found.name}, the nearest in size.")
    return found.config


def _read(path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} must hold an object.", hint="A model's config.json.")
    return config
