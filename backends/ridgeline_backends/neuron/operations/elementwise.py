"""Number by number: functions of one and of two tensors, the gated activation, softmax, casts.

Computed in fp32, rounded once to the type of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ridgeline_backends.neuron.operations.checks import axis_of, broadcast, require, take
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind

UnaryFunction = Literal[
    "silu",
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "relu",
    "sigmoid",
    "tanh",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "negate",
    "absolute",
    "sin",
    "cos",
    "erf",
    "floor",
    "ceil",
    "round",
    "truncate",
    "sign",
    "log1p",
    "expm1",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "isnan",
    "isinf",
    "not",
    "softcap",
    "scale",
    "shift",
    "power",
]
BinaryFunction = Literal[
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "truncate_divide",
    "remainder",
    "fmod",
    "power",
    "atan2",
    "maximum",
    "minimum",
    "and",
    "or",
    "xor",
    "shift_left",
    "shift_right",
    "where",
    "less",
    "less_equal",
    "equal",
    "not_equal",
]
GatedFunction = Literal["silu", "gelu", "gelu_tanh"]

COMPARISONS = ("less", "less_equal", "equal", "not_equal")
TESTS = ("isnan", "isinf")
"""Functions of one number that give bool, as "not" does of a bool."""

WHOLE = ("absolute", "negate", "sign", "relu", "not")
"""Functions that whole numbers have too; "not" turns every bit."""


@dataclass(frozen=True, slots=True)
class Unary(OperationKind):
    """`operand` is the cap of "softcap" (cap * tanh(x / cap)), the factor of "scale", the summand
    of "shift" and the exponent of "power"."""

    name: ClassVar[str] = "unary"
    function: UnaryFunction
    operand: float = 0.0

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        fitting = x.dtype.floating != (self.function == "not") or self.function in WHOLE[:-1]
        require(fitting, self.name, f"has no {self.function} of such numbers", inputs)
        return (replace(x, dtype=ElementType.BOOL) if self.function in TESTS else x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements


@dataclass(frozen=True, slots=True)
class Binary(OperationKind):
    """Two tensors, sizes of 1 stretched. Comparisons give bool. "where" has three inputs:
    the second where the first, a bool, is true, else the third."""

    name: ClassVar[str] = "binary"
    function: BinaryFunction

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        forms = take(inputs, self.name, 3 if self.function == "where" else 2)
        *condition, left, right = forms
        shape = broadcast(left.shape, right.shape)
        for one in condition:
            shape = None if shape is None else broadcast(shape, one.shape)
        require(shape is not None, self.name, "stretches only sizes of 1", inputs)
        compares = self.function in COMPARISONS
        # A vector of another precision does not change the type of what it is added to.
        wider = left if len(left.shape) >= len(right.shape) else right
        return (Form(shape or (), ElementType.BOOL if compares else wider.dtype),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return self.infer(inputs)[0].elements


@dataclass(frozen=True, slots=True)
class Gated(OperationKind):
    """x [..., 2 n], the gate first -> function(gate) * rest [..., n]."""

    name: ClassVar[str] = "gated"
    function: GatedFunction

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        require(x.shape[-1] % 2 == 0, self.name, "has two equal halves", inputs)
        return (replace(x, shape=(*x.shape[:-1], x.shape[-1] // 2)),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return inputs[0].elements


@dataclass(frozen=True, slots=True)
class Softmax(OperationKind):
    name: ClassVar[str] = "softmax"
    axis: int = -1

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        axis_of(self.axis, len(x.shape), self.name, inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 5 * inputs[0].elements


@dataclass(frozen=True, slots=True)
class Cast(OperationKind):
    name: ClassVar[str] = "cast"
    output: ElementType

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        (x,) = take(inputs, self.name, 1)
        return (replace(x, dtype=self.output),)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0
