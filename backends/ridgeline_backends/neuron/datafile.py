"""Strict reading of the YAML files this package ships: every complaint names the file and the line.

A field that is missing, unknown, of the wrong type or read twice is an error, so that a figure can
never be silently ignored. Knows nothing of what the fields mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import yaml

from ridgeline.errors import InvalidInput

T = TypeVar("T")
# Libyaml reads the calibration rows ten times as fast; it is missing from some builds of PyYAML.
_FASTEST: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_FASTEST):  # type: ignore[misc]
    """Reads numbers as JSON and YAML 1.2 do: to PyYAML, which is of 1.1, 1e-05 is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


class InvalidDataFile(InvalidInput):
    """A data file has a wrong, missing or unknown field. `file` and `line` say where."""

    code = "InvalidDataFile"

    def __init__(self, file: str, line: int, message: str, *, hint: str = "") -> None:
        super().__init__(f"{file}:{line}: {message}", hint=hint)
        self.file = file
        self.line = line


class Section:
    """A mapping of the file. Fields are taken by name and type; `done` refuses what is left."""

    def __init__(self, file: str, name: str, node: yaml.MappingNode) -> None:
        self.file, self.name, self.line = file, name, node.start_mark.line + 1
        self._fields: dict[str, yaml.Node] = {}
        self._taken: set[str] = set()
        for key, value in node.value:
            field = str(key.value)
            if field in self._fields:
                raise InvalidDataFile(file, key.start_mark.line + 1, f"{field!r} is there twice.")
            self._fields[field] = value

    def __contains__(self, field: str) -> bool:
        return field in self._fields and not _is_null(self._fields[field])

    def names(self) -> Iterator[str]:
        """All fields in the file's order."""
        return iter(self._fields)

    def section(self, field: str) -> Section:
        """A nested mapping."""
        node = self._take(field)
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(field, node, "a mapping")
        return Section(self.file, f"{self.name}.{field}", node)

    def text(self, field: str, default: str | None = None) -> str:
        """A text."""
        return self._scalar(field, str, "a text", default)

    def number(self, field: str, default: float | None = None) -> float:
        """A number above or equal to 0."""
        value = self._scalar(field, _number, "a number", default)
        if value < 0:
            raise self._wrong(field, self._fields[field], "a number of at least 0")
        return value

    def integer(self, field: str, default: int | None = None) -> int:
        """A whole number above or equal to 0."""
        return self._scalar(field, _integer, "a whole number", default)

    def flag(self, field: str) -> bool:
        """True or false."""
        return self._scalar(field, _flag, "true or false", None)

    def optional(self, field: str) -> float | None:
        """A number, or None where the file says null: the figure is not published."""
        if field in self._fields and _is_null(self._fields[field]):
            self._taken.add(field)
            return None
        return self.number(field)

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self._list(field, str, "a list of texts"))

    def integers(self, field: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple(self._list(field, _integer, "a list of whole numbers"))

    def numbers(self, field: str) -> Mapping[str, float]:
        """A mapping of names to numbers, whatever the names."""
        inner = self.section(field)
        return {name: inner.number(name) for name in inner.names()}

    def done(self) -> None:
        """Raises `InvalidDataFile` for the first field that nobody took."""
        for field, node in self._fields.items():
            if field not in self._taken:
                close = get_close_matches(field, self._taken, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else ""
                line = node.start_mark.line + 1
                message = f"{self.name} has the unknown field {field!r}."
                raise InvalidDataFile(self.file, line, message, hint=hint)

    def wrong(self, field: str, expected: str) -> InvalidDataFile:
        """The error for a field whose value a caller found wrong."""
        return self._wrong(field, self._fields[field], expected)

    def _take(self, field: str) -> yaml.Node:
        if field not in self._fields:
            close = get_close_matches(field, set(self._fields) - self._taken, n=1)
            hint = f"Is {close[0]!r} meant?" if close else ""
            raise InvalidDataFile(
                self.file, self.line, f"{self.name} lacks the field {field!r}.", hint=hint
            )
        self._taken.add(field)
        return self._fields[field]

    def _scalar(self, field: str, read: Callable[[str], T], expected: str, default: T | None) -> T:
        if default is not None and field not in self._fields:
            return default
        node = self._take(field)
        if not isinstance(node, yaml.ScalarNode) or _is_null(node):
            raise self._wrong(field, node, expected)
        try:
            return read(node.value)
        except ValueError:
            raise self._wrong(field, node, expected) from None

    def _list(self, field: str, read: Callable[[str], T], expected: str) -> list[T]:
        node = self._take(field)
        if not isinstance(node, yaml.SequenceNode):
            raise self._wrong(field, node, expected)
        try:
            return [read(str(item.value)) for item in node.value]
        except ValueError:
            raise self._wrong(field, node, expected) from None

    def _wrong(self, field: str, node: yaml.Node, expected: str) -> InvalidDataFile:
        line = node.start_mark.line + 1
        found = node.value if isinstance(node, yaml.ScalarNode) else node.tag.rpartition(":")[2]
        message = f"{self.name}.{field} must be {expected}, not {found!r}."
        return InvalidDataFile(self.file, line, message)


def read_sections(path: Path) -> Section:
    """The top-level mapping of a YAML file. Raises `InvalidDataFile`, `InvalidInput` if absent."""
    node = _read(path, lambda text: yaml.compose(text, Loader=_Loader))
    if not isinstance(node, yaml.MappingNode):
        raise InvalidDataFile(path.name, 1, "the file must be a mapping.")
    return Section(path.name, path.stem, node)


def read_plain(path: Path) -> object:
    """The whole file as plain Python values: for files that users hand in and that are large.
    Raises as `read_sections`."""
    return _read(path, lambda text: yaml.load(text, Loader=_Loader))  # noqa: S506


def item_lines(path: Path, field: str) -> list[int]:
    """Where in a file that `read_plain` read the items of its list begin, or those of the list that
    is `field` of its mapping."""
    node = _read(path, lambda text: yaml.compose(text, Loader=_Loader))
    if isinstance(node, yaml.MappingNode):
        node = next((value for key, value in reversed(node.value) if key.value == field), None)
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    return [item.start_mark.line + 1 for item in items]


def _read(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path} is no UTF-8 text: byte {error.start + 1} is {error.object[error.start]:#04x}.",
            hint="Give a YAML file, in UTF-8.",
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidDataFile(path.name, line, f"no YAML: {error.problem}.") from error
    # A character that YAML does not have, or a date that the calendar does not.
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInput(f"{path} is no YAML: {error}.", hint="Correct that value.") from error


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _number(text: str) -> float:
    return float(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _integer(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value
