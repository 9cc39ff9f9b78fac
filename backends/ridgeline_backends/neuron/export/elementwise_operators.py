"""torch's operators on numbers one by one, as operations.

What torch computes on numbers of several types it computes on their common one; so do these.
"""

from __future__ import annotations

from functools import reduce
from math import log
from typing import cast

import torch
from torch import Tensor

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.rounding import element_type, torch_dtype
from ridgeline_backends.neuron.export.registry import OPERATORS, Translate, Value, translates
from ridgeline_backends.neuron.export.writer import Number, Writer
from ridgeline_backends.neuron.operations.elementwise import (
    COMPARISONS,
    WHOLE,
    BinaryFunction,
    UnaryFunction,
)
from ridgeline_backends.neuron.program import Buffer, ElementType

BOOL = ElementType.BOOL

_UNARY: dict[str, UnaryFunction] = {
    "relu": "relu",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "reciprocal": "reciprocal",
    "neg": "negate",
    "abs": "absolute",
    "sin": "sin",
    "cos": "cos",
    "erf": "erf",
    "floor": "floor",
    "ceil": "ceil",
    "round": "round",
    "trunc": "truncate",
    "sign": "sign",
    "sgn": "sign",
    "log1p": "log1p",
    "expm1": "expm1",
    "tan": "tan",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "sinh": "sinh",
    "cosh": "cosh",
    "asinh": "asinh",
    "acosh": "acosh",
    "atanh": "atanh",
    "isnan": "isnan",
    "isinf": "isinf",
}
_ROUNDED = ("floor", "ceil", "round", "truncate")


def _unary(function: UnaryFunction) -> Translate:
    def translate(w: Writer, x: Buffer) -> Buffer:
        if not x.dtype.floating and function not in WHOLE:
            if function in _ROUNDED:
                return x
            x = w.cast(x, ElementType.FP32)
        elif x.dtype is BOOL:
            x = w.cast(x, w.dtype)
        return w.unary(function, x)

    return translate


for _name, _function in _UNARY.items():
    OPERATORS[f"aten.{_name}.default"] = _unary(_function)


_LOGARITHMS = {"exp2": log(2), "log2": 1 / log(2), "log10": 1 / log(10)}


@translates("aten.exp2.default", "aten.log2.default", "aten.log10.default")
def _of_another_base(w: Writer, x: Buffer) -> Buffer:
    own, factor = w.cast(x, ElementType.FP32), _LOGARITHMS[w.operator.split(".")[1]]
    if "exp" in w.operator:
        return w.unary("exp", w.unary("scale", own, factor))
    return w.unary("scale", w.unary("log", own), factor)


@translates("aten.round.decimals")
def _rounded(w: Writer, x: Buffer, *, decimals: int) -> Buffer:
    if not x.dtype.floating:
        raise w.refused(f"decimals={decimals} of whole numbers")
    wide = w.unary("round", w.unary("scale", w.cast(x, ElementType.FP32), 10.0**decimals))
    return w.unary("scale", wide, 10.0**-decimals)


@translates("aten.hypot.default")
def _hypotenuse(w: Writer, left: Value, right: Value) -> Buffer:
    sides = (w.as_type(one, ElementType.FP32) for one in (left, right))
    return w.unary("sqrt", w.binary("add", *(w.binary("multiply", one, one) for one in sides)))


@translates("aten.fmin.default", "aten.fmax.default")
def _numbers_first(w: Writer, left: Value, right: Value) -> Buffer:
    """The smaller or larger, and where one is no number the other."""
    sides = [w.as_type(one, w.dtype) for one in (left, right)]
    found = w.binary("minimum" if "fmin" in w.operator else "maximum", *sides)
    if not w.dtype.floating:
        return found
    for one, other in (sides, sides[::-1]):
        found = w.where(w.unary("isnan", one), other, found)
    return found


@translates("aten.logical_not.default", "aten.bitwise_not.default")
def _not(w: Writer, x: Buffer) -> Buffer:
    return w.unary("not", w.cast(x, BOOL) if "logical" in w.operator else x)


@translates("aten.gelu.default")
def _gelu(w: Writer, x: Buffer, *, approximate: str = "none") -> Buffer:
    return w.unary("gelu" if approximate == "none" else "gelu_tanh", x)


@translates("aten.leaky_relu.default")
def _leaky_relu(w: Writer, x: Buffer, slope: float = 0.01) -> Buffer:
    return w.where(_above_zero(w, x), x, w.unary("scale", x, float(slope)))


@translates("aten.elu.default")
def _elu(
    w: Writer, x: Buffer, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> Buffer:
    below = w.unary("expm1", x if input_scale == 1 else w.unary("scale", x, float(input_scale)))
    below = below if alpha * scale == 1 else w.unary("scale", below, float(alpha * scale))
    above = x if scale == 1 else w.unary("scale", x, float(scale))
    return w.where(_above_zero(w, x), above, below)


def _above_zero(w: Writer, x: Buffer) -> Buffer:
    return w.binary("less", w.scalar(0.0, x.dtype), x)


def common_type(w: Writer, *values: Value) -> ElementType:
    """What torch computes on, given these."""

    def like(value: Value) -> Tensor | Number:
        if isinstance(value, Buffer):
            kept = torch.int64 if value.dtype is ElementType.INT32 else torch_dtype(value.dtype)
            return torch.empty(value.shape, dtype=kept, device="meta")
        if isinstance(value, Tensor):
            return value.to("meta")
        return cast(Number, value)

    def both(left: Tensor | Number, right: Tensor | Number) -> Tensor:
        return torch.empty(1, dtype=torch.result_type(left, right), device="meta")

    found = reduce(both, (like(one) for one in values), torch.empty((), dtype=torch.bool))
    dtype = element_type(found.dtype)
    if dtype is None:
        raise w.refused(f"numbers of type {found.dtype}")
    return dtype


def arithmetic(
    w: Writer, function: BinaryFunction, left: Value, right: Value, dtype: ElementType
) -> Buffer:
    """Of two tensors, or a tensor and a number, on numbers of that type."""
    if isinstance(left, Buffer) and isinstance(right, Number) and left.dtype is dtype:
        found = _by_number(w, function, left, right)
        if found is not None:
            return found
    sides = [
        w.scalar(one, dtype) if isinstance(one, Number) else w.tensor(one) for one in (left, right)
    ]
    kind = ops.Binary(function)
    floats = dtype.floating and any(one.dtype.floating for one in sides)
    if not (floats and kind.infer([one.form for one in sides])[0].dtype in (dtype, BOOL)):
        # Else the engine, which computes in fp32, writes that type by itself.
        sides = [w.cast(one, dtype) for one in sides]
    return w.add(kind, *sides)


def _by_number(w: Writer, function: BinaryFunction, x: Buffer, number: float) -> Buffer | None:
    if not x.dtype.floating:
        return None
    if function == "multiply":
        return w.unary("scale", x, float(number))
    if function == "divide" and number:
        return w.unary("scale", x, 1 / number)
    if function in ("add", "subtract"):
        return w.unary("shift", x, float(number if function == "add" else -number))
    return w.unary("power", x, float(number)) if function == "power" else None


def _binary(function: BinaryFunction) -> Translate:
    def translate(w: Writer, left: Value, right: Value) -> Buffer:
        return arithmetic(w, function, left, right, w.dtype)

    return translate


def _summed(function: BinaryFunction) -> Translate:
    def translate(w: Writer, left: Value, right: Value, alpha: float = 1) -> Buffer:
        if alpha != 1 and isinstance(right, Number):
            right = right * alpha
        elif alpha != 1:
            right = arithmetic(w, "multiply", w.tensor(right), alpha, w.dtype)
        return arithmetic(w, function, left, right, w.dtype)

    return translate


def _each_overload(name: str, translate: Translate) -> None:
    for overload in ("Tensor", "Scalar", "default"):
        if hasattr(getattr(torch.ops.aten, name), overload):
            OPERATORS[f"aten.{name}.{overload}"] = translate


_each_overload("add", _summed("add"))
_each_overload("sub", _summed("subtract"))
for _name, _kind in {
    "mul": "multiply",
    "maximum": "maximum",
    "minimum": "minimum",
    "fmod": "fmod",
    "remainder": "remainder",
    "atan2": "atan2",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "bitwise_left_shift": "shift_left",
    "bitwise_right_shift": "shift_right",
    "__lshift__": "shift_left",
    "__rshift__": "shift_right",
}.items():
    _each_overload(_name, _binary(cast(BinaryFunction, _kind)))
for _name in ("Tensor_Scalar", "Tensor_Tensor", "Scalar"):
    OPERATORS[f"aten.pow.{_name}"] = _binary("power")


@translates("aten.rsub.Scalar", "aten.rsub.Tensor")
def _subtracted_from(w: Writer, x: Buffer, other: Value, alpha: float = 1) -> Buffer:
    if isinstance(other, Number) and x.dtype.floating:
        return w.unary("shift", w.unary("scale", x, -float(alpha)), float(other))
    own = x if alpha == 1 else arithmetic(w, "multiply", x, alpha, w.dtype)
    return arithmetic(w, "subtract", other, own, w.dtype)


@translates(
    "aten.div.Tensor", "aten.div.Scalar", "aten.div.Tensor_mode", "aten.div.Scalar_mode",
    "aten.floor_divide.default",
)  # fmt: skip
def _divided(w: Writer, left: Value, right: Value, *, rounding_mode: str | None = None) -> Buffer:
    mode = "floor" if "floor_divide" in w.operator else rounding_mode
    functions: dict[str | None, BinaryFunction] = {
        None: "divide",
        "floor": "floor_divide",
        "trunc": "truncate_divide",
    }
    return arithmetic(w, functions[mode], left, right, w.dtype)


def _compared(function: BinaryFunction, *, swapped: bool = False) -> Translate:
    assert function in COMPARISONS

    def translate(w: Writer, left: Value, right: Value) -> Buffer:
        sides = (right, left) if swapped else (left, right)
        return arithmetic(w, function, *sides, common_type(w, left, right))

    return translate


_each_overload("lt", _compared("less"))
_each_overload("le", _compared("less_equal"))
_each_overload("gt", _compared("less", swapped=True))
_each_overload("ge", _compared("less_equal", swapped=True))
_each_overload("eq", _compared("equal"))
_each_overload("ne", _compared("not_equal"))


def _logical(function: BinaryFunction) -> Translate:
    def translate(w: Writer, left: Value, right: Value) -> Buffer:
        sides = (w.cast(w.tensor(one), BOOL) for one in (left, right))
        return w.binary(function, *sides)

    return translate


for _place in ("and", "or", "xor"):
    OPERATORS[f"aten.logical_{_place}.default"] = _logical(_place)


@translates("aten.clamp.default", "aten.clamp.Tensor", "aten.hardtanh.default")
def _clamp(w: Writer, x: Buffer, least: Value = None, most: Value = None) -> Buffer:
    least, most = (-1.0, 1.0) if "hardtanh" in w.operator and least is most is None else (
        least, most
    )  # fmt: skip
    found = w.cast(x, w.dtype)
    if least is not None:
        found = arithmetic(w, "maximum", found, least, w.dtype)
    return found if most is None else arithmetic(w, "minimum", found, most, w.dtype)


@translates("aten.where.self")
def _where(w: Writer, condition: Value, yes: Value, no: Value) -> Buffer:
    # Where both are of one type nothing is cast.
    return w.where(w.tensor(condition), w.as_type(yes, w.dtype), w.as_type(no, w.dtype))


@translates("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def _masked_fill(w: Writer, x: Buffer, mask: Value, value: Value) -> Buffer:
    filled = w.scalar(value, x.dtype) if isinstance(value, Number) else w.as_type(value, x.dtype)
    return w.where(w.tensor(mask), filled, x)
