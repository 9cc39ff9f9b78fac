"""Public models by name: what is known of their sizes, for planning and for published rows.

A name is matched without owner, case and suffixes like "-instruct", and however its parts are set
apart ("v1.5" is "1.5"). A decoder that nobody knows is answered with the known one nearest in
parameters, if its name says how many it has, or with one of the sizes that the name spells out
("36L d2048 16H"). No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.datafile import read_plain

DATA = Path(__file__).parent / "data"
_LAYERS = re.compile(r"\b(\d+)L\b", re.IGNORECASE)
_WIDTH = re.compile(r"\bd(\d+)\b", re.IGNORECASE)
_HEADS = re.compile(r"\b(\d+)H\b", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?b\b", re.IGNORECASE)
_LENGTH = re.compile(r"\d[km]\b")
_SIZED = re.compile(r"\d+(?:\.\d+)?[bm]\d?")
_ACTIVE = re.compile(r"\ba\d+(?:\.\d+)?[bm]\b", re.IGNORECASE)
"""Parameters that a token goes through, of a mixture of experts: "30b-a3b"."""

_TIMES = re.compile(r"\dx\d")
"""Experts of so many parameters: "8x7b"."""

_RESOLUTION = re.compile(r"\d{1,3}")
_PUBLISHER = re.compile(r"^meta[-_ ]+(?=llama)")
_TOKEN = re.compile(r"(?!(?<![a-z])v\d)[a-z]+|\d[a-z0-9.]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """`exact`: the catalogue knows this model; else `config` is the nearest one's."""

    name: str
    config: Mapping[str, object]
    exact: bool


def find(model: str, kind: str) -> Entry:
    """`kind`: "decoders", "encoders" or "vision". Raises `NotFound`."""
    return _known(model, kind) or _nearest(model, kind)


def find_language_model(model: str) -> Entry:
    """A decoder or a text encoder; the decoder nearest in size where neither is known by that name.
    Raises `NotFound`."""
    return known_language_model(model) or _nearest(model, "decoders")


def known_language_model(model: str) -> Entry | None:
    """A decoder or a text encoder that is known by that name."""
    return _known(model, "decoders") or _known(model, "encoders")


def with_published_length(model: str, config: Mapping[str, object]) -> Mapping[str, object]:
    """A catalogue's config with the context length of the model of that name, where it is known."""
    length = published_length(model)
    return config if length is None else {**config, "max_position_embeddings": length}


def published_length(model: str) -> int | None:
    """The context length of a decoder by its own name: models of the same sizes differ in it. None
    where it is not known, and for a name that has another in it, as "llama-2-7b-32k"."""
    word = _word(model, "decoders") or _word(model, "encoders")
    if word is None or any(map(_LENGTH.search, _beyond(model, word))):
        return None
    return _lengths().get(word)


@cache
def entries(kind: str) -> Mapping[str, Mapping[str, object]]:
    """All models of a kind."""
    found = read_plain(DATA / f"{kind}.yaml")
    assert isinstance(found, dict)
    return found


@cache
def aliases() -> Mapping[str, str]:
    found = read_plain(DATA / "aliases.yaml")
    assert isinstance(found, dict)
    return found


@cache
def _lengths() -> Mapping[str, int]:
    """Context lengths by name."""
    found = read_plain(DATA / "context_lengths.yaml")
    assert isinstance(found, dict)
    return {name: int(length) for length, names in found.items() for name in names}


def _known(model: str, kind: str) -> Entry | None:
    word, known = _word(model, kind), entries(kind)
    if word is None:
        return None
    name = word if word in known else aliases()[word]
    return Entry(name, known[name], exact=True)


def _word(model: str, kind: str) -> str | None:
    """The longest name or alias of a model of that kind that the given name is, or begins with:
    "llama-3-8b" of "llama-3-8b-instruct", not of "llama-3-80b". An alias with another size behind
    it ("deepseek-r1-distill-qwen-14b") is another model's."""
    known, name = entries(kind), plain_name(model)
    words = [*known, *(one for one, target in aliases().items() if target in known)]
    if name in words:
        return name
    begun = [one for one in words if _tokens(name)[: len(_tokens(one))] == _tokens(one)]
    if not begun:
        return None
    word = max(begun, key=len)
    return None if _is_anothers(model, word, kind) else word


def _is_anothers(model: str, word: str, kind: str) -> bool:
    """Whether a size stands behind an alias that is not its model's; of a network on images also
    another patch or resolution, behind a name that leaves them out ("vit-large")."""
    target = aliases().get(word, plain_name(model))
    resolved = kind == "vision" and target.startswith(word)
    return any(
        _SIZED.fullmatch(one) or (resolved and _RESOLUTION.fullmatch(one))
        for one in _beyond(model, word)
        if one not in _tokens(target)
    )


def _beyond(model: str, word: str) -> tuple[str, ...]:
    """What a name says behind the word that it begins with."""
    return _tokens(plain_name(model))[len(_tokens(word)) :]


@cache
def _tokens(name: str) -> tuple[str, ...]:
    """A name's parts, however they are set apart: "gpt3-23b", "gpt-3 23b" and "gpt_3_23b" have the
    same three."""
    return tuple(_TOKEN.findall(name))


def plain_name(model: str) -> str:
    """In small letters, without owner and remarks."""
    name = model.split("(")[0].strip().lower()
    return _PUBLISHER.sub("", name.rpartition("/")[2].replace("*", "").strip())


def _nearest(model: str, kind: str) -> Entry:
    size = _SIZE.search(model)
    if kind == "decoders" and size is None and _LAYERS.search(model):
        return Entry(plain_name(model), _spelled(model), exact=False)
    if kind != "decoders" or size is None:
        raise NotFound(
            f"The sizes of {model!r} are not known.",
            hint="Give its config.json: `config:` in a row, or a path.",
        )
    wanted, chooses = float(size.group(1)), _chooses_experts(model)
    sized = {
        name: float(found.group(1))
        for name in entries(kind)
        if (found := _SIZE.search(name)) is not None
        and not _TIMES.search(name)
        and _chooses_experts(name) is chooses
    }
    name = min(sized, key=lambda one: (abs(sized[one] - wanted) / wanted, one))
    return Entry(name, entries(kind)[name], exact=False)


def _chooses_experts(name: str) -> bool:
    return _ACTIVE.search(name) is not None


def _spelled(model: str) -> Mapping[str, object]:
    """Several stacks of layers ("28L+12L") run one after the other."""
    width, heads = _WIDTH.search(model), _HEADS.search(model)
    hidden = int(width.group(1)) if width else 2048
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": sum(map(int, _LAYERS.findall(model))),
        "num_attention_heads": int(heads.group(1)) if heads else max(1, hidden // 128),
        "intermediate_size": 4 * hidden,
        "vocab_size": 32768,
    }
