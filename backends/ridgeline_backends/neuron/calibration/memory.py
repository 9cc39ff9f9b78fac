"""Rows on memory: does a configuration fit? A core must hold what liveness says of its programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ridgeline.errors import NotFound
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXD, LibraryRules
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.calibration.places import degree_of, machine_of
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.decode import decoder_of
from ridgeline_backends.neuron.calibration.workloads.encoder import encoder_program
from ridgeline_backends.neuron.calibration.workloads.encoder_decoder import (
    encoder_decoder_programs,
)
from ridgeline_backends.neuron.calibration.workloads.image_models import is_image_model
from ridgeline_backends.neuron.calibration.workloads.vision import vision_programs
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.catalogue.families import is_decoder
from ridgeline_backends.neuron.liveness import core_need
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.predict import Label

_CALM = 0.9
"""What is answered to fit leaves this share of memory full at most: never a false "fits"."""


def memory_prediction(row: Row) -> tuple[bool, Label]:
    """Whether it fits, and how far to trust that: a model of which nothing is known is not said to.
    Raises `UnpredictableRow`."""
    kind, exact = _kind(row)
    machine = machine_of(row)
    try:
        programs = _PROGRAMS[kind](row)
    except NotFound:
        return False, "prior-only"
    need = core_need(programs, machine.chip).total
    limit = machine.core_memory_bytes * _CALM
    return need < limit, "extrapolated" if exact else "prior-only"


def _kind(row: Row) -> tuple[str, bool]:
    """In the catalogue's words, and whether its sizes are known. By name it is whatever knows it;
    what nothing knows is taken for a decoder."""
    if row.config is not None:
        return _kind_of(row.config), True
    for kind in _PROGRAMS:
        try:
            if find(row.model, kind).exact:
                return kind, True
        except NotFound:
            continue
    return "decoders", False


def _kind_of(config: Mapping[str, object]) -> str:
    if is_image_model(config):
        return "vision"
    if config.get("is_encoder_decoder") is True:
        return "encoder_decoders"
    return "decoders" if is_decoder(config) else "encoders"


def _decoder(row: Row) -> Sequence[Program]:
    decoder = decoder_of(row)
    batch, length = row.integer("batch", 1), row.integer("seq_len", 1024)
    phases = {
        Phase.TOKEN_GENERATION: batch,
        Phase.CONTEXT_ENCODING: _prompts(row, decoder.rules, batch),
    }
    return [
        decoder_program(
            decoder.model,
            decoder.config,
            phase=phase,
            bucket=length,
            rules=decoder.rules,
            batch=several,
        )
        for phase, several in phases.items()
    ]


def _encoder(row: Row) -> Sequence[Program]:
    config = row.config if row.config is not None else find(row.model, "encoders").config
    cores = degree_of(row, machine_of(row))
    return [encoder_program(config, row, row.integer("batch", 1), cores=cores)]


_PROGRAMS: Mapping[str, Callable[[Row], Sequence[Program]]] = {
    "decoders": _decoder,
    "encoders": _encoder,
    "encoder_decoders": encoder_decoder_programs,
    "vision": vision_programs,
}
"""What the device executes, by the kind of model."""


def _prompts(row: Row, rules: LibraryRules, batch: int) -> int:
    """Prompts encoded in one call: one, but for embeddings and where the library takes them all."""
    return batch if "embedding" in row.model.lower() or rules not in NXD else 1
