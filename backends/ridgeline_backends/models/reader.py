"""Reading JSON files of a model directory, with errors that name the setting.

Knows no model: what a setting means is `config`'s and `encoder_config`'s affair. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ridgeline_backends.errors import InvalidModel, UnsupportedModel

_MOST = {"n_layer": 4096, "layers": 4096, "experts": 4096, "labels": 1 << 20}
"""By how the name of a setting ends. Something is made for each one that is counted, by our code
and by that of libraries, before it is known whether the model fits into memory."""


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file of a model directory. Raises `InvalidModel`."""
    value = _read(path)
    if not isinstance(value, dict):
        raise InvalidModel(f"{path.name} must hold a JSON object.")
    return value


def read_json_list(path: Path) -> list[dict[str, object]]:
    """A list of JSON objects. Raises `InvalidModel`."""
    value = _read(path)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidModel(f"{path.name} must hold a list of JSON objects.")
    return value


def _read(path: Path) -> object:
    try:
        value: object = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InvalidModel(
            f"{path.name} is missing from the model directory.",
            hint="It must be in Hugging Face format.",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} cannot be read: {error}") from error
    return value


def check_counts(config: Mapping[str, object]) -> None:
    """Raises `InvalidModel` for a count of layers, experts or labels, on any level of a config,
    that is above what any model has."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            check_counts(value)
        elif isinstance(value, int):
            _check_count(key, value)


def _check_count(key: str, value: int) -> None:
    most = next((most for end, most in _MOST.items() if key.endswith(end)), value)
    if value > most:
        raise InvalidModel(
            f"{key} in config.json is {value}; at most {most} are supported.",
            hint="Correct the number, or take the config.json that came with the weights.",
        )


@dataclass(frozen=True, slots=True)
class Reader:
    """Settings by name. A setting that is null counts as one that is not there.

    Every method raises `InvalidModel` for a value of the wrong kind.
    """

    config: Mapping[str, object]

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidModel(f"{key} in config.json must be a positive integer, not {value!r}.")
        _check_count(key, value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InvalidModel(f"{key} in config.json must be a positive number, not {value!r}.")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """A positive number, or None where there is none."""
        return None if self.config.get(key) is None else self.number(key)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise InvalidModel(f"{key} in config.json must be true or false, not {value!r}.")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of positive numbers."""
        value = self.config.get(key)
        if not isinstance(value, list) or not value:
            raise InvalidModel(f"{key} in config.json must be a list of numbers, not {value!r}.")
        return tuple(Reader({key: one}).number(key) for one in value)

    def section(self, key: str) -> Mapping[str, object]:
        """An object within; empty where there is none."""
        value = self._value(key, {})
        if not isinstance(value, Mapping):
            raise InvalidModel(f"{key} in config.json must be an object, not {value!r}.")
        return value

    def token_ids(self, key: str) -> frozenset[int]:
        """One id or a list of them."""
        value = self.config.get(key)
        values = value if isinstance(value, list) else [value]
        return frozenset(v for v in values if isinstance(v, int) and not isinstance(v, bool))

    def refuse_unless(self, key: str, only: object) -> None:
        """Raises `UnsupportedModel` for any other value: nothing here would honour it."""
        value = self._value(key, only)
        if value != only:
            raise UnsupportedModel(f"{key} = {value!r} is not supported; only {only!r} is.")

    def refuse_others(self, known: Iterable[str], where: str) -> None:
        """Raises `UnsupportedModel` for a setting with a value that is not among `known`."""
        strange = sorted(k for k, v in self.config.items() if v is not None and k not in known)
        if strange:
            raise UnsupportedModel(f"{where} has {', '.join(strange)}, which is not supported.")

    def _value(self, key: str, default: object) -> object:
        value = self.config.get(key)
        return default if value is None else value
