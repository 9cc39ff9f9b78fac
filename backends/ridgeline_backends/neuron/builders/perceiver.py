"""Perceiver IO as an operation list: latents that look at inputs, then at each other.

Jaegle et al. 2021, with the sizes of the public models. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_backends.neuron.builders.encoder import EncoderShape, layer_section, stream
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    Attention,
    Binary,
    Concat,
    Convolution,
    LayerNorm,
    Transpose,
    Unary,
)
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Program, Section

_COLOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceiverShape:
    """`blocks` times the same `layers` of self-attention over `latents`; `outputs` queries of
    `query_width` read them at the end, `parts` of them in calls of their own, and `decoded` numbers
    of each come out. `image`: the side of the image whose `channels`, beside places, are the
    inputs; 0: the host makes them."""

    inputs: int
    input_width: int
    latents: int
    hidden: int
    blocks: int
    layers: int
    heads: int
    outputs: int = 1
    parts: int = 1
    query_width: int = 0
    decoded: int = 0
    image: int = 0
    channels: int = 0
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
    inputs = _inputs(out, shape, batch)
    latents = weight("latents", batch, shape.latents, shape.hidden, dtype=shape.dtype)
    _cross(out, latents, inputs, width=shape.input_width)
    out.settle(stream(layer, batch, shape.latents))
    return out.section()


def _inputs(out: Listing, shape: PerceiverShape, batch: int) -> Buffer:
    dtype, channels = shape.dtype, shape.channels
    if not shape.image:
        return given("inputs", batch, shape.inputs, shape.input_width, dtype=dtype)
    patch = round((shape.image**2 / shape.inputs) ** 0.5)
    pixels = given("pixels", batch, _COLOURS, shape.image, shape.image, dtype=dtype)
    kernel = weight("patch", channels, _COLOURS, patch, patch, dtype=dtype)
    x = out.add(Convolution((patch, patch), (0, 0)), pixels, kernel, to="patches")
    x = out.shape(x, batch, channels, shape.inputs, to="flat")
    x = out.add(Transpose((0, 2, 1)), x, to="colours")
    places = weight("places", batch, shape.inputs, shape.input_width - channels, dtype=dtype)
    return out.add(Concat(2), x, places, to="inputs")


def _decode(shape: PerceiverShape, layer: EncoderShape, batch: int) -> Section:
    out = Listing("decode", 1)
    latents = stream(layer, batch, shape.latents)
    width = shape.query_width or shape.hidden
    count = -(-shape.outputs // shape.parts)
    queries = weight("queries", batch, count, width, dtype=shape.dtype)
    found = _cross(out, queries, latents, width=shape.hidden)
    if shape.decoded:
        matrix = weight("final", shape.hidden, width, dtype=shape.dtype)
        found = out.linear(found, matrix, to="final")
        matrix = weight("project", shape.decoded, shape.hidden, dtype=shape.dtype)
        found = out.linear(found, matrix, to="projected")
    out.settle(Buffer("result", found.form, BufferKind.OUTPUT))
    return out.section(repeats=shape.parts)


def _cross(out: Listing, queries: Buffer, memory: Buffer, *, width: int) -> Buffer:
    """Attention with one head of the memory's width, projected to the queries' width, and an MLP
    of that."""
    batch, length, hidden = queries.shape
    dtype = queries.dtype
    normed = _normed(out, memory, "memory")
    parts = []
    for name, source in (("q", _normed(out, queries, "queries")), ("k", normed), ("v", normed)):
        matrix = weight(name, width, source.shape[-1], dtype=dtype)
        part = out.linear(source, matrix, to=f"{name}.out")
        parts.append(out.shape(part, batch, source.shape[1], 1, width, to=f"{name}.heads"))
    mixed = out.add(Attention(scale=width**-0.5, causal=False), *parts, to="mixed")
    mixed = out.shape(mixed, batch, length, width, to="joined")
    x = out.linear(mixed, weight("out", hidden, width, dtype=dtype), to="seen")
    y = out.linear(_normed(out, x, "mlp"), weight("up", hidden, hidden, dtype=dtype), to="up.out")
    y = out.add(Unary("gelu"), y, to="act")
    y = out.linear(y, weight("down", hidden, hidden, dtype=dtype), to="down.out")
    return out.add(Binary("add"), x, y, to="found")


def _normed(out: Listing, x: Buffer, name: str) -> Buffer:
    vectors = (weight(f"{name}.{one}", x.shape[-1], dtype=x.dtype) for one in ("weight", "bias"))
    return out.add(LayerNorm(1e-5), x, *vectors, to=f"{name}.normed")
