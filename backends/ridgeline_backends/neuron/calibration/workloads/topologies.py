"""Topologies of training as rows have them: "TP=8 DP=32 PP=4", "[8xNC(TP)x4(DP)] x 2Nodes(DP)",
"8-way TP, 4-way PP"."""

from __future__ import annotations

import re

from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow

_NAMED = re.compile(
    r"(?<![a-z])(?P<name>tp|pp|dp)(?:[-_ ]?(?:degree|size))?\s*[=:]?\s*(?P<degree>\d{1,9})"
)
_NUMBERED = re.compile(r"(?P<degree>\d{1,9})\s*(?:x\s*)?(?:nc|nodes?)?\s*\((?P<name>tp|pp|dp)\)")
_WAYS = re.compile(r"\b(?P<degree>\d{1,9})[-_ ]?way[-_ ]*(?P<name>tp|pp|dp)\b")
_SPELLINGS = (_NUMBERED, _WAYS, _NAMED)
"""Each is read of what those before it leave: "8-way TP 4-way PP" has no "TP 4"."""

_BESIDE = re.compile(r"\bzero(?:[-_ ]?1)?\b|\bx\b|[\s\[\](){},;+&/*|_-]+")
"""What says nothing of how the model is cut."""


def degrees_of(row: Row) -> dict[str, int]:
    """Of tensors and stages, "tp" and "pp", as far as the row says. Raises `UnpredictableRow` for
    one of 0, and for two of one name. Degrees of data follow from the cores."""
    found: dict[str, int] = {}
    for name, degree in _read(row)[0]:
        if degree < 1:
            raise UnpredictableRow(
                f"{row.id}: topology {row.text('topology')!r} has a degree of 0; 1 means that "
                "nothing is cut."
            )
        if name != "dp" and found.setdefault(name, degree) != degree:
            raise UnpredictableRow(
                f"{row.id}: topology {row.text('topology')!r} has two degrees of {name.upper()}."
            )
    return found


def is_topology_read(row: Row) -> bool:
    """Whether the row has one, and no word of it is left that may cut the model otherwise."""
    pairs, rest = _read(row)
    return bool(pairs) and not _BESIDE.sub(" ", rest).strip()


def is_optimizer_cut(row: Row) -> bool:
    """Whether it says ZeRO: the optimizer's state lies over the cores in parts."""
    return "zero" in _topology(row)


def _read(row: Row) -> tuple[list[tuple[str, int]], str]:
    """Degrees by name, and the words that are none."""
    pairs, rest = [], _topology(row)
    for spelling in _SPELLINGS:
        pairs += [(one["name"], int(one["degree"])) for one in spelling.finditer(rest)]
        rest = spelling.sub(" ", rest)
    return pairs, rest


def _topology(row: Row) -> str:
    return row.text("topology").lower()
