"""What numbers a row's model is kept and multiplied in, in any spelling that rows have."""

from __future__ import annotations

import re
from typing import Literal

from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.program import ElementType

Bits = Literal[4, 8, 16, 32]

_SPELT: tuple[tuple[Bits, str], ...] = (
    (32, r"t?fp?32|float32|float(?!\d)"),
    (16, r"bf16|bfloat16|fp?16|float16|half"),
    (8, r"mxfp8|c?fp?8|float8|[isu]8|u?int8|w8|8[-_ ]?bits?|e4m3|e5m2"),
    (4, r"mxfp4|fp4|float4"),
)
_TYPE = re.compile(r"(?<![a-z0-9])(?:" + "|".join(f"({found})" for _, found in _SPELT) + ")")
_UNSAID = ("", "none", "no", "false", "auto", "default")
_UNCAST = ("none", "no", "false", "off")


def bits_of(row: Row, name: str) -> Bits | None:
    """Of a number, by a field that names a type; the first one where it names several. None where
    the row does not say. Raises `UnpredictableRow` for what is no type that Neuron has."""
    said = row.stated(name)
    if said in _UNSAID:
        return None
    found = _TYPE.search(said)
    if found is None or found.lastindex is None:
        raise UnpredictableRow(
            f"{row.id}: {name} {row.text(name)!r} is no type of numbers that Neuron has.",
            hint="There are fp32, bf16, fp16, fp8 (f8e4m3, f8e5m2, mxfp8), int8 and mxfp4.",
        )
    return _SPELT[found.lastindex - 1][0]


def is_cast(row: Row) -> bool:
    """Whether the row says that the compiler casts what is multiplied."""
    said = row.stated("autocast")
    return bool(said) and said not in _UNCAST


def products_of(row: Row) -> ElementType:
    """What a traced model's products are made in: the compiler casts their inputs unless told not
    to. Weights of 8 bits are widened before."""
    bits = bits_of(row, "model_dtype")
    whole = row.stated("autocast") in _UNCAST and bits in (None, 32)
    return ElementType.FP32 if whole else ElementType.BF16
