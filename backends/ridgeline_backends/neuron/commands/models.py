"""A model as commands name it: a config.json, a model directory, or a public model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.cli._common import say
from ridgeline.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from ridgeline_backends.models.encoder_config import EncoderConfig
    from ridgeline_backends.models.sentence_files import Pooling

_EXAMPLES = ("llama-3-8b", "smollm2-135m", "bert-base")


def config_of(model: str) -> Mapping[str, object]:
    """The config.json of a file or of a model directory, or that of a public model by its name: a
    decoder or a text encoder. One that is not known stands as the nearest in size, and is said to.
    Raises `InvalidInput`, `NotFound`."""
    path = Path(model)
    if path.is_dir():
        path /= "config.json"
    if path.suffix == ".json" or path.exists():
        return _read(path)
    if model.startswith(("/", ".", "~")):
        raise NotFound(f"There is no {model}.", hint="Name a config.json, or a public model.")
    # yaml: not for --help
    from ridgeline_backends.neuron.catalogue import entries, find_language_model

    try:
        found = find_language_model(model)
    except NotFound as unknown:
        raise NotFound(
            f"The sizes of {model!r} are not known.",
            hint="Give the path of its config.json, or a public name"
            f"{_like(model, [*entries('decoders'), *entries('encoders')])}.",
        ) from unknown
    if not found.exact:
        say(f"warning: {model} is not known here, it stands as {found.name}, the nearest in size.")
    return found.config


def encoder_of(config: Mapping[str, object]) -> EncoderConfig | None:
    """What a text encoder is made of; None for a decoder. What this leaves out of the model is
    said. Raises `InvalidModel`, and `UnsupportedModel` for what is neither."""
    from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder

    found = text_encoder(config)
    if found is None:
        return None
    if found.stands_for:
        say(f"warning: {found.stands_for}.")
    return found.config


def pooling_of(model: str) -> Pooling:
    """How a model's directory says that its vectors are made; the usual way for anything else."""
    from ridgeline_backends.models.sentence_files import Pooling, read_pooling

    path = Path(model)
    return read_pooling(path) if path.is_dir() else Pooling()


def _like(model: str, known: Sequence[str]) -> str:
    """A few names that are known: the nearest, where there are any."""
    near = get_close_matches(model.rpartition("/")[2].lower(), known, n=3, cutoff=0.5)
    return f", like {', '.join(near or _EXAMPLES)}"


def _read(path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} must hold an object.", hint="A model's config.json.")
    return config
