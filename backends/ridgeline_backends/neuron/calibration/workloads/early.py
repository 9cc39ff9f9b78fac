"""What transformers-neuronx did before SDK 2.18, beyond what its programs of today do.

The first release with grouped queries (0.9.474, SDK 2.16) gave every core all KV heads and their
matrices where the degree is above their number, and wrote each step's keys and values anew for
every query head before it attended. Seen in its tables: a step of Llama-2-70b over 24 cores takes
24 us more a position, about what copying 64 heads takes, and 8 ms more whatever the length, which
is all heads' K and V matrices; SDK 2.18 prints neither.
"""

from __future__ import annotations

from dataclasses import replace

from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture, SelfAttention
from ridgeline_backends.neuron.builders.listing import Listing, weight
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.operations import Concat
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Program,
    Section,
)


def whole_kv(
    model: DecoderArchitecture, config: NeuronConfig, *, batch: int, length: int
) -> Program:
    """What a decode step had to do beyond its own heads."""
    sections = tuple(
        _section(model.hidden, one.mixer, config, batch, length)
        for one in model.layers
        if isinstance(one.mixer, SelfAttention) and one.mixer.kv_heads < config.tp_degree
    )
    return Program("token_generation", sections, cores=config.tp_degree, batch=batch, bucket=length)


def _section(
    hidden: int, mixer: SelfAttention, config: NeuronConfig, batch: int, length: int
) -> Section:
    out = Listing("kv.whole", config.tp_degree)
    dtype = config.torch_dtype
    x = Buffer("hidden", Form((batch, 1, hidden), dtype))
    for name in ("keys", "values"):
        matrix = weight(name, mixer.kv_heads * mixer.head_dim, hidden, dtype=dtype)
        out.linear(x, matrix, to=f"{name}.new")
        shape = (batch, mixer.kv_heads, length, mixer.head_dim)
        cache = Buffer(f"{name}.cache", Form(shape, dtype), BufferKind.KV)
        # Read once, and written for each query head of its group.
        kept = Buffer(f"{name}.kept", Form(shape, dtype))
        copies = mixer.heads // mixer.kv_heads
        out.add(Concat(1), cache, *(kept,) * (copies - 1), to=f"{name}.spread")
    return out.section()


def narrowed(program: Program) -> Program:
    """Its weights in 16 bits, whatever it computes in."""
    return replace(program, sections=tuple(map(_narrowed, program.sections)))


def _narrowed(section: Section) -> Section:
    operations = tuple(
        replace(one, inputs=tuple(map(_in_16_bits, one.inputs))) for one in section.operations
    )
    return replace(section, operations=operations)


def _in_16_bits(buffer: Buffer) -> Buffer:
    if buffer.kind is not BufferKind.WEIGHT or buffer.dtype is not ElementType.FP32:
        return buffer
    return replace(buffer, form=Form(buffer.shape, ElementType.BF16))
