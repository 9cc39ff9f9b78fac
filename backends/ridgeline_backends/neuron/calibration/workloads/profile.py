"""Rows of a profiler: one call of context encoding and one decode step, device time alone."""

from __future__ import annotations

from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.decode import decoder_of


def profile_quantities(row: Row) -> list[Quantity]:
    """Fields of "llm_profile"."""
    decoder = decoder_of(row)
    batch, length = row.integer("batch", 1), row.integer("seq_len")
    return [
        Quantity("derived_tkg_ms", "profile:tkg", decoder.step(batch, length), 1e3),
        Quantity("derived_ctx_ms", "profile:ctx", decoder.prefill(batch, length), 1e3),
    ]
