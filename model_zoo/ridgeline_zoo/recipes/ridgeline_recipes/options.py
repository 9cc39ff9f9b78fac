"""Hyperparameters: a frozen dataclass per recipe, whose fields become arguments of its script.

A job passes every hyperparameter as ``--name value``. Dashes and underscores mean the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar, get_type_hints

from ridgeline_recipes.failing import RecipeFailed
from ridgeline_recipes.hardware import multiplies_bf16

O = TypeVar("O", bound="Options")  # noqa: E741

_YES = ("true", "yes", "1", "on")
_NO = ("false", "no", "0", "off")


@dataclass(frozen=True)
class Range:
    """What a number must be. ``words`` completes "expected ..."."""

    words: str
    holds: Callable[[float], bool]


POSITIVE = Range("a number above 0", lambda value: value > 0)
NOT_NEGATIVE = Range("a number of at least 0", lambda value: value >= 0)
SHARE = Range("a number from 0 to below 1", lambda value: 0 <= value < 1)


def option(
    default: Any, words: str, *, within: Range | None = None, choices: Sequence[str] = ()
) -> Any:
    """A field of Options. ``words`` say what it does, with the unit."""
    return field(default=default, metadata={"words": words, "within": within, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every recipe takes."""

    epochs: float = option(1.0, "how often each record is seen", within=POSITIVE)
    max_steps: int = option(0, "end after so many steps; 0: by epochs", within=NOT_NEGATIVE)
    learning_rate: float = option(1e-4, "at its highest", within=POSITIVE)
    warmup_share: float = option(0.1, "of all steps, until it is reached", within=SHARE)
    batch_size: int = option(8, "records computed at once", within=POSITIVE)
    gradient_accumulation: int = option(1, "batches of one step", within=POSITIVE)
    max_length: int = option(512, "tokens of a record; what is longer is cut", within=POSITIVE)
    gradient_checkpointing: bool = option(False, "compute twice, remember less")
    dtype: str = option("auto", "of the base model's weights", choices=("auto", "bf16", "fp32"))
    seed: int = option(42, "of order and new weights", within=NOT_NEGATIVE)
    save_every: int = option(25, "steps between checkpoints", within=POSITIVE)
    log_every: int = option(5, "steps between lines of the log", within=POSITIVE)
    threads: int = option(0, "of the processor; 0: all there are", within=NOT_NEGATIVE)

    @property
    def rank(self) -> int:
        """Of the adapter; 0 where all weights are trained."""
        return 0

    @property
    def chosen_dtype(self) -> str:
        """Weights that learn are fp32, because a small step vanishes in bf16; a frozen base is
        bf16 where that is fast."""
        if self.dtype != "auto":
            return self.dtype
        return "bf16" if self.rank and multiplies_bf16() else "fp32"


@dataclass(frozen=True, kw_only=True)
class TuningOptions(Options):
    """Of recipes that may train an adapter in place of all weights."""

    method: str = option("lora", "what is trained", choices=("lora", "full"))
    lora_r: int = option(16, "rank of the adapter", within=POSITIVE)
    lora_alpha: int = option(32, "its weight is alpha / rank", within=POSITIVE)

    @property
    def rank(self) -> int:
        return self.lora_r if self.method == "lora" else 0


def parse(kind: type[O], arguments: Sequence[str]) -> O:
    """The options that ``arguments`` give. Raises RecipeFailed naming the one that is wrong."""
    parser = _Parser(prog=kind.__name__, allow_abbrev=False, add_help=False)
    hints = get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}
    for name in known:
        parser.add_argument(f"--{name}", default=None)
    given, unknown = parser.parse_known_args([_underscored(item) for item in arguments])
    if unknown:
        raise _unknown(unknown[0], list(known))
    found: dict[str, Any] = {
        name: _value(name, text, hints[name], known[name].metadata)
        for name, text in vars(given).items()
        if text is not None
    }
    return kind(**found)


def _value(name: str, text: str, kind: type, metadata: Any) -> object:
    if kind is bool:
        if text.lower() not in (*_YES, *_NO):
            raise RecipeFailed(f"Hyperparameter {name}: expected true or false, not {text!r}.")
        return text.lower() in _YES
    if kind is str:
        choices = metadata["choices"]
        if choices and text not in choices:
            listed = " or ".join(repr(choice) for choice in choices)
            raise RecipeFailed(f"Hyperparameter {name}: expected {listed}, not {text!r}.")
        return text
    return _number(name, text, kind, metadata["within"])


def _number(name: str, text: str, kind: type, within: Range | None) -> int | float:
    expected = "a whole number" if kind is int else "a number"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    # Clients write whole numbers as 3.0, too.
    whole = value == value and abs(value) < 2**53 and value == int(value)
    if value - value != 0 or (kind is int and not whole):
        raise RecipeFailed(f"Hyperparameter {name}: expected {expected}, not {text!r}.")
    if within is not None and not within.holds(value):
        raise RecipeFailed(f"Hyperparameter {name}: expected {within.words}, not {text!r}.")
    return int(value) if kind is int else value


def _unknown(argument: str, known: Sequence[str]) -> RecipeFailed:
    name = argument.lstrip("-").partition("=")[0]
    close = get_close_matches(name, known, n=1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return RecipeFailed(
        f"This recipe has no hyperparameter {name!r}. {meant}It has: {', '.join(sorted(known))}."
    )


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RecipeFailed(f"The hyperparameters cannot be read: {message}.")
