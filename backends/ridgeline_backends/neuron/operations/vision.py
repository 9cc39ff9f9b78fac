"""Convolutions, pooling and resizing of [batch, channels, ...] with one to three axes behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal

from ridgeline_backends.neuron.operations.checks import require, take
from ridgeline_backends.neuron.program import Form, OperationKind


def _sizes(
    sizes: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> tuple[int, ...]:
    return tuple(
        (size + 2 * pad - span) // step + 1
        for size, span, step, pad in zip(sizes, window, stride, padding, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Convolution(OperationKind):
    """x [batch, in, ...] by a weight [out, in / groups, ...], plus a bias [out] if there is one.
    `padding` of zeros on both sides of each axis; `dilation` from one place of the window to the
    next, 1 where it is empty. `transposed`: by a weight [in, out / groups, ...], each number of x
    spread over a window of the result, which is `longer` at its end."""

    name: ClassVar[str] = "convolution"
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1
    dilation: tuple[int, ...] = ()
    transposed: bool = False
    longer: tuple[int, ...] = ()

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, weight, *bias = take(inputs, self.name, 2, 3)
        deep = len(x.shape) == len(weight.shape) == len(self.stride) + 2 >= 3
        require(deep, self.name, "slides over each axis behind the channels", inputs)
        require(len(self.padding) == len(self.stride), self.name, "pads every axis", inputs)
        first, second = weight.shape[:2]
        ins, outs = (
            (first, second * self.groups) if self.transposed else (second * self.groups, first)
        )
        fitting = x.shape[1] == ins and not first % self.groups
        require(fitting, self.name, f"has {self.groups} groups of channels", inputs)
        require(all(b.shape == (outs,) for b in bias), self.name, "adds [out]", inputs)
        dilation = self.dilation or (1,) * len(self.stride)
        window = tuple(
            1 + step * (span - 1) for step, span in zip(dilation, weight.shape[2:], strict=True)
        )
        if self.transposed:
            longer = self.longer or (0,) * len(self.stride)
            sizes = tuple(
                (size - 1) * step - 2 * pad + span + more
                for size, step, pad, span, more in zip(
                    x.shape[2:], self.stride, self.padding, window, longer, strict=True
                )
            )
        else:
            sizes = _sizes(x.shape[2:], window, self.stride, self.padding)
        require(min(sizes) > 0, self.name, "has a window no larger than its input", inputs)
        return (replace(x, shape=(x.shape[0], outs, *sizes)),)

    def flops(self, inputs: Sequence[Form]) -> int:
        x, weight = inputs[:2]
        out = self.infer(inputs)[0].elements
        # Each number of x is multiplied by a window, or each of the result is a sum over one.
        each = x.elements if self.transposed else out
        return 2 * each * prod(weight.shape[1:]) + out * (len(inputs) - 2)


@dataclass(frozen=True, slots=True)
class Pool(OperationKind):
    name: ClassVar[str] = "pool"
    function: Literal["max", "mean"]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axes = len(x.shape) - 2
        deep = len(self.window) == len(self.stride) == len(self.padding) == axes > 0
        require(deep, self.name, "slides over each axis behind the channels", inputs)
        sizes = _sizes(x.shape[2:], self.window, self.stride, self.padding)
        require(min(sizes) > 0, self.name, "has a window no larger than its input", inputs)
        return (replace(x, shape=(*x.shape[:2], *sizes)),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return self.infer(inputs)[0].elements * prod(self.window)


@dataclass(frozen=True, slots=True)
class Upsample(OperationKind):
    """Every number `factor` times along each axis behind the channels."""

    name: ClassVar[str] = "upsample"
    factor: int

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        require(len(x.shape) > 2, self.name, "has axes behind the channels", inputs)
        sizes = tuple(size * self.factor for size in x.shape[2:])
        return (replace(x, shape=(*x.shape[:2], *sizes)),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0
