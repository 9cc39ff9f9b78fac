"""Diffusion models as operation lists: the U-Net of Stable Diffusion, its decoder, and a DiT.

Sizes are the field names of diffusers' config.json. One program is one denoising step for `batch`
latents (conditioned and not). Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ridgeline_backends.neuron.builders.encoder import EncoderShape, layer_section, stream
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    Attention,
    Binary,
    Concat,
    Convolution,
    Gated,
    GroupNorm,
    LayerNorm,
    Slice,
    Transpose,
    Unary,
    Upsample,
)
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetShape:
    """`depths`: transformer layers behind each residual block, by level; 0 for none."""

    block_out_channels: tuple[int, ...]
    depths: tuple[int, ...]
    cross_attention_dim: int
    layers_per_block: int = 2
    in_channels: int = 4
    head_dim: int = 64
    text_length: int = 77
    dtype: ElementType = ElementType.BF16


@dataclass
class _Net:
    shape: UNetShape
    out: Listing = field(default_factory=lambda: Listing("unet", 1))
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"layer{self.count}"

    def conv(self, x: Buffer, channels: int, window: int = 3, stride: int = 1) -> Buffer:
        name = self.name()
        kernel = weight(f"{name}.w", channels, x.shape[1], window, window, dtype=x.dtype)
        bias = weight(f"{name}.b", channels, dtype=x.dtype)
        kind = Convolution((stride, stride), (window // 2, window // 2))
        return self.out.add(kind, x, kernel, bias, to=name)

    def normed(self, x: Buffer) -> Buffer:
        name = self.name()
        vectors = tuple(weight(f"{name}.{one}", x.shape[1], dtype=x.dtype) for one in "wb")
        return self.out.add(GroupNorm(32, 1e-5), x, *vectors, to=name)

    def residual(self, x: Buffer, channels: int) -> Buffer:
        y = x
        for _ in range(2):
            y = self.out.add(Unary("silu"), self.normed(y), to=self.name())
            y = self.conv(y, channels)
        if x.shape[1] != channels:
            x = self.conv(x, channels, 1)
        return self.out.add(Binary("add"), x, y, to=self.name())

    def linear(self, x: Buffer, columns: int) -> Buffer:
        name = self.name()
        return self.out.linear(x, weight(f"{name}.w", columns, x.shape[-1], dtype=x.dtype), to=name)

    def layer_norm(self, x: Buffer) -> Buffer:
        name = self.name()
        vectors = tuple(weight(f"{name}.{one}", x.shape[-1], dtype=x.dtype) for one in "wb")
        return self.out.add(LayerNorm(1e-5), x, *vectors, to=name)

    def attend(self, x: Buffer, memory: Buffer, head_dim: int) -> Buffer:
        batch, length, channels = x.shape
        heads = max(1, channels // head_dim)
        width = channels // heads
        sources = (x, memory, memory)
        q, k, v = (
            self.out.shape(
                self.linear(source, channels),
                batch, source.shape[1], heads, width,
                to=self.name(),
            )
            for source in sources
        )  # fmt: skip
        kind = Attention(scale=width**-0.5, causal=False, kernel="flash")
        mixed = self.out.add(kind, q, k, v, to=self.name())
        mixed = self.out.shape(mixed, batch, length, channels, to=self.name())
        return self.linear(mixed, channels)

    def transformer(self, x: Buffer, depth: int, text: Buffer) -> Buffer:
        """Self-attention, attention over the text, a gated MLP; over the places of the image."""
        batch, channels, height, width = x.shape
        flat = self.out.shape(self.normed(x), batch, channels, height * width, to=self.name())
        y = self.out.add(Transpose((0, 2, 1)), flat, to=self.name())
        for _ in range(depth):
            normed = self.layer_norm(y)
            y = self.plus(y, self.attend(normed, normed, self.shape.head_dim))
            y = self.plus(y, self.attend(self.layer_norm(y), text, self.shape.head_dim))
            inner = self.linear(self.layer_norm(y), 8 * channels)
            inner = self.out.add(Gated("gelu"), inner, to=self.name())
            y = self.plus(y, self.linear(inner, channels))
        back = self.out.add(Transpose((0, 2, 1)), y, to=self.name())
        back = self.out.shape(back, batch, channels, height, width, to=self.name())
        return self.plus(x, back)

    def plus(self, x: Buffer, y: Buffer) -> Buffer:
        return self.out.add(Binary("add"), x, y, to=self.name())


def build_unet_step(shape: UNetShape, *, batch: int, height: int, width: int) -> Program:
    """`height`, `width`: of the latents, an eighth of the image's."""
    net = _Net(shape)
    x = given("latents", batch, shape.in_channels, height, width, dtype=shape.dtype)
    text = given("text", batch, shape.text_length, shape.cross_attention_dim, dtype=shape.dtype)
    widths = shape.block_out_channels
    x = net.conv(x, widths[0])
    skips = [x]
    for level, channels in enumerate(widths):
        for _ in range(shape.layers_per_block):
            x = net.residual(x, channels)
            if shape.depths[level]:
                x = net.transformer(x, shape.depths[level], text)
            skips.append(x)
        if level < len(widths) - 1:
            x = net.conv(x, channels, stride=2)
            skips.append(x)
    x = net.residual(x, widths[-1])
    x = net.transformer(x, max(1, shape.depths[-1]), text)
    x = net.residual(x, widths[-1])
    for level, channels in reversed(list(enumerate(widths))):
        for _ in range(shape.layers_per_block + 1):
            skip = skips.pop()
            x = net.residual(net.out.add(Concat(1), x, skip, to=net.name()), channels)
            if shape.depths[level]:
                x = net.transformer(x, shape.depths[level], text)
        if level:
            x = _grown(net, x, skips[-1].shape[2:])
    x = net.out.add(Unary("silu"), net.normed(x), to=net.name())
    x = net.conv(x, 4)
    net.out.settle(Buffer("noise", x.form, BufferKind.OUTPUT))
    return Program("denoising", (net.out.section(),), batch=batch)


def build_image_decoder(*, batch: int, height: int, width: int, dtype: ElementType) -> Program:
    """The decoder of Stable Diffusion's autoencoder: latents to pixels, 8 times as wide."""
    sizes = UNetShape(
        block_out_channels=(), depths=(), cross_attention_dim=512, head_dim=512, dtype=dtype
    )
    net = _Net(sizes)
    x = net.conv(given("latents", batch, 4, height, width, dtype=dtype), 512)
    x = net.residual(x, 512)
    flat = net.out.shape(net.normed(x), batch, 512, height * width, to=net.name())
    tokens = net.out.add(Transpose((0, 2, 1)), flat, to=net.name())
    mixed = net.out.add(Transpose((0, 2, 1)), net.attend(tokens, tokens, 512), to=net.name())
    x = net.plus(x, net.out.shape(mixed, *x.shape, to=net.name()))
    x = net.residual(x, 512)
    for level, channels in enumerate((512, 512, 256, 128)):
        for _ in range(3):
            x = net.residual(x, channels)
        if level < 3:
            x = net.conv(net.out.add(Upsample(2), x, to=net.name()), channels)
    x = net.conv(net.out.add(Unary("silu"), net.normed(x), to=net.name()), 3)
    net.out.settle(Buffer("pixels", x.form, BufferKind.OUTPUT))
    return Program("decoding", (net.out.section(),), batch=batch)


def build_transformer_step(shape: EncoderShape, *, batch: int, tokens: int, text: int) -> Program:
    """One step of a diffusion transformer: its layers over the image's patches; attention over
    `text` tokens stands as so many more."""
    length = tokens + text
    first = Listing("patches", 1)
    latents = given("latents", batch, length, 16, dtype=shape.dtype)
    first.linear(latents, weight("patch", shape.hidden, 16, dtype=shape.dtype), to="patches")
    first.settle(stream(shape, batch, length))
    section = layer_section(shape, batch=batch, length=length)
    return Program("denoising", (first.section(), section), batch=batch)


def _grown(net: _Net, x: Buffer, size: tuple[int, ...]) -> Buffer:
    """Twice as wide, cut to the size of the skip it is joined with."""
    x = net.out.add(Upsample(2), x, to=net.name())
    if x.shape[2:] != size:
        for axis, length in zip((2, 3), size, strict=True):
            x = net.out.add(Slice(axis, 0, length), x, to=net.name())
    return net.conv(x, x.shape[1])
