"""Convolution networks as operation lists: ResNet, ConvNeXt, VGG, U-Net, and YOLO v4's backbone and
heads.

A norm behind a convolution is folded into it, as is done for inference. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.neuron.builders.listing import Listing, given, weight
from ridgeline_backends.neuron.operations import (
    Binary,
    Concat,
    Convolution,
    Matmul,
    Pool,
    Reduce,
    Unary,
    Upsample,
)
from ridgeline_backends.neuron.operations.elementwise import UnaryFunction
from ridgeline_backends.neuron.program import Buffer, BufferKind, ElementType, Program

_RESNET = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_VGG = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class ConvNet:
    """Writes one network, layer by layer."""

    def __init__(self, batch: int, image: tuple[int, int], dtype: ElementType, channels: int = 3):
        self.out = Listing("network", 1)
        self.dtype = dtype
        self.x = given("pixels", batch, channels, *image, dtype=dtype)
        self._count = 0

    def conv(
        self,
        x: Buffer,
        channels: int,
        window: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        function: UnaryFunction | None = "relu",
        groups: int = 1,
    ) -> Buffer:
        """A convolution that keeps the size (but for its stride, and where `padding` is given), a
        bias, an activation."""
        name = self._next()
        kernel = weight(f"{name}.w", channels, x.shape[1] // groups, window, window, dtype=x.dtype)
        bias = weight(f"{name}.b", channels, dtype=x.dtype)
        around = window // 2 if padding is None else padding
        kind = Convolution((stride, stride), (around, around), groups)
        y = self.out.add(kind, x, kernel, bias, to=name)
        return y if function is None else self.out.add(Unary(function), y, to=f"{name}.act")

    def pool(self, x: Buffer, window: int, stride: int, padding: int = 0) -> Buffer:
        kind = Pool("max", (window, window), (stride, stride), (padding, padding))
        return self.out.add(kind, x, to=self._next())

    def add(self, x: Buffer, y: Buffer) -> Buffer:
        """With an activation behind it."""
        both = self.plus(x, y)
        return self.out.add(Unary("relu"), both, to=f"{both.name}.act")

    def plus(self, x: Buffer, y: Buffer) -> Buffer:
        return self.out.add(Binary("add"), x, y, to=self._next())

    def join(self, *parts: Buffer) -> Buffer:
        return self.out.add(Concat(1), *parts, to=self._next())

    def grow(self, x: Buffer) -> Buffer:
        return self.out.add(Upsample(2), x, to=self._next())

    def linear(self, x: Buffer, columns: int) -> Buffer:
        name = self._next()
        matrix = weight(f"{name}.w", columns, x.shape[-1], dtype=self.dtype)
        return self.out.add(Matmul(), x, matrix, to=name)

    def mean(self, x: Buffer) -> Buffer:
        return self.out.add(Reduce("mean", (2, 3)), x, to=self._next())

    def flat(self, x: Buffer) -> Buffer:
        return self.out.shape(x, x.shape[0], x.elements // x.shape[0], to=self._next())

    def program(self, result: Buffer, batch: int) -> Program:
        self.out.settle(Buffer("result", result.form, BufferKind.OUTPUT))
        return Program("encoding", (self.out.section(),), batch=batch)

    def _next(self) -> str:
        self._count += 1
        return f"layer{self._count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetShape:
    """By stage: blocks, and channels that come out of them. `stem`: channels before the first."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool
    stem: int = 64


def resnet_shape(depth: int) -> ResNetShape:
    """`depth`: 18, 34, 50, 101 or 152. Raises `UnsupportedModel` for another."""
    if depth not in _RESNET:
        raise UnsupportedModel(
            f"There is no ResNet of depth {depth}.",
            hint=f"Give one of {', '.join(map(str, _RESNET))}, or depths and hidden_sizes.",
        )
    bottleneck = depth >= 50
    widths = tuple((256 if bottleneck else 64) << stage for stage in range(4))
    return ResNetShape(depths=_RESNET[depth], widths=widths, bottleneck=bottleneck)


def build_resnet(shape: ResNetShape, *, batch: int, image: int, dtype: ElementType) -> Program:
    """He et al. 2015."""
    net = ConvNet(batch, (image, image), dtype)
    x = net.pool(net.conv(net.x, shape.stem, 7, stride=2), 3, 2, 1)
    for stage, (count, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            x = (_bottleneck if shape.bottleneck else _basic)(net, x, width, stride)
    return net.program(net.linear(net.mean(x), 1000), batch)


def build_convnext(
    depths: Sequence[int],
    widths: Sequence[int],
    *,
    batch: int,
    image: int,
    patch: int,
    dtype: ElementType,
) -> Program:
    """Liu et al. 2022, arXiv 2201.03545. Its layer norms count as folded too."""
    net = ConvNet(batch, (image, image), dtype)
    x = net.x
    for stage, (count, width) in enumerate(zip(depths, widths, strict=True)):
        step = 2 if stage else patch
        x = net.conv(x, width, step, stride=step, padding=0, function=None)
        for _ in range(count):
            y = net.conv(x, width, 7, groups=width, function=None)
            y = net.conv(net.conv(y, 4 * width, 1, function="gelu"), width, 1, function=None)
            x = net.plus(x, y)
    return net.program(net.linear(net.mean(x), 1000), batch)


def build_vgg(depth: int, *, batch: int, image: int, dtype: ElementType) -> Program:
    """Simonyan and Zisserman 2014. `depth`: 11, 13, 16 or 19."""
    net = ConvNet(batch, (image, image), dtype)
    x = net.x
    for stage, count in enumerate(_VGG[depth]):
        for _ in range(count):
            x = net.conv(x, min(512, 64 << stage), 3)
        x = net.pool(x, 2, 2)
    x = net.linear(net.linear(net.flat(x), 4096), 4096)
    return net.program(net.linear(x, 1000), batch)


def build_unet(
    *, batch: int, image: int, dtype: ElementType, widths: Sequence[int] = (64, 128, 256, 512, 1024)
) -> Program:
    """Ronneberger et al. 2015, sizes kept: two convolutions a level, skips joined."""
    net = ConvNet(batch, (image, image), dtype)
    x = net.x
    skips = []
    for level, width in enumerate(widths):
        x = net.conv(net.conv(x, width, 3), width, 3)
        if level < len(widths) - 1:
            skips.append(x)
            x = net.pool(x, 2, 2)
    for width, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        x = net.conv(net.grow(x), width, 1, function=None)
        x = net.conv(net.conv(net.join(skip, x), width, 3), width, 3)
    return net.program(net.conv(x, 2, 1, function=None), batch)


def build_yolo_v4(*, batch: int, image: int, dtype: ElementType) -> Program:
    """Bochkovskiy et al. 2020: CSPDarknet53, spatial pyramid, path aggregation, three heads."""
    net = ConvNet(batch, (image, image), dtype)
    x = net.conv(net.x, 32, 3)
    outs = []
    for width, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = _cross_stage(net, net.conv(x, width, 3, stride=2), width, count)
        outs.append(x)
    small, middle, large = outs[2], outs[3], _five(net, outs[4], 512)
    middle = _five(net, net.join(net.conv(middle, 256, 1), net.grow(net.conv(large, 256, 1))), 256)
    small = _five(net, net.join(net.conv(small, 128, 1), net.grow(net.conv(middle, 128, 1))), 128)
    middle = _five(net, net.join(net.conv(small, 256, 3, stride=2), middle), 256)
    large = _five(net, net.join(net.conv(middle, 512, 3, stride=2), large), 512)
    head = large
    for level, width in ((small, 256), (middle, 512), (large, 1024)):
        head = net.conv(net.conv(level, width, 3), 255, 1, function=None)
    return net.program(head, batch)


def _basic(net: ConvNet, x: Buffer, width: int, stride: int) -> Buffer:
    y = net.conv(net.conv(x, width, 3, stride=stride), width, 3, function=None)
    return net.add(y, _shortcut(net, x, width, stride))


def _bottleneck(net: ConvNet, x: Buffer, width: int, stride: int) -> Buffer:
    y = net.conv(net.conv(x, width // 4, 1), width // 4, 3, stride=stride)
    y = net.conv(y, width, 1, function=None)
    return net.add(y, _shortcut(net, x, width, stride))


def _shortcut(net: ConvNet, x: Buffer, width: int, stride: int) -> Buffer:
    if x.shape[1] == width and stride == 1:
        return x
    return net.conv(x, width, 1, stride=stride, function=None)


def _cross_stage(net: ConvNet, x: Buffer, width: int, count: int) -> Buffer:
    half = width // 2 if count > 1 else width
    y, rest = net.conv(x, half, 1), net.conv(x, half, 1)
    for _ in range(count):
        y = net.add(net.conv(net.conv(y, half, 1), half, 3), y)
    return net.conv(net.join(net.conv(y, half, 1), rest), width, 1)


def _five(net: ConvNet, x: Buffer, width: int) -> Buffer:
    for index in range(5):
        x = net.conv(x, width if index % 2 == 0 else 2 * width, 1 if index % 2 == 0 else 3)
    return x
