"""Numbers as the device keeps them.

Between operations a tensor is float32 whose values are those of its element type: engines compute
in fp32 and round when they write. Integers are int64, as torch indexes by them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline_backends.neuron.program import ElementType

LARGEST_E4M3 = 240.0
"""The IEEE-like kind that the device has, with infinities; torch's goes on to 448."""

_TORCH = {
    ElementType.FP32: torch.float32,
    ElementType.BF16: torch.bfloat16,
    ElementType.FP16: torch.float16,
    ElementType.FP8_E4M3: torch.float8_e4m3fn,
    ElementType.FP8_E5M2: torch.float8_e5m2,
    ElementType.INT8: torch.int8,
    ElementType.INT32: torch.int32,
    ElementType.BOOL: torch.bool,
}


def torch_dtype(dtype: ElementType) -> torch.dtype:
    """What a tensor of that type is kept as in files and in KV memory."""
    return _TORCH[dtype]


def held_dtype(dtype: ElementType) -> torch.dtype:
    """What a tensor of that type is between two operations."""
    if dtype.floating:
        return torch.float32
    return torch.bool if dtype is ElementType.BOOL else torch.int64


def element_type(dtype: torch.dtype) -> ElementType | None:
    """The element type of a torch type; 64-bit numbers count as those of 32 that stand for them."""
    narrowed = {torch.float64: torch.float32, torch.int64: torch.int32}.get(dtype, dtype)
    return next((own for own, kept in _TORCH.items() if kept is narrowed), None)


def rounded(x: Tensor, dtype: ElementType) -> Tensor:
    """x with every number the nearest that the type has, ties to even; float32 again. Whole numbers
    of 8 bits begin anew beyond the last."""
    if dtype is ElementType.INT8 and not x.is_floating_point():
        return x.to(torch.int8).to(x.dtype)
    if dtype is ElementType.FP32 or not dtype.floating:
        return x
    kept = x.to(_TORCH[dtype]).float()
    if dtype is ElementType.FP8_E4M3:
        # torch gives NaN beyond its own largest number.
        beyond = (kept.abs() > LARGEST_E4M3) | (kept.isnan() & ~x.isnan())
        kept = torch.where(beyond, torch.inf * x.sign(), kept)
    return kept
