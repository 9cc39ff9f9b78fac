"""JSON lines, read with their line numbers; every fault of every line is collected before any of
them is reported. What a record must hold is told by ``formats``."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from ridgeline_recipes.failing import DataInvalid, Fault, RecipeFailed, listed
from ridgeline_recipes.job import say

T = TypeVar("T")

_LONGEST_SHOWN = 60


class Record:
    """One line of a file. Its faults go where those of all lines go."""

    def __init__(
        self, values: Mapping[str, object], file: str, line: int, faults: list[Fault]
    ) -> None:
        self.values = values
        self._file = file
        self._line = line
        self._faults = faults

    @property
    def place(self) -> str:
        """Where it is, as messages name it."""
        return f"{self._file}:{self._line}"

    def fault(self, field: str, expected: str, found: str) -> None:
        self._faults.append(Fault(self._file, self._line, field, expected, found))

    def wrong(self, field: str, expected: str, value: object) -> None:
        """A fault whose ``found`` is the value itself, shortened."""
        self.fault(field, expected, shown(value))

    def missing(self, field: str, expected: str) -> None:
        """A field is not there; names one that looks like it."""
        close = get_close_matches(field, self.values, n=1)
        named = f"a line with {close[0]!r} in its place" if close else "a line without it"
        self.fault(field, expected, named)


Parse = Callable[[Record], "T | None"]
"""Makes a value of a record, or tells the record what is wrong and returns None."""


def read_records(paths: Sequence[Path], parse: Parse[T]) -> list[T]:
    """All records of the files, in their order.

    Raises DataInvalid with every fault. Blank lines are skipped; a file without any record is one.
    """
    faults: list[Fault] = []
    found: list[T] = []
    for path in paths:
        records = 0
        for line, data in _lines(path):
            records += 1
            values = _object(path.name, line, data, faults)
            if values is None:
                continue
            value = parse(Record(values, path.name, line, faults))
            if value is not None:
                found.append(value)
        if not records:
            faults.append(Fault(path.name, 1, "(file)", "one JSON object a line", "an empty file"))
    if faults:
        raise DataInvalid(faults)
    return found


def jsonl_files(folder: Path, channel: str, *, also: str = "") -> list[Path]:
    """The .jsonl files of a channel, by name, without hidden ones: systems leave such beside the
    user's own. Raises RecipeFailed if there are none, and logs which others are not read. ``also``
    names one of the folder itself that the caller reads."""
    if not folder.is_dir():
        raise RecipeFailed(f"The job has no channel {channel!r}: fit({{{channel!r}: 's3://...'}}).")
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    )
    chosen = [path for path in files if path.suffix == ".jsonl"]
    others = [
        str(path.relative_to(folder))
        for path in files
        if path.suffix != ".jsonl" and path != folder / also
    ]
    if not chosen:
        there = listed([path.name for path in files]) or "nothing"
        raise RecipeFailed(
            f"Channel {channel!r} holds no .jsonl file (there: {there}). "
            "Give JSON lines: one JSON object a line, in files named *.jsonl."
        )
    if others:
        say(f"Channel {channel!r}: not read, since only *.jsonl is: {listed(others)}")
    return chosen


def validation_records(folder: Path | None, parse: Parse[T]) -> list[T] | None:
    """What the validation channel holds; None if the job has none."""
    return None if folder is None else read_records(jsonl_files(folder, "validation"), parse)


def with_held_out(
    records: Sequence[T],
    validation: Sequence[T] | None,
    seed: int,
    kind: Callable[[T], str] = lambda record: "",
) -> tuple[list[T], list[T]]:
    """Records to learn and records to be tested with: the validation channel's, else a tenth of the
    training data, which leaves one of each ``kind`` to learn. Raises RecipeFailed if there are too
    few."""
    if validation is not None:
        return list(records), list(validation)
    mixed = list(records)
    random.Random(seed).shuffle(mixed)  # noqa: S311 - an order, not a secret
    learned = set({kind(record): at for at, record in enumerate(mixed)}.values())
    others = [at for at in range(len(mixed)) if at not in learned]
    held_out = set(others[: max(1, len(mixed) // 10)])
    if not held_out:
        what = "One record" if len(mixed) == 1 else "The only record of a label"
        raise RecipeFailed(
            f"{what} cannot be both learned and held out: give more, or a channel 'validation'."
        )
    return (
        [record for at, record in enumerate(mixed) if at not in held_out],
        [record for at, record in enumerate(mixed) if at in held_out],
    )


def shown(value: object) -> str:
    """A value as a message shows it."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list):
        text = f"a list of {len(value)}"
    elif isinstance(value, Mapping):
        text = f"an object with {', '.join(map(str, value)) or 'nothing'}"
    else:
        text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            content = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
            if content.strip():
                yield number, content


def _object(file: str, line: int, data: bytes, faults: list[Fault]) -> Mapping[str, object] | None:
    try:
        value: object = json.loads(data.decode())
    except UnicodeDecodeError as error:
        at = f"byte 0x{data[error.start]:02x} at position {error.start + 1}"
        faults.append(Fault(file, line, "(line)", "text in UTF-8", at))
        return None
    except json.JSONDecodeError as error:
        where = f"JSON that breaks at column {error.colno} ({error.msg})"
        faults.append(Fault(file, line, "(line)", "a JSON object", where))
        return None
    except RecursionError:
        faults.append(Fault(file, line, "(line)", "a JSON object", "JSON nested without end"))
        return None
    if not isinstance(value, dict):
        faults.append(Fault(file, line, "(line)", "a JSON object", shown(value)))
        return None
    if b"\\u" in data and not _is_text(value):
        faults.append(Fault(file, line, "(line)", "text in Unicode", "half of a surrogate pair"))
        return None
    return value


def _is_text(value: object) -> bool:
    """JSON may escape half a character, which no tokenizer and no log takes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
