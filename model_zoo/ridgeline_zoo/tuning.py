"""How models of the zoo are trained further: which recipes suit a card, and their scripts in the
archive that a training job takes.

Recipes are data here: read, packed, never imported. They run in a job's environment.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from ridgeline_zoo.card import Card, Json
from ridgeline_zoo.families import FAMILIES

IMAGE = "huggingface-pytorch-training:2.8.0-transformers4.56.2-cpu-py312"
"""Repository and tag of the image that has trl and peft."""

_FOLDER = Path(__file__).with_name("recipes")
_MODE = 0o644
# Encoders whose settings have other names than BERT's cannot be sized before they are loaded.
_UNSIZED = frozenset({"distilbert"})


@dataclass(frozen=True)
class Recipe:
    """``hyperparameters`` are those that most users set, with the defaults of the script;
    ``metrics`` are regular expressions by name."""

    name: str
    title: str
    script: str
    tasks: tuple[str, ...]
    hyperparameters: Mapping[str, str | int | float]
    metrics: Mapping[str, str]

    def to_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "title": self.title,
            "script": self.script,
            "hyperparameters": dict(self.hyperparameters),
            "metrics": dict(self.metrics),
        }


@cache
def recipes() -> tuple[Recipe, ...]:
    listed = yaml.safe_load((_FOLDER / "recipes.yaml").read_text())
    return tuple(Recipe(**{**item, "tasks": tuple(item["tasks"])}) for item in listed)


def recipes_of(card: Card) -> tuple[Recipe, ...]:
    """The recipes that suit a card, the usual one first."""
    if card.family not in FAMILIES or card.family in _UNSIZED:
        return ()
    return tuple(recipe for recipe in recipes() if card.task in recipe.tasks)


@cache
def archive() -> bytes:
    """``sourcedir.tar.gz`` with all recipes: the same bytes for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in _files():
            info = tarfile.TarInfo(str(path.relative_to(_FOLDER)))
            info.size = path.stat().st_size
            info.mode = _MODE
            tar.addfile(info, io.BytesIO(path.read_bytes()))
    return gzip.compress(packed.getvalue(), mtime=0)


@cache
def archive_key() -> str:
    """Where the archive lies in the zoo's bucket; other files lie elsewhere."""
    return f"ridgeline/recipes/{hashlib.sha256(archive()).hexdigest()[:16]}/sourcedir.tar.gz"


def _files() -> Iterator[Path]:
    for path in sorted(_FOLDER.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path
