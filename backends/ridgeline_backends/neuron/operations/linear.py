"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from ridgeline_backends.neuron.operations.checks import broadcast, require, take
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind


@dataclass(frozen=True, slots=True)
class Matmul(OperationKind):
    """x [..., in] by a weight [out, in], and a bias [out] if there is a third input -> [..., out].

    Products of the inputs as they are kept, sums in fp32, one rounding to `output` (x's type if
    None). A weight of another type than x is widened first: a quantised one is followed by its
    scales [out] or [1], the last input, with `scaled`. `joined`: so many matrices of [out / joined,
    in] lie below each other in it, each laid out in memory for itself.
    """

    name: ClassVar[str] = "matmul"
    output: ElementType | None = None
    biased: bool = False
    scaled: bool = False
    joined: int = 1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        count = 2 + self.biased + self.scaled
        x, weight, *vectors = take(inputs, self.name, count)
        matched = len(weight.shape) == 2 and x.shape and x.shape[-1] == weight.shape[1]
        require(bool(matched), self.name, "multiplies [..., in] by [out, in]", inputs)
        rows = weight.shape[0]
        fitting = all(one.shape in ((rows,), (1,)) for one in vectors)
        require(fitting, self.name, "adds and scales by vectors of [out]", inputs)
        return (Form((*x.shape[:-1], rows), self.output or x.dtype),)

    def flops(self, inputs: Sequence[Form]) -> int:
        x, weight = inputs[0], inputs[1]
        out = prod(x.shape[:-1]) * weight.shape[0]
        return 2 * out * x.shape[-1] + out * (self.biased + self.scaled)


@dataclass(frozen=True, slots=True)
class BatchMatmul(OperationKind):
    """[..., m, k] by [..., k, n] -> [..., m, n], leading sizes of 1 stretched."""

    name: ClassVar[str] = "batch_matmul"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        left, right = take(inputs, self.name, 2)
        deep = len(left.shape) >= 2 and len(right.shape) >= 2
        require(deep, self.name, "multiplies matrices", inputs)
        require(left.shape[-1] == right.shape[-2], self.name, "contracts equal sizes", inputs)
        lead = broadcast(left.shape[:-2], right.shape[:-2])
        require(lead is not None, self.name, "stretches only sizes of 1", inputs)
        shape = (*(lead or ()), left.shape[-2], right.shape[-1])
        return (replace(left, shape=shape),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 2 * self.infer(inputs)[0].elements * inputs[0].shape[-1]
