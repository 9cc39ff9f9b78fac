"""DataProcessing: what of a record the model sees, what of its answer is kept, and the two joined.

A row of CSV is a list of its fields, a line or document of JSON its value; filters are JSONPath.
Text in, text out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jsonpath import JSONPath, JSONPathError
from jsonpath import compile as parse

Format = Literal["csv", "jsonlines", "json"]

_FORMATS: dict[str, Format] = {
    "text/csv": "csv",
    "application/jsonlines": "jsonlines",
    "application/x-jsonlines": "jsonlines",
    "application/json": "json",
}


class BadRows(Exception):
    """Text that is not of its format, a path that finds nothing, rows that do not pair."""


def format_of(content_type: str) -> Format | None:
    """None for types without rows."""
    return _FORMATS.get(content_type.partition(";")[0].strip().lower())


def path_of(text: str) -> JSONPath:
    """Raises BadRows for what is no JSONPath."""
    try:
        found = parse(text)
    except JSONPathError as error:
        reason = str(error).partition("\n")[0].strip()
        raise BadRows(f"{text!r} is no JSONPath ({reason})") from error
    if not isinstance(found, JSONPath) or not text.startswith("$"):
        raise BadRows(f"{text!r} is no JSONPath: it begins with $, like $.features or $[1:]")
    return found


@dataclass(frozen=True)
class Filters:
    """Paths as requests give them; ``$`` is everything."""

    input: str = "$"
    output: str = "$"
    join: bool = False

    @property
    def idle(self) -> bool:
        return self.input == "$" and self.output == "$" and not self.join


class RowFilter:
    """Both directions for the inputs of one job. ``content_type`` is of the input."""

    def __init__(self, filters: Filters, content_type: str, *, one_a_line: bool) -> None:
        """``one_a_line``: each line of a request is a record. Raises BadRows."""
        found = format_of(content_type)
        if found is None:
            raise BadRows(
                f"DataProcessing needs rows, and {content_type or 'no ContentType'} has none: "
                "give ContentType text/csv, application/jsonlines or application/json"
            )
        self._format: Format = "jsonlines" if found == "json" and one_a_line else found
        self._join = filters.join
        self._input = path_of(filters.input)
        self._output = path_of(filters.output)

    def request(self, body: bytes) -> bytes:
        """What the model is sent of these records. Raises BadRows."""
        rows = [selected(self._input, row) for row in _read(body, self._format)]
        return _write(rows, self._format)

    def answer(self, body: bytes, said: bytes, content_type: str) -> bytes:
        """What is kept of the answer ``said`` to the records ``body``. Raises BadRows."""
        kind = format_of(content_type) or self._format
        answers = _read(said, "jsonlines" if kind == "json" and self._join else kind)
        if self._join:
            if (kind == "csv") != (self._format == "csv"):
                raise BadRows(
                    f"the model answered {content_type}, which cannot be joined with the input's "
                    "format: give Accept"
                )
            answers = _joined(_read(body, self._format), answers)
        return _write([selected(self._output, row) for row in answers], kind)


def selected(path: JSONPath, row: Any) -> Any:
    """What a path finds: one value where it can only find one, else those with their names, as an
    object, or in their order, as a list. Raises BadRows where it finds nothing."""
    matches = list(path.finditer(row))
    if not matches:
        raise BadRows(f"{path} finds nothing in a record")
    if path.singular_query():
        return matches[0].obj
    names = [match.parts[-1] for match in matches]
    if all(isinstance(name, str) for name in names):
        return {name: match.obj for name, match in zip(names, matches, strict=True)}
    return [match.obj for match in matches]


def _joined(inputs: Sequence[Any], answers: Sequence[Any]) -> list[Any]:
    if len(inputs) > 1 and len(answers) == 1 and isinstance(answers[0], list):
        answers = answers[0]  # one list for the whole batch
    if len(inputs) != len(answers):
        raise BadRows(
            f"the model answered {len(answers)} rows to {len(inputs)}, so that they cannot be "
            "joined: use BatchStrategy SingleRecord"
        )
    return [_pair(row, answer) for row, answer in zip(inputs, answers, strict=True)]


def _pair(row: Any, answer: Any) -> Any:
    if isinstance(row, dict):
        return {**row, "SageMakerOutput": answer}
    if isinstance(row, _CsvRow):
        return _CsvRow([*row, *answer])
    return {"SageMakerInput": row, "SageMakerOutput": answer}


class _CsvRow(list[str]):
    """Told from a JSON list by its type."""


def _read(body: bytes, kind: Format) -> list[Any]:
    try:
        text = body.decode()
        if kind == "csv":
            return [_CsvRow(row) for row in csv.reader(io.StringIO(text)) if row]
        if kind == "json":
            return [json.loads(text)]
        # Not splitlines: JSON texts may hold the other line ends that Unicode knows.
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, csv.Error) as error:
        raise BadRows(f"a record is no {kind}: {error}") from error


def _write(rows: Sequence[Any], kind: Format) -> bytes:
    if kind != "csv":
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow(row if isinstance(row, list) else [row])
    return out.getvalue().removesuffix("\n").encode()
