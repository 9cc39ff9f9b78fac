"""torch's convolutions, pooling and resizing, as operations.

What is linear along each axis, as most resizing is, is a product with a matrix that the trace
knows: torch's own, of what it makes of a diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.export.layout_operators import padded
from ridgeline_backends.neuron.export.registry import Result, Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.program import Buffer

Sizes = int | Sequence[int]


def _each(sizes: Sizes, axes: int) -> tuple[int, ...]:
    own = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return own if len(own) == axes else own * axes


def _batched(w: Writer, x: Buffer, axes: int) -> Buffer:
    """With an axis of the batch before the channels."""
    return x if len(x.shape) == axes + 2 else w.reshape(x, 1, *x.shape)


def _unbatched(w: Writer, found: Buffer, x: Buffer) -> Buffer:
    return found if len(found.shape) == len(x.shape) else w.reshape(found, *found.shape[1:])


@translates("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
def _conv(
    w: Writer,
    x: Buffer,
    weight: Value,
    bias: Value = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Buffer:
    return _convolution(w, x, weight, bias, stride, padding, dilation, False, 0, groups)


@translates("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def _conv_named_padding(
    w: Writer,
    x: Buffer,
    weight: Value,
    bias: Value = None,
    stride: Sizes = 1,
    padding: str = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Buffer:
    if padding == "valid":
        return _conv(w, x, weight, bias, stride, 0, dilation, groups)
    window = w.tensor(weight).shape[2:]
    whole = [
        step * (size - 1) for step, size in zip(_each(dilation, len(window)), window, strict=True)
    ]
    if all(size % 2 == 0 for size in whole):
        halves = [size // 2 for size in whole]
        return _conv(w, x, weight, bias, stride, halves, dilation, groups)
    sizes = [(size // 2, size - size // 2) for size in whole]
    own = padded(w, x, [(0, 0)] * (len(x.shape) - len(sizes)) + sizes, 0.0)
    return _conv(w, own, weight, bias, stride, 0, dilation, groups)


@translates(
    "aten.conv_transpose1d.default",
    "aten.conv_transpose2d.input",
    "aten.conv_transpose3d.input",
)
def _conv_transposed(
    w: Writer,
    x: Buffer,
    weight: Value,
    bias: Value = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Buffer:
    return _convolution(w, x, weight, bias, stride, padding, dilation, True, output_padding, groups)


@translates("aten.convolution.default")
def _convolution(
    w: Writer,
    x: Buffer,
    weight: Value,
    bias: Value,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Buffer:
    window = w.tensor(weight)
    axes = len(window.shape) - 2
    own = _batched(w, x, axes)
    w.floating(own, window)
    apart, longer = _each(dilation, axes), _each(output_padding, axes)
    kind = ops.Convolution(
        _each(stride, axes),
        _each(padding, axes),
        groups,
        apart if set(apart) != {1} else (),
        transposed,
        longer if transposed and any(longer) else (),
    )
    vectors = () if bias is None else (w.tensor(bias),)
    return _unbatched(w, w.add(kind, own, window, *vectors), x)


@translates(
    "aten.max_pool1d.default",
    "aten.max_pool2d.default",
    "aten.max_pool3d.default",
    "aten.max_pool2d_with_indices.default",
    "aten.max_pool3d_with_indices.default",
)
def _max_pool(
    w: Writer,
    x: Buffer,
    window: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Result:
    axes = int(w.operator.split("pool")[1][0])
    own = _each(window, axes)
    steps, pads = _each(stride or own, axes), _each(padding, axes)
    apart = _each(dilation, axes)
    batched = _batched(w, x, axes)
    if ceil_mode or set(apart) != {1}:
        found = _windows(w, batched, own, steps, pads, apart, ceil=ceil_mode)
    else:
        found = w.add(ops.Pool("max", own, steps, pads), batched)
    made = _unbatched(w, found, x)
    return [made, None] if "with_indices" in w.operator else made


def _windows(
    w: Writer,
    x: Buffer,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    *,
    ceil: bool,
) -> Buffer:
    """The largest of each window, place by place of the window."""
    places = [
        _places(size, *one, ceil=ceil)
        for size, one in zip(
            x.shape[2:], zip(window, stride, padding, dilation, strict=True), strict=True
        )
    ]
    sizes = [(0, 0), (0, 0)]
    for size, span, step, pad, apart, count in zip(
        x.shape[2:], window, stride, padding, dilation, places, strict=True
    ):
        last = (count - 1) * step + apart * (span - 1) + 1
        sizes.append((pad, max(0, last - size - pad)))
    whole = padded(w, x, sizes, -inf)
    found: Buffer | None = None
    for offsets in product(*(range(span) for span in window)):
        part = whole
        for axis, (offset, apart, step, count) in enumerate(
            zip(offsets, dilation, stride, places, strict=True)
        ):
            first = offset * apart
            part = w.add(ops.Slice(axis + 2, first, first + (count - 1) * step + 1, step), part)
        found = part if found is None else w.binary("maximum", found, part)
    assert found is not None, "a window has a place"
    return found


def _places(size: int, span: int, step: int, pad: int, apart: int, *, ceil: bool) -> int:
    """How many windows there are; one begins within the input or the padding before it."""
    room = size + 2 * pad - apart * (span - 1) - 1
    count = (-(-room // step) if ceil else room // step) + 1
    return count - (ceil and (count - 1) * step >= size + pad)


@translates("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def _avg_pool(
    w: Writer,
    x: Buffer,
    window: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Buffer:
    axes = int(w.operator.split("pool")[1][0])
    own = _each(window, axes)
    steps, pads = _each(stride or own, axes), _each(padding, axes)
    batched = _batched(w, x, axes)
    if not ceil_mode and divisor_override is None and (count_include_pad or not any(pads)):
        return _unbatched(w, w.add(ops.Pool("mean", own, steps, pads), batched), x)
    places = [
        _places(size, span, step, pad, 1, ceil=ceil_mode)
        for size, span, step, pad in zip(x.shape[-axes:], own, steps, pads, strict=True)
    ]
    sizes = [(0, 0), (0, 0)]
    for size, span, step, pad, count in zip(x.shape[-axes:], own, steps, pads, places, strict=True):
        sizes.append((pad, max(pad, (count - 1) * step + span - size - pad)))
    summed = w.add(ops.Pool("mean", own, steps, (0,) * axes), padded(w, batched, sizes, 0.0))
    # torch's own mean of ones over ours: what its divisor makes of a window.
    ones = torch.ones(1, 1, *x.shape[-axes:])
    extra = () if axes == 1 else (divisor_override,)
    average: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    theirs = average(ones, own, steps, pads, ceil_mode, count_include_pad, *extra)
    behind = [size for pair in reversed(sizes[2:]) for size in pair]
    ours = average(F.pad(ones, behind), own, steps)
    for axis, count in enumerate(places):
        if summed.shape[axis + 2] > count:
            summed = w.add(ops.Slice(axis + 2, 0, count), summed)
            ours = ours.narrow(axis + 2, 0, count)
    return _unbatched(w, w.binary("multiply", summed, w.tensor(theirs / ours)), x)


@translates(
    "aten.adaptive_avg_pool1d.default",
    "aten.adaptive_avg_pool2d.default",
    "aten._adaptive_avg_pool2d.default",
    "aten.adaptive_avg_pool3d.default",
    "aten._adaptive_avg_pool3d.default",
)
def _adaptive_avg_pool(w: Writer, x: Buffer, sizes: Sizes) -> Buffer:
    axes = int(w.operator.split("pool")[1][0])
    own = _each(sizes, axes)
    windows = tuple(size // to for size, to in zip(x.shape[-axes:], own, strict=True))
    if all(size % to == 0 for size, to in zip(x.shape[-axes:], own, strict=True)):
        kind = ops.Pool("mean", windows, windows, (0,) * axes)
        return _unbatched(w, w.add(kind, _batched(w, x, axes)), x)
    matrices = [
        F.adaptive_avg_pool1d(torch.eye(size)[None], to)[0]
        for size, to in zip(x.shape[-axes:], own, strict=True)
    ]
    return _by_axis(w, x, matrices)


def _by_axis(w: Writer, x: Buffer, matrices: Sequence[Tensor]) -> Buffer:
    """Each of the last axes by a matrix [in, out]."""
    for back, matrix in enumerate(reversed(matrices)):
        if matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix))):
            continue
        axis, last = len(x.shape) - 1 - back, len(x.shape) - 1
        order = list(range(last + 1))
        order[axis], order[last] = last, axis
        turned = x if axis == last else w.add(ops.Transpose(tuple(order)), x)
        made = w.add(ops.Matmul(), turned, w.tensor(matrix.T.contiguous()))
        x = made if axis == last else w.add(ops.Transpose(tuple(order)), made)
    return x


@translates(
    *(
        f"aten.{place}upsample_{mode}{axes}d.vec"
        for place, mode, axes in (
            *(("", "nearest", axes) for axes in (1, 2, 3)),
            *(("_", "nearest_exact", axes) for axes in (1, 2, 3)),
            ("", "linear", 1),
            ("", "bilinear", 2),
            ("", "trilinear", 3),
            ("", "bicubic", 2),
        )
    )
)
def _resized(
    w: Writer, x: Buffer, sizes: Sequence[int] | None, *rest: bool | Sequence[float] | None
) -> Buffer:
    """`rest`: align_corners, where the kind has corners, and the scales."""
    mode, axes = w.operator.split("upsample_")[1].split(".")[0][:-2], len(x.shape) - 2
    *corners, scales = rest
    factors = scales if isinstance(scales, Sequence) else None
    whole = [] if factors is None else [int(one) for one in factors]
    if mode == "nearest" and factors and len(set(factors)) == 1 and whole[0] == factors[0]:
        return w.add(ops.Upsample(whole[0]), x)
    matrices = []
    for axis in range(axes):
        matrices.append(
            _resizing(
                mode,
                x.shape[axis + 2],
                None if sizes is None else sizes[axis],
                None if factors is None else factors[axis],
                bool(corners and corners[0]),
            )
        )
    return _by_axis(w, x, matrices)


def _resizing(mode: str, size: int, to: int | None, factor: float | None, corners: bool) -> Tensor:
    """What torch makes of each place of an axis: [in, out]."""
    ones = torch.eye(size)[:, None]
    if mode in ("nearest", "nearest_exact"):
        own = mode.replace("_", "-")
        return F.interpolate(ones, size=to, scale_factor=factor, mode=own)[:, 0]
    if mode == "bicubic":
        # It has two axes: along the first, of one place, nothing changes.
        found = F.interpolate(
            ones[:, None],
            size=None if to is None else (1, to),
            scale_factor=None if factor is None else (1.0, factor),
            mode=mode,
            align_corners=corners,
        )
        return found[:, 0, 0]
    return F.interpolate(ones, size=to, scale_factor=factor, mode="linear", align_corners=corners)[
        :, 0
    ]
