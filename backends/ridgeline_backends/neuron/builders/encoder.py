"""Encoders as operation lists: BERT-like, vision transformers, two towers.

One call encodes `batch` sequences of `length` tokens on one core (encoders are run data-parallel).
Attention is over the whole sequence, all scores kept, as the compiler does without a kernel.
Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    Attention,
    Binary,
    Concat,
    Convolution,
    Embedding,
    Gated,
    LayerNorm,
    Matmul,
    Reshape,
    RMSNorm,
    Slice,
    Split,
    Transpose,
    Unary,
)
from ridgeline_backends.neuron.operations.attention import AttentionKernel
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Program,
    Section,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """A stack of transformer layers. `kv_heads` below `heads` for grouped queries; `gated`: an MLP
    of three matrices; `vocab` 0 for one that is fed with patches. `logits`: the head over the
    vocabulary is part of the call. `labels`: a sequence's first state is classified, and no other
    comes out. `products`: in what products are made, where the compiler casts their inputs."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocab: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    causal: bool = False
    gated: bool = False
    logits: bool = False
    labels: int = 0
    kernel: AttentionKernel = "plain"
    dtype: ElementType = ElementType.BF16
    products: ElementType | None = None

    @property
    def width(self) -> int:
        """Numbers of one head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def key_heads(self) -> int:
        return self.kv_heads or self.heads


def build_encoder(shape: EncoderShape, *, batch: int, length: int, cores: int = 1) -> Program:
    """The program of one call over token ids."""
    sections = (
        _token_embedding(shape, batch, length),
        layer_section(shape, batch=batch, length=length, cores=cores),
        _head(shape, batch, length, cores),
    )
    return Program("encoding", sections, cores=cores, batch=batch, bucket=length)


def build_vision_encoder(
    shape: EncoderShape,
    *,
    batch: int,
    image: int,
    patch: int,
    channels: int = 3,
    cores: int = 1,
) -> Program:
    """A vision transformer on square images of `image` pixels."""
    side = image // patch
    patches = Listing("patches", 1)
    pixels = given("pixels", batch, channels, image, image, dtype=shape.dtype)
    kernel = weight("patch", shape.hidden, channels, patch, patch, dtype=shape.dtype)
    x = patches.add(Convolution((patch, patch), (0, 0)), pixels, kernel, to="patches")
    x = patches.shape(x, batch, shape.hidden, side * side, to="flat")
    x = patches.add(Transpose((0, 2, 1)), x, to="tokens")
    length = side * side + 1
    patches.add(Concat(1), weight("class", batch, 1, shape.hidden, dtype=shape.dtype), x, to="all")
    patches.settle(stream(shape, batch, length))
    return Program(
        "encoding",
        (
            patches.section(),
            layer_section(shape, batch=batch, length=length, cores=cores),
            _head(shape, batch, length, cores),
        ),
        cores=cores,
        batch=batch,
        bucket=length,
    )


def layer_section(
    shape: EncoderShape,
    *,
    batch: int,
    length: int,
    cores: int = 1,
    name: str = "layers",
    sequence_parallel: bool = False,
) -> Section:
    """All layers: attention, MLP, a norm and a sum with the residual stream for each. Where the
    sequence is parallel, each core keeps its part of the positions between the products."""
    listing = Listing(name, cores)
    listing.layer = "layers.{0}"
    split = sequence_parallel and cores > 1
    hidden = stream(shape, batch, -(-length // cores) if split else length)

    def whole(x: Buffer, to: str) -> Buffer:
        return listing.all_gather(x, axis=1, to=to) if split else x

    def summed(part: Buffer, to: str) -> Buffer:
        if split:
            return listing.reduce_scatter(part, axis=1, to=to)
        return listing.all_reduce(part, to=to)

    x = listing.add(_norm(shape), hidden, *_norm_weights(shape, "in"), to="normed")
    part = attend(listing, shape, whole(x, "gathered"), cores)
    listing.into(Binary("add"), hidden, summed(part, "reduced"), target=hidden)
    x = listing.add(_norm(shape), hidden, *_norm_weights(shape, "out"), to="normed2")
    part = mlp(listing, shape, whole(x, "gathered2"), cores)
    listing.into(Binary("add"), hidden, summed(part, "summed"), target=hidden)
    return listing.section(repeats=shape.layers)


def stream(shape: EncoderShape, batch: int, length: int) -> Buffer:
    """The residual stream, which every layer reads and writes."""
    return Buffer("hidden", Form((batch, length, shape.hidden), shape.dtype))


def attend(listing: Listing, shape: EncoderShape, x: Buffer, cores: int) -> Buffer:
    """Each position's part of attention over all of them, [batch, length, hidden]."""
    batch, length, hidden = x.shape
    heads = -(-shape.heads // cores)
    keys = max(1, -(-shape.key_heads // cores))
    width = shape.width
    sizes = (heads * width, keys * width, keys * width)
    matrix = weight("layers.{0}.qkv", sum(sizes), hidden, dtype=shape.dtype)
    bias = weight("layers.{0}.qkv_bias", sum(sizes), dtype=shape.dtype)
    qkv = product(listing, shape, x, matrix, bias=bias, to="qkv")
    parts = listing.add_all(Split(sizes), (qkv,), ("q", "k", "v"))
    q, k, v = (
        listing.add(
            Reshape((batch, length, count, width)), _cast(listing, shape, part), to=f"{name}_heads"
        )
        for name, part, count in zip("qkv", parts, (heads, keys, keys), strict=True)
    )
    kind = Attention(scale=width**-0.5, causal=shape.causal, kernel=shape.kernel)
    mixed = listing.add(kind, q, k, v, to="mixed")
    mixed = listing.shape(mixed, batch, length, heads * width, to="joined")
    out = weight("layers.{0}.out", hidden, heads * width, dtype=shape.dtype)
    return product(listing, shape, mixed, out, to="projected")


def mlp(listing: Listing, shape: EncoderShape, x: Buffer, cores: int) -> Buffer:
    """The core's part of what the MLP gives, of x's shape."""
    inner = -(-shape.intermediate // cores)
    rows = 2 * inner if shape.gated else inner
    up = weight("layers.{0}.up", rows, shape.hidden, dtype=shape.dtype)
    down = weight("layers.{0}.down", shape.hidden, inner, dtype=shape.dtype)
    y = product(listing, shape, x, up, to="up.out")
    y = listing.add(Gated("silu") if shape.gated else Unary("gelu"), y, to="act")
    return product(listing, shape, y, down, to="down.out")


def product(
    listing: Listing,
    shape: EncoderShape,
    x: Buffer,
    matrix: Buffer,
    *,
    to: str,
    bias: Buffer | None = None,
) -> Buffer:
    """By a matrix, in the type that products are made in."""
    left, right = (_cast(listing, shape, one) for one in (x, matrix))
    return listing.linear(left, right, bias=bias, to=to, output=shape.dtype)


def _cast(listing: Listing, shape: EncoderShape, x: Buffer) -> Buffer:
    return listing.cast(x, shape.products or shape.dtype, to=f"{x.name.rsplit('.', 1)[-1]}_cast")


def _token_embedding(shape: EncoderShape, batch: int, length: int) -> Section:
    listing = Listing("embedding", 1)
    table = weight("embedding", shape.vocab, shape.hidden, dtype=shape.dtype)
    x = listing.add(Embedding(), table, given("tokens", batch, length), to="words")
    places = weight("positions", length, shape.hidden, dtype=shape.dtype)
    x = listing.add(Binary("add"), x, places, to="sum")
    listing.add(_norm(shape), x, *_norm_weights(shape, "embedding"), to="normed")
    listing.settle(stream(shape, batch, length))
    return listing.section()


def _head(shape: EncoderShape, batch: int, length: int, cores: int) -> Section:
    listing = Listing("head", cores)
    x = stream(shape, batch, length)
    if shape.labels:
        first = listing.add(Slice(1, 0, 1), x, to="first")
        pooler = weight("pooler", shape.hidden, shape.hidden, dtype=shape.dtype)
        pooled = listing.add(Unary("tanh"), listing.linear(first, pooler, to="pool"), to="pooled")
        matrix = weight("classifier", shape.labels, shape.hidden, dtype=shape.dtype)
        scores = listing.linear(pooled, matrix, to="scores")
        listing.settle(Buffer("labels", scores.form, BufferKind.OUTPUT))
        return listing.section()
    if not shape.logits:
        x = listing.add(_norm(shape), x, *_norm_weights(shape, "final"), to="states")
        listing.settle(Buffer("states", x.form, BufferKind.OUTPUT))
        return listing.section()
    x = listing.add(_norm(shape), x, *_norm_weights(shape, "final"), to="states")
    matrix = weight("lm_head", -(-shape.vocab // cores), shape.hidden, dtype=shape.dtype)
    logits = listing.add(Matmul(output=ElementType.FP32), x, matrix, to="logits")
    listing.settle(Buffer("logits", logits.form, BufferKind.OUTPUT))
    return listing.section()


def _norm(shape: EncoderShape) -> LayerNorm | RMSNorm:
    return RMSNorm(1e-6) if shape.gated else LayerNorm(1e-12)


def _norm_weights(shape: EncoderShape, name: str) -> tuple[Buffer, ...]:
    names = ("weight",) if shape.gated else ("weight", "bias")
    return tuple(weight(f"{name}.{one}", shape.hidden, dtype=shape.dtype) for one in names)
