"""Encoders of signals: speech (wav2vec 2.0) and EEG (ZUNA). Run on one core. Imports no torch."""

from __future__ import annotations

from ridgeline_backends.neuron.builders.encoder import (
    EncoderShape,
    attend,
    layer_section,
    mlp,
    stream,
)
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    Binary,
    Convolution,
    LayerNorm,
    RMSNorm,
    Slice,
    Transpose,
    Unary,
)
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Program, Section

_CHANNELS = 512
_CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""Window and stride."""

_PLACE_WINDOW, _PLACE_GROUPS = 128, 16
"""Of the convolution that tells frames their places (wav2vec2's num_conv_pos_embeddings)."""

_FP32, _BF16 = ElementType.FP32, ElementType.BF16


def build_speech_encoder(
    shape: EncoderShape, *, batch: int, samples: int, labels: int = 2
) -> Program:
    """wav2vec 2.0 with layer norms behind its convolutions, as the large ones have, and `labels`
    for each frame. What the convolutions make stays in fp32, as it was traced."""
    front = Listing("features", 1)
    x = given("samples", batch, 1, samples, dtype=_FP32)
    for index, (window, stride) in enumerate(_CONVOLUTIONS):
        kernel = weight(f"conv.{index}", _CHANNELS, x.shape[1], window, dtype=_BF16)
        bias = weight(f"conv.{index}.bias", _CHANNELS, dtype=_BF16)
        narrow = front.cast(x, _BF16, to=f"narrow{index}")
        x = front.add(Convolution((stride,), (0,)), narrow, kernel, bias, to=f"conv{index}")
        x = front.cast(x, _FP32, to=f"wide{index}")
        x = front.add(Transpose((0, 2, 1)), x, to=f"frames{index}")
        norm = tuple(weight(f"norm.{index}.{one}", _CHANNELS, dtype=_FP32) for one in "wb")
        x = front.add(LayerNorm(1e-5), x, *norm, to=f"normed{index}")
        x = front.add(Transpose((0, 2, 1)), x, to=f"turned{index}")
        x = front.add(Unary("gelu"), x, to=f"gelu{index}")
    length = x.shape[2]
    x = front.add(Transpose((0, 2, 1)), front.cast(x, _BF16, to="narrow"), to="frames")
    front.linear(x, weight("project", shape.hidden, _CHANNELS, dtype=_BF16), to="tokens")
    front.settle(stream(shape, batch, length))
    sections = (
        front.section(),
        _places(shape, batch, length),
        layer_section(shape, batch=batch, length=length),
        _labels(shape, batch, length, labels),
    )
    return Program("encoding", sections, batch=batch, bucket=length)


def _places(shape: EncoderShape, batch: int, length: int) -> Section:
    out = Listing("places", 1)
    hidden = stream(shape, batch, length)
    x = out.add(Transpose((0, 2, 1)), hidden, to="turned")
    each = shape.hidden // _PLACE_GROUPS
    kernel = weight("places", shape.hidden, each, _PLACE_WINDOW, dtype=shape.dtype)
    kind = Convolution((1,), (_PLACE_WINDOW // 2,), _PLACE_GROUPS)
    x = out.add(kind, x, kernel, to="placed")
    x = out.add(Unary("gelu"), out.add(Slice(2, 0, length), x, to="cut"), to="gelu")
    x = out.add(Transpose((0, 2, 1)), x, to="back")
    out.into(Binary("add"), hidden, x, target=hidden)
    return out.section()


def _labels(shape: EncoderShape, batch: int, length: int, labels: int) -> Section:
    out = Listing("head", 1)
    norm = tuple(weight(f"final.{one}", shape.hidden, dtype=shape.dtype) for one in "wb")
    x = out.add(LayerNorm(1e-5), stream(shape, batch, length), *norm, to="states")
    scores = out.linear(x, weight("labels", labels, shape.hidden, dtype=shape.dtype), to="scores")
    out.settle(Buffer("labels", scores.form, BufferKind.OUTPUT))
    return out.section()


def build_signal_encoder(shape: EncoderShape, *, tokens: int, width: int) -> Program:
    """ZUNA's encoder: a register before each of `tokens` windows of `width` samples."""
    length = 2 * tokens
    sections = (
        _entry(shape, length, width),
        layer_section(shape, batch=1, length=length),
        _exit(shape, length, width),
    )
    return Program("encoding", sections, bucket=length)


def build_signal_decoder(shape: EncoderShape, *, tokens: int, width: int, time: int) -> Program:
    """One step of its decoder: each layer looks at its tokens and at the encoder's, and its three
    norms are scaled by the step's time, `time` numbers."""
    out = Listing("decoder", 1)
    out.layer = "decoder.{0}"
    hidden = stream(shape, 1, tokens)
    now = given("time", 1, 1, time, dtype=shape.dtype)
    for name in ("self", "source", "mlp"):
        scale = weight(f"decoder.{{0}}.{name}.scale", shape.hidden, time, dtype=shape.dtype)
        normed = RMSNorm(1e-5), hidden, weight(f"{name}.norm", shape.hidden, dtype=shape.dtype)
        x = out.add(*normed, to=f"{name}.normed")
        scaled = out.linear(now, scale, to=f"{name}.time")
        x = out.add(Binary("multiply"), x, scaled, to=f"{name}.scaled")
        made = mlp(out, shape, x, 1) if name == "mlp" else attend(out, shape, x, 1)
        out.into(Binary("add"), hidden, made, target=hidden)
    sections = (
        _entry(shape, tokens, width),
        out.section(repeats=shape.layers),
        _exit(shape, tokens, width),
    )
    return Program("denoising", sections, bucket=tokens)


def _entry(shape: EncoderShape, length: int, width: int) -> Section:
    out = Listing("tokens", 1)
    x = given("signal", 1, length, width, dtype=shape.dtype)
    out.linear(x, weight("embedding", shape.hidden, width, dtype=shape.dtype), to="tokens")
    out.settle(stream(shape, 1, length))
    return out.section()


def _exit(shape: EncoderShape, length: int, width: int) -> Section:
    out = Listing("head", 1)
    norm = weight("final", shape.hidden, dtype=shape.dtype)
    x = out.add(RMSNorm(1e-5), stream(shape, 1, length), norm, to="states")
    made = out.linear(x, weight("head", width, shape.hidden, dtype=shape.dtype), to="made")
    out.settle(Buffer("signal.out", made.form, BufferKind.OUTPUT))
    return out.section()
