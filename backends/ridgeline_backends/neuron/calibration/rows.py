"""Rows of published measurements, in the format of the calibration file.

A row is read as it stands; what it means is the affair of `workloads`. A row that cannot be used
(an unknown category, a field of the wrong type) is answered by name, never dropped silently.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TypeGuard

from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.calibration.dates import read_date
from ridgeline_backends.neuron.datafile import item_lines, read_plain

SCORED = (
    "llm_decode",
    "serving",
    "llm_profile",
    "training",
    "encoder",
    "vision",
    "collective",
    "memory",
)
"""Categories that predictions are scored in."""

_SHIFTED = "a_column_was_shifted_in_the_source"
"""Flag of rows of which a field holds what belongs to another: it counts as absent."""

DOUBTFUL = (
    "semantics_of_latency_column_disputed",
    "batch_column_probably_wrong",
    "tok_s_counts_prompt_tokens",
    _SHIFTED,
    "tp_dp_not_stated",
    "secondary_source",
)
"""Flags of rows that errors are not taken over: their own source is in doubt."""

_VERSION = re.compile(r"(?:sdk )?v?2\.(\d+)", re.I)
_LATER_VERSION = re.compile(r"(?:sdk )?v?(?:[3-9]|\d\d+)\.\d", re.I)
_NEWEST = 99
"""What a release after 2.x is taken for: later than any that something is known of."""

_FIRST_TABLES = 2022
"""The year of tables that name no release."""

_WHOLE_SECOND_PLACE = 10
"""SDK 2.2 and 2.20 are one number to YAML, 2.21 is no other."""

_WRITTEN_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_WRITTEN_NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.\d*)?(?:[eE][+-]?\d{1,2})?", re.ASCII)

_TWIN_RATES = 1.1
"""Repetitions of a sweep come to rates that differ by no more."""

_SETTING = ("model", "instance", "framework", "workload", "tp", "dp", "batch", "input_len",
            "output_len", "seq_len", "scheduler")  # fmt: skip
"""What the runs of one sweep have in common."""


class UnpredictableRow(InvalidInput):
    """A row that says too little, or of whose model nothing is known: refused, with the reason."""

    code = "UnpredictableRow"


@dataclass(frozen=True, slots=True)
class Row:
    """`values`: the row's own fields. `swept`: its rate is what the same server came to with all
    clients at once, as rows beside it say. `fault`: why it is no row at all."""

    values: Mapping[str, object]
    swept: bool = False
    fault: str = ""

    @property
    def id(self) -> str:
        return self.text("id")

    @property
    def category(self) -> str:
        return self.text("cat")

    @property
    def model(self) -> str:
        return self.text("model")

    @property
    def config(self) -> Mapping[str, object] | None:
        """A config.json that the row brings along, with numbers where it has them as texts."""
        value = self.values.get("config")
        return _with_numbers(value) if isinstance(value, Mapping) else None

    @property
    def one_sided(self) -> bool:
        """The measured value is a bound that the true one stays below."""
        return self.values.get("kind") == "upper_bound"

    @property
    def usable(self) -> bool:
        """Measured, and its source is not in doubt."""
        return self.values.get("kind", "measured") != "nominal" and not any(
            str(flag).startswith(DOUBTFUL) for flag in self.listing("flags")
        )

    @property
    def sdk_minor(self) -> int | None:
        """18 of SDK 2.18.1, 99 of one after 2.x; None where the row does not say. Raises
        `UnpredictableRow` for a number that several releases are written as: 2.20 without quotes
        is 2.2."""
        found = _VERSION.match(self.text("sdk"))
        given = self.values.get("sdk")
        if _is_finite(given) and (found is None or int(found.group(1)) < _WHOLE_SECOND_PLACE):
            raise UnpredictableRow(
                f"{self.id}: sdk must be a text, not the number {given}: 2.20 is 2.2 to YAML.",
                hint='Quote it: sdk: "2.20".',
            )
        if found:
            return int(found.group(1))
        if _LATER_VERSION.match(self.text("sdk")):
            return _NEWEST
        # The oldest tables print a date alone: SDK 2.3 and 2.4 are of that autumn.
        return 4 if self.day is not None and self.day.year == _FIRST_TABLES else None

    @property
    def day(self) -> date | None:
        """When it was measured; None where the row does not say. Raises `UnpredictableRow` for what
        is no date."""
        try:
            return read_date(self.text("date"))
        except ValueError:
            raise UnpredictableRow(
                f"{self.id}: date {self.text('date')!r} is no date.",
                hint="Write it as 2026-03-17, or leave it out.",
            ) from None

    def check(self) -> None:
        """Raises `UnpredictableRow` for what is no row."""
        if self.fault:
            raise UnpredictableRow(self.fault, hint="Give each row an `id` of its own, and `cat`.")

    def has(self, name: str) -> bool:
        """Whether the row says anything of it, be it of the wrong type."""
        return self._setting(name) is not None

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return "" if value is None else str(value)

    def stated(self, name: str) -> str:
        """A setting as a text in small letters; "" where the row does not say, or another column
        was shifted there."""
        value = self._setting(name)
        return "" if value is None else str(value).strip().lower()

    def number(self, name: str, default: float | None = None) -> float:
        """Raises `UnpredictableRow` for what is no finite number, and where it is missing and there
        is no default."""
        value = self._setting(name)
        if value is None:
            if default is None:
                raise UnpredictableRow(f"{self.id} has no number {name!r}.")
            return default
        number = _number(value)
        if not _is_finite(number):
            raise UnpredictableRow(f"{self.id}: {name} must be a number, not {value!r}.")
        return float(number)

    def positive(self, name: str) -> float | None:
        """A finite number above 0, as whatever is measured; None where there is anything else."""
        value = self.values.get(name)
        return float(value) if _is_finite(value) and value > 0 else None

    def integer(self, name: str, default: int | None = None) -> int:
        """A count. Raises `UnpredictableRow` for one that is missing or below 1."""
        value = int(self.number(name, default))
        if value < 1:
            raise UnpredictableRow(f"{self.id}: {name} is {value}, which is no count.")
        return value

    def listing(self, name: str) -> Sequence[object]:
        value = self.values.get(name)
        return value if isinstance(value, list | tuple) else ()

    def _setting(self, name: str) -> object:
        value = self.values.get(name)
        return None if isinstance(value, str) and _SHIFTED in self.listing("flags") else value


def read_rows(path: Path) -> list[Row]:
    """All rows of a file: its list, or what is under `rows`. Raises `InvalidInput`."""
    found = read_plain(path)
    listed = found.get("rows") if isinstance(found, dict) else found
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        hint = "It must be a list of mappings, or have one under `rows`."
        raise InvalidInput(f"{path} holds no rows.", hint=hint)
    if not listed:
        hint = "Its list is empty. Give it a row for each measurement, with `id` and `cat`."
        raise InvalidInput(f"{path} holds no rows.", hint=hint)
    return _with_sweeps(_with_faults(path, [Row(one) for one in listed]))


def _with_faults(path: Path, rows: Sequence[Row]) -> list[Row]:
    """The same, of which those without `id` or `cat`, and those whose id is another's, say so. They
    are called by their place: predictions are told apart by ids."""
    first: dict[str, int] = {}
    return [_checked(path, row, place, first) for place, row in enumerate(rows)]


def _checked(path: Path, row: Row, place: int, first: dict[str, int]) -> Row:
    lacks = next((name for name in ("id", "cat") if not row.text(name)), None)
    own = f"{row.id} (row {place + 1})" if row.id else f"row {place + 1}"
    if lacks is not None:
        fault = f"{own} lacks `{lacks}`."
    elif first.setdefault(row.id, place) != place:
        lines = item_lines(path, "rows")
        fault = (
            f"{own}: the id {row.id!r} is there twice: lines {lines[first[row.id]]} and "
            f"{lines[place]}."
        )
    else:
        return row
    return Row({**row.values, "id": own, "cat": row.category or "(none)"}, fault=fault)


def _with_sweeps(rows: Sequence[Row]) -> list[Row]:
    """The same, with the constant rates marked that were made of a run beside them. A sweep of
    guidellm is one client, then all at once, then the rate that this came to; a rate that stands
    alone, or beside others, was somebody's choice."""
    rates: dict[tuple[object, ...], list[float]] = {}
    others = set()
    for row in rows:
        if _at_a_rate(row):
            rates.setdefault(_sweep(row), []).append(row.positive("rate_req_s") or 0.0)
        elif row.stated("mode"):
            others.add(_sweep(row))
    swept = {
        sweep
        for sweep, found in rates.items()
        if sweep in others and 0 < max(found) <= _TWIN_RATES * min(found)
    }
    return [
        replace(row, swept=True) if _at_a_rate(row) and _sweep(row) in swept else row
        for row in rows
    ]


def _at_a_rate(row: Row) -> bool:
    return row.category == "serving" and row.stated("mode") == "asynchronous"


def _sweep(row: Row) -> tuple[object, ...]:
    """A setting is the same in any letters, and as a number or a text."""
    return tuple(_number(row.stated(name)) for name in _SETTING)


def _number(value: object) -> object:
    """The number that a text is; anything else as it stands."""
    if isinstance(value, str) and _WRITTEN_NUMBER.fullmatch(value.strip()):
        return float(value)
    return value


def _with_numbers(config: Mapping[str, object]) -> Mapping[str, object]:
    return {name: _plain(value) for name, value in config.items()}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return _with_numbers(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str) and _WRITTEN_INTEGER.fullmatch(value.strip()):
        return int(value)
    return _number(value)


def _is_finite(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that arithmetic can go on with."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def newest(rows: Sequence[Row]) -> list[Row]:
    """Of each configuration the row of the newest SDK, the last of equals; rows without a
    configuration number stand for themselves."""
    best: dict[str, Row] = {}
    for row in rows:
        key = f"{row.category}:{row.text('cfg') or row.id}"
        if key not in best or _age(row) >= _age(best[key]):
            best[key] = row
    return list(best.values())


def releases(rows: Sequence[Row]) -> list[Row]:
    """Of each release its last row, oldest first; none of which the release is not known."""
    found = {_release(row): row for row in sorted(rows, key=_age)}
    return [row for release, row in found.items() if release]


def _age(row: Row) -> tuple[int, date]:
    return _release(row), _measured_on(row)


def _release(row: Row) -> int:
    try:
        return row.sdk_minor or 0
    except UnpredictableRow:  # which one is not known
        return 0


def _measured_on(row: Row) -> date:
    try:
        return row.day or date.min
    except UnpredictableRow:
        return date.min
