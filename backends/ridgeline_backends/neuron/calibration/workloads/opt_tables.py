"""The tables of OPT in Neuron's documentation, SDK 2.9 to 2.14: what they print wrong, or not.

OPT was shown at its longest, and its batches, some of which are printed with a length whose KV no
instance could hold, at a short one: so says the script of SDK 2.14. A row from elsewhere, or on
memory, means what it says.
"""

from __future__ import annotations

from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.catalogue import known_language_model

PROMPT, LENGTH = 9, 128
"""Of all runs; and of sequences in batches."""

_BATCH = 256
_UNTIL, _BATCHES_MISPRINTED_UNTIL = 14, 10


def prints(row: Row) -> bool:
    """Whether the row is of these tables."""
    known = known_language_model(row.model)
    return (
        row.category == "llm_decode"
        and row.text("origin") == "neuron-docs"
        and (row.sdk_minor or 99) <= _UNTIL
        and known is not None
        and known.name.startswith("opt-")
    )


def batch_meant(row: Row, batch: int) -> int:
    """The first of these tables print 5 and 64 for the runs that the next print with 256."""
    early = (row.sdk_minor or 99) <= _BATCHES_MISPRINTED_UNTIL
    return _BATCH if early and batch > 1 else batch
