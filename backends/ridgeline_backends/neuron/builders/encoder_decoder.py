"""T5, BART, Whisper and their like as two programs: a source is encoded once, then each step makes
a token.

The keys and values that the decoder has of the source are made with the encoding and kept like its
own. Heads and columns are cut over the cores. For shapes alone. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline_backends.errors import InvalidModel
from ridgeline_backends.models.reader import Reader
from ridgeline_backends.neuron.builders.encoder import EncoderShape, layer_section, stream
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    Binary,
    CachedAttention,
    Embedding,
    Gated,
    KVWrite,
    RMSNorm,
    TopK,
    Unary,
)
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Program,
    Section,
)

_BF16 = ElementType.BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDecoderShape:
    """`layers`: of each of the two stacks. `gated`: an MLP of three matrices. `frames`: how long
    every source is, of models that listen; None: as long as its text."""

    hidden: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    width: int
    intermediate: int
    vocab: int
    gated: bool
    frames: int | None = None


def encoder_decoder_shape(config: Mapping[str, object]) -> EncoderDecoderShape:
    """From the config.json of T5's family, or of BART's, which Whisper is of. Raises `InvalidModel`
    for a size that is missing, `UnsupportedModel` for stacks of layers that are not alike."""
    read = Reader(config)
    read.refuse_unless("num_experts", None)
    return _bart(read) if "encoder_layers" in config else _t5(read)


def _t5(read: Reader) -> EncoderDecoderShape:
    layers, hidden, heads = (read.integer(one) for one in ("num_layers", "d_model", "num_heads"))
    return EncoderDecoderShape(
        hidden=hidden,
        encoder_layers=layers,
        decoder_layers=read.integer("num_decoder_layers", layers),
        heads=heads,
        width=read.integer("d_kv"),
        intermediate=read.integer("d_ff"),
        vocab=read.integer("vocab_size"),
        gated=str(read.config.get("feed_forward_proj", "")).startswith("gated"),
    )


def _bart(read: Reader) -> EncoderDecoderShape:
    """Whisper stands without its two convolutions, a fiftieth of its encoder's work."""
    hidden, heads = read.integer("d_model"), read.integer("encoder_attention_heads")
    intermediate = read.integer("encoder_ffn_dim")
    read.refuse_unless("decoder_attention_heads", heads)
    read.refuse_unless("decoder_ffn_dim", intermediate)
    if hidden % heads:
        raise InvalidModel(f"d_model {hidden} is no multiple of {heads} attention heads.")
    listens = read.config.get("max_source_positions") is not None
    return EncoderDecoderShape(
        hidden=hidden,
        encoder_layers=read.integer("encoder_layers"),
        decoder_layers=read.integer("decoder_layers"),
        heads=heads,
        width=hidden // heads,
        intermediate=intermediate,
        vocab=read.integer("vocab_size"),
        gated=False,
        frames=read.integer("max_source_positions") if listens else None,
    )


def build_source(shape: EncoderDecoderShape, *, batch: int, length: int, cores: int) -> Program:
    """Encodes `batch` sources of `length` tokens and keeps what the decoder will look at."""
    encoder = EncoderShape(
        hidden=shape.hidden,
        layers=shape.encoder_layers,
        heads=shape.heads,
        intermediate=shape.intermediate,
        head_dim=shape.width,
        gated=shape.gated,
    )
    out = Listing("embedding", cores)
    table = weight("embedding", shape.vocab, shape.hidden, dtype=_BF16)
    out.add(Embedding(), table, given("tokens", batch, length), to="words")
    hidden = stream(encoder, batch, length)
    out.settle(hidden)
    sections = (
        out.section(),
        layer_section(encoder, batch=batch, length=length, cores=cores, name="encoder"),
        _source_entries(shape, hidden, cores),
    )
    return Program("encoding", sections, cores=cores, batch=batch, bucket=length)


def build_token_step(
    shape: EncoderDecoderShape, *, batch: int, source: int, length: int, cores: int
) -> Program:
    """One token of each sequence, which sees `source` tokens and up to `length` of its own."""
    form = Form((batch, 1, shape.hidden), _BF16)
    hidden = Buffer("hidden", form)
    begin = Listing("embedding", cores)
    table = weight("embedding", shape.vocab, shape.hidden, dtype=_BF16)
    begin.add(Embedding(), table, given("tokens", batch, 1), to="words")
    begin.settle(hidden)
    out = Listing("decoder", cores)
    out.layer = "decoder.{0}"
    _attend(out, shape, hidden, length=length, own=True)
    _attend(out, shape, hidden, length=source, own=False)
    _mlp(out, shape, hidden, cores)
    end = Listing("head", cores)
    x = end.add(RMSNorm(1e-6), hidden, weight("norm", shape.hidden, dtype=_BF16), to="normed")
    matrix = weight("head", -(-shape.vocab // cores), shape.hidden, dtype=_BF16)
    logits = end.linear(x, matrix, to="logits", output=ElementType.FP32)
    end.add_all(TopK(1), (logits,), ("top.values", "top.ids"), place=BufferKind.OUTPUT)
    sections = (begin.section(), out.section(repeats=shape.decoder_layers), end.section())
    return Program("token_generation", sections, cores=cores, batch=batch, bucket=length)


def _source_entries(shape: EncoderDecoderShape, hidden: Buffer, cores: int) -> Section:
    out = Listing("source", cores)
    out.layer = "decoder.{0}"
    batch, length, width = hidden.shape
    heads = -(-shape.heads // cores)
    for name in ("k", "v"):
        matrix = weight(f"decoder.{{0}}.source.{name}", heads * shape.width, width, dtype=_BF16)
        made = out.linear(hidden, matrix, to=f"source.{name}.out")
        new = out.shape(made, batch, length, heads, shape.width, to=f"source.{name}.heads")
        cache = _cache(shape, f"source.{name}_cache", batch, heads, length)
        places = given("positions", batch, length), given("slots", batch)
        out.into(KVWrite(), cache, new, *places, target=cache)
    return out.section(repeats=shape.decoder_layers)


def _attend(
    out: Listing, shape: EncoderDecoderShape, hidden: Buffer, *, length: int, own: bool
) -> None:
    """Over the tokens before (`own`), or over the source."""
    name = "self" if own else "source"
    batch = hidden.shape[0]
    heads = -(-shape.heads // out.cores)
    x = out.add(RMSNorm(1e-6), hidden, _vector(shape, f"{name}.norm"), to=f"{name}.normed")

    def projected(part: str) -> Buffer:
        matrix = _matrix(f"{name}.{part}", heads * shape.width, shape.hidden)
        made = out.linear(x, matrix, to=f"{name}.{part}.out")
        return out.shape(made, batch, 1, heads, shape.width, to=f"{name}.{part}.heads")

    q = projected("q")
    places = given("positions", batch, 1), given("slots", batch)
    caches = [_cache(shape, f"{name}.{part}_cache", batch, heads, length) for part in "kv"]
    if own:
        for cache, part in zip(caches, "kv", strict=True):
            out.into(KVWrite(), cache, projected(part), *places, target=cache)
    kind = CachedAttention(scale=1.0, length=length)
    mixed = out.add(kind, q, *caches, *places, to=f"{name}.mixed")
    joined = out.shape(mixed, batch, 1, heads * shape.width, to=f"{name}.joined")
    added = out.linear(joined, _matrix(f"{name}.o", shape.hidden, joined.shape[-1]), to=f"{name}.o")
    out.into(Binary("add"), hidden, out.all_reduce(added, to=f"{name}.summed"), target=hidden)


def _mlp(out: Listing, shape: EncoderDecoderShape, hidden: Buffer, cores: int) -> None:
    inner = -(-shape.intermediate // cores)
    x = out.add(RMSNorm(1e-6), hidden, _vector(shape, "mlp.norm"), to="mlp.normed")
    rows = 2 * inner if shape.gated else inner
    y = out.linear(x, _matrix("mlp.up", rows, shape.hidden), to="mlp.up")
    y = out.add(Gated("gelu_tanh") if shape.gated else Unary("relu"), y, to="mlp.inner")
    part = out.linear(y, _matrix("mlp.down", shape.hidden, inner), to="mlp.down")
    out.into(Binary("add"), hidden, out.all_reduce(part, to="mlp.summed"), target=hidden)


def _matrix(name: str, rows: int, columns: int) -> Buffer:
    return weight(f"decoder.{{0}}.{name}", rows, columns, dtype=_BF16)


def _vector(shape: EncoderDecoderShape, name: str) -> Buffer:
    return weight(f"decoder.{{0}}.{name}", shape.hidden, dtype=_BF16)


def _cache(shape: EncoderDecoderShape, name: str, batch: int, heads: int, length: int) -> Buffer:
    form = Form((batch, heads, length, shape.width), _BF16)
    return Buffer(f"decoder.{{0}}.{name}", form, BufferKind.KV)
