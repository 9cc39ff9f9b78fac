"""Why a recipe cannot go on, in words for its user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 20
"""How many faults of the data are listed; the rest is counted."""


class RecipeFailed(Exception):
    """A setting, the data or the base model does not allow training. The message is for the user,
    and says what to do."""


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


@dataclass(frozen=True)
class Fault:
    """One wrong line. ``line`` counts from 1; ``field`` is a path such as ``messages[2].role``."""

    file: str
    line: int
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: expected {self.expected}, not {self.found}"


class DataInvalid(RecipeFailed):
    """Lines of the training data are wrong; ``faults`` holds every one of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = len({(fault.file, fault.line) for fault in faults})
        what = (
            "1 line of the data is wrong" if lines == 1 else f"{lines} lines of the data are wrong"
        )
        listed = [str(fault) for fault in faults[:SHOWN]]
        if len(faults) > SHOWN:
            listed.append(f"... and {len(faults) - SHOWN} more")
        super().__init__("\n".join([f"{what}; nothing was trained.", *listed]))
