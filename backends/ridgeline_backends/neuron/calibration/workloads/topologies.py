"""Topologies of training as rows have them: "TP=8 DP=32 PP=4", "[8xNC(TP)x4(DP)] x 2Nodes(DP)"."""

from __future__ import annotations

import re

from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow

_NAMED = re.compile(r"(?<![a-z])(?P<name>tp|pp|dp)\s*[=:]?\s*(?P<degree>\d{1,9})")
_NUMBERED = re.compile(r"(?P<degree>\d{1,9})\s*(?:x\s*)?(?:nc|nodes?)?\s*\((?P<name>tp|pp|dp)\)")
_BESIDE = re.compile(r"\bzero(?:[-_ ]?1)?\b|\bx\b|[\s\[\](){},;+&/*|_-]+")
"""What says nothing of how the model is cut."""


def degrees_of(row: Row) -> dict[str, int]:
    """Of tensors and stages, "tp" and "pp", as far as the row says. Raises `UnpredictableRow` for
    one of 0, and for two of one name. Degrees of data follow from the cores."""
    found: dict[str, int] = {}
    for name, degree in _pairs(row):
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
    rest = _topology(row)
    for one in (_NUMBERED, _NAMED, _BESIDE):
        rest = one.sub(" ", rest)
    return not rest.strip() and bool(_pairs(row))


def is_optimizer_cut(row: Row) -> bool:
    """Whether it says ZeRO: the optimizer's state lies over the cores in parts."""
    return "zero" in _topology(row)


def _pairs(row: Row) -> list[tuple[str, int]]:
    return [
        (one["name"], int(one["degree"]))
        for pattern in (_NUMBERED, _NAMED)
        for one in pattern.finditer(_topology(row))
    ]


def _topology(row: Row) -> str:
    return row.text("topology").lower()
