"""Hashes of downloaded files: those a card states, and those recorded at the first download.

The first download of a file whose card states no hash records it ("pins" it); every later one
must match. Knows files by name only, not where they come from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ridgeline.errors import InvalidInput
from ridgeline_zoo.errors import HashMismatch

_CHUNK = 1 << 20
_PINS = TypeAdapter(dict[str, dict[str, str]])


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class HashBook:
    """The hashes that hold for one source: ``stated`` by the card, else in the pins file."""

    def __init__(
        self, stated: Mapping[str, str], *, pins_file: Path | None = None, key: str = ""
    ) -> None:
        self._stated = stated
        self._pins_file = pins_file
        self._key = key
        self._pinned = _read_pins(pins_file).get(key, {}) if pins_file else {}
        self._fresh: dict[str, str] = {}

    def expected(self, name: str) -> str | None:
        """The hash the file must have, or None if it is seen for the first time."""
        return self._stated.get(name) or self._pinned.get(name)

    def check(self, name: str, path: Path) -> str:
        """Hash the file and compare; returns the hash. Raises HashMismatch."""
        actual = sha256_of(path)
        expected = self.expected(name)
        if expected is None:
            self._fresh[name] = actual
        elif expected != actual:
            where = "its card" if name in self._stated else str(self._pins_file)
            raise HashMismatch(name, expected=expected, actual=actual, recorded_in=where)
        return actual

    def save(self) -> None:
        """Record what was new. To be called when the whole source was fetched and accepted."""
        if self._pins_file is None or not self._fresh:
            return
        # Read again: another prepare may have recorded its own model meanwhile.
        pins = _read_pins(self._pins_file)
        pins[self._key] = {**pins.get(self._key, {}), **self._fresh}
        self._pins_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._pins_file.with_name(f".{self._pins_file.name}.{os.getpid()}")
        temporary.write_text(json.dumps(pins, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(self._pins_file)


def _read_pins(path: Path) -> dict[str, dict[str, str]]:
    try:
        return _PINS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise InvalidInput(
            f"the pins file {path} cannot be read: {error.errors()[0]['msg']}",
            hint="Restore it from a backup, or remove it to record hashes anew.",
        ) from error
