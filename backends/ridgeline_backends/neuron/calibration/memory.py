"""Rows on memory: does a configuration fit? A core must hold what liveness says of its programs."""

from __future__ import annotations

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXD, LibraryRules
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.decode import decoder_of
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.timing.predict import Label

_CALM = 0.9
"""What is answered to fit leaves this share of memory full at most: never a false "fits"."""


def memory_prediction(row: Row) -> tuple[bool, Label]:
    """Whether it fits, and how far to trust that: a model of which nothing is known is not said to.
    Raises `UnpredictableRow`."""
    try:
        decoder = decoder_of(row)
    except NotFound:
        return False, "prior-only"
    batch, length = row.integer("batch", 1), row.integer("seq_len", 1024)
    programs = [
        decoder_program(
            decoder.model,
            decoder.config,
            phase=phase,
            bucket=length,
            rules=decoder.rules,
            batch=several,
        )
        for phase, several in (
            (Phase.TOKEN_GENERATION, batch),
            (Phase.CONTEXT_ENCODING, _prompts(row, decoder.rules, batch)),
        )
    ]
    need = core_need(programs, decoder.machine.chip).total
    exact = row.config is not None or find(row.model, "decoders").exact
    limit = decoder.machine.core_memory_bytes * _CALM
    return need < limit, "extrapolated" if exact else "prior-only"


def _prompts(row: Row, rules: LibraryRules, batch: int) -> int:
    """Prompts encoded in one call: one, but for embeddings and where the library takes them all."""
    return batch if "embedding" in row.model.lower() or rules not in NXD else 1
