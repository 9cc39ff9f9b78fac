"""Rows of encoder-decoders: a source is encoded, then an answer made token by token."""

from __future__ import annotations

from ridgeline_backends.neuron.builders.encoder_decoder import (
    build_source,
    build_token_step,
    encoder_decoder_shape,
)
from ridgeline_backends.neuron.calibration.places import degree_of, machine_of
from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.work import Work


def encoder_decoder_quantities(row: Row) -> list[Quantity]:
    """Fields of "llm_encdec": latency per token is that of the whole run."""
    machine = machine_of(row)
    batch, answer = row.integer("batch", 1), row.integer("output_len", 128)
    encoded, step = (Work.of(one, machine) for one in encoder_decoder_programs(row))
    # The loop runs on the host, which chooses every token.
    step = Work.total((step, Work.host(steps=1.0)))
    whole = Work.total((encoded, step * answer))
    return [
        Quantity("tok_lat_p50_ms", "encdec:tpot", whole, 1e3 / answer),
        Quantity("tok_s", "encdec:tok_s", whole, batch * answer, rate=True),
    ]


def encoder_decoder_programs(row: Row) -> tuple[Program, Program]:
    """Encoding of a batch of sources, and one token of each. Raises `NotFound` and `InvalidModel`,
    and `UnsupportedModel` for a config of another kind."""
    shape = encoder_decoder_shape(row.config or find(row.model, "encoder_decoders").config)
    batch, cores = row.integer("batch", 1), degree_of(row, machine_of(row))
    source = shape.frames or row.integer("input_len", row.integer("seq_len", 128))
    length = row.integer("seq_len", row.integer("output_len", 128))
    return (
        build_source(shape, batch=batch, length=source, cores=cores),
        build_token_step(shape, batch=batch, source=source, length=length, cores=cores),
    )
