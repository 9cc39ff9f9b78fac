"""Perceiver IO as an operation list: latents that look at inputs, then at each other.

Jaegle et al. 2021, with the sizes of the public models. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_backends.neuron.builders.encoder import EncoderShape, layer_section, stream
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import Attention, LayerNorm
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Program, Section


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceiverShape:
    """`blocks` times the same `layers` of self-attention over `latents`; `outputs` queries read
    them at the end."""

    inputs: int
    input_width: int
    latents: int
    hidden: int
    blocks: int
    layers: int
    heads: int
    outputs: int = 1
    dtype: ElementType = ElementType.BF16


def build_perceiver(shape: PerceiverShape, *, batch: int) -> Program:
    """One call."""
    layer = EncoderShape(
        hidden=shape.hidden,
        layers=shape.blocks * shape.layers,
        heads=shape.heads,
        intermediate=shape.hidden,
        dtype=shape.dtype,
    )
    sections = (
        _encode(shape, layer, batch),
        layer_section(layer, batch=batch, length=shape.latents),
        _decode(shape, layer, batch),
    )
    return Program("encoding", sections, batch=batch, bucket=shape.latents)


def _encode(shape: PerceiverShape, layer: EncoderShape, batch: int) -> Section:
    out = Listing("encode", 1)
    inputs = given("inputs", batch, shape.inputs, shape.input_width, dtype=shape.dtype)
    latents = weight("latents", batch, shape.latents, shape.hidden, dtype=shape.dtype)
    _cross(out, latents, inputs, width=shape.input_width)
    out.settle(stream(layer, batch, shape.latents))
    return out.section()


def _decode(shape: PerceiverShape, layer: EncoderShape, batch: int) -> Section:
    out = Listing("decode", 1)
    latents = stream(layer, batch, shape.latents)
    queries = weight("queries", batch, shape.outputs, shape.hidden, dtype=shape.dtype)
    found = _cross(out, queries, latents, width=shape.hidden)
    out.settle(Buffer("result", found.form, BufferKind.OUTPUT))
    return out.section()


def _cross(out: Listing, queries: Buffer, memory: Buffer, *, width: int) -> Buffer:
    """Attention with one head of the memory's width, projected to the queries' width."""
    batch, length, hidden = queries.shape
    names = ("weight", "bias")
    vectors = tuple(weight(f"norm.{n}", memory.shape[-1], dtype=memory.dtype) for n in names)
    normed = out.add(LayerNorm(1e-5), memory, *vectors, to="memory.normed")
    parts = []
    for name, source in (("q", queries), ("k", normed), ("v", normed)):
        matrix = weight(name, width, source.shape[-1], dtype=source.dtype)
        part = out.linear(source, matrix, to=f"{name}.out")
        parts.append(out.shape(part, batch, source.shape[1], 1, width, to=f"{name}.heads"))
    mixed = out.add(Attention(scale=width**-0.5, causal=False), *parts, to="mixed")
    mixed = out.shape(mixed, batch, length, width, to="joined")
    return out.linear(mixed, weight("out", hidden, width, dtype=queries.dtype), to="projected")
