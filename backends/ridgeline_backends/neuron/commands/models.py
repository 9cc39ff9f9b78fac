"""A model as commands name it: a config.json, a model directory, or a public model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.cli._common import say
from ridgeline.errors import InvalidInput, NotFound, did_you_mean

if TYPE_CHECKING:
    from ridgeline_backends.models.encoder_config import EncoderConfig
    from ridgeline_backends.models.sentence_files import Pooling

_UNSPOKEN = re.compile(r"[\W_]")
_DECODERS, _ENCODERS = ("llama-3-8b", "smollm2-135m"), ("bert-base",)
"""Examples."""


def config_of(model: str, *, encoders: bool = True) -> Mapping[str, object]:
    """The config.json of a file or of a model directory, or that of a public model by its name: a
    decoder or a text encoder. A name that is not known is refused with those that are alike;
    `encoders`: of encoders too. Raises `InvalidInput`, `NotFound`."""
    if not model.strip():
        raise InvalidInput(
            "The name or a path of a model is missing.",
            hint=f"Give a public name, like {_DECODERS[0]}, or the path of a config.json.",
        )
    path = Path(model)
    if path.is_dir():
        path /= "config.json"
    if path.suffix == ".json" or path.exists():
        return _read(path)
    if model.startswith(("/", ".", "~")):
        raise NotFound(f"There is no {model}.", hint="Name a config.json, or a public model.")
    # yaml: not for --help
    from ridgeline_backends.neuron.catalogue import known_language_model, with_published_length

    found = known_language_model(model)
    if found is None:
        raise NotFound(
            f"The sizes of {model!r} are not known.", hint=_hint(model, encoders=encoders)
        )
    return with_published_length(model, found.config)


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


def without_quantiser(config: Mapping[str, object]) -> Mapping[str, object]:
    """The same model, with weights that Neuron has; says so where its config keeps others. It is
    then of no architecture that endpoints run, as they refuse such weights: sized and timed."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping) or not found:
        return config
    bits = f" in {found['bits']} bits" if "bits" in found else ""
    say(
        f"warning: its weights are kept by {found.get('quant_method', 'a quantiser')}{bits}, which "
        "is not compiled: planned as bf16, or in 8 bits where a setting says so."
    )
    sizes = {name: value for name, value in config.items() if name != "quantization_config"}
    return {**sizes, "architectures": []}


def check_length(config: Mapping[str, object], positions: int | None) -> int | None:
    """A decoder's context length, if it is known. Raises `DoesNotFit` for a sequence of more
    positions, as an encoder's compiler does."""
    from ridgeline_backends.errors import DoesNotFit
    from ridgeline_backends.neuron.builders.configs import context_length

    longest = context_length(config)
    if longest is not None and (positions or 0) > longest:
        above = f"seq_len {positions} is above the model's context length {longest}."
        raise DoesNotFit([above], hint=f"Choose a --seq of at most {longest}.")
    return longest


def pooling_of(model: str) -> Pooling:
    """How a model's directory says that its vectors are made; the usual way for anything else."""
    from ridgeline_backends.models.sentence_files import Pooling, read_pooling

    path = Path(model)
    return read_pooling(path) if path.is_dir() else Pooling()


def _hint(model: str, *, encoders: bool) -> str:
    """With a few names that are alike, where there are any."""
    near = did_you_mean(model.rpartition("/")[2].lower(), _names(encoders))
    if not near.startswith("Did you mean"):
        examples = (*_DECODERS, *_ENCODERS) if encoders else _DECODERS
        return f"Give the path of its config.json, or a public name, like {', '.join(examples)}."
    return f"{near} For another model give the path of its config.json."


def _names(encoders: bool) -> list[str]:
    """What models that are compiled may be called, of each in one spelling."""
    from ridgeline_backends.neuron.catalogue import aliases, entries  # yaml: not for --help

    models = {**entries("encoders"), **entries("decoders")}
    taken = [one for one, config in models.items() if _is_taken(config, encoders)]
    spelt: dict[str, str] = {}
    for name in (*taken, *(one for one, target in aliases().items() if target in taken)):
        spelt.setdefault(_UNSPOKEN.sub("", name), name)
    return list(spelt.values())


def _is_taken(config: Mapping[str, object], encoders: bool) -> bool:
    from ridgeline_backends.errors import InvalidModel
    from ridgeline_backends.neuron.builders.configs import decoder_architecture
    from ridgeline_backends.neuron.builders.text_encoder_configs import text_encoder

    try:
        if text_encoder(config) is not None:
            return encoders
        return bool(decoder_architecture(config).layers)
    except InvalidModel:
        return False


def _read(path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"There is no {path}.", hint="Name a config.json, or a public model."
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} must hold an object.", hint="A model's config.json.")
    return config
