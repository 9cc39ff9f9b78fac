"""Linear layers that give a row the same bits whatever rows are beside it.

Which form does so differs between processors and library versions, so nothing is assumed: the
candidates are tried, fastest first, on the very shapes of the model, and the first one that passes
is used. The last candidate always multiplies one fixed number of rows.

bfloat16 weights are multiplied as bfloat16 where the processor has instructions for it, and are
widened to float32 at load where it has none (emulated, a prefill is some ten times slower).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_TYPICAL_ROWS = 32
_FIXED_ROWS = 32
_TRIALS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 17, 31, 33, 64)
_REFERENCE_ROWS = 72

Linear = Callable[[Tensor], Tensor]
Form = Callable[[Tensor], Linear]


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than it would float32 ones."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(
        torch.cpu._is_avx512_bf16_supported()
    )


def choose_form(shapes: Iterable[tuple[int, int]], dtype: torch.dtype) -> tuple[str, Form]:
    """The fastest row-independent way to multiply by weights [out, in] of these shapes."""
    # What passes may depend on the number of threads.
    return _chosen(tuple(sorted(set(shapes))), dtype, torch.get_num_threads())


@cache
def _chosen(
    wanted: tuple[tuple[int, int], ...], dtype: torch.dtype, _threads: int
) -> tuple[str, Form]:
    for name, form in _candidates(dtype):
        if all(_row_independent(form, shape, dtype) for shape in wanted):
            return name, form
    return f"{_FIXED_ROWS} rows at a time", _fixed(dtype)


def _candidates(dtype: torch.dtype) -> Iterator[tuple[str, Form]]:
    if torch._C._has_mkldnn:
        yield "packed", _packed(dtype)
    for multiple in (4, 8, 16):
        yield f"plain, rows padded to {multiple}", _padded(dtype, multiple)


def _packed(dtype: torch.dtype) -> Form:
    """oneDNN with the weight laid out once, at load."""

    def form(weight: Tensor) -> Linear:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), _TYPICAL_ROWS)
        multiply = torch.ops.mkldnn._linear_pointwise

        def linear(x: Tensor) -> Tensor:
            out: Tensor = multiply(x.to(dtype), packed, None, "none", [], "")
            return out.float()

        return linear

    return form


def _padded(dtype: torch.dtype, multiple: int) -> Form:
    def form(weight: Tensor) -> Linear:
        own = weight.to(dtype, copy=True)

        def linear(x: Tensor) -> Tensor:
            rows = x.shape[0]
            padding = -rows % multiple
            return F.linear(F.pad(x.to(dtype), (0, 0, 0, padding)), own)[:rows].float()

        return linear

    return form


def _fixed(dtype: torch.dtype) -> Form:
    def form(weight: Tensor) -> Linear:
        own = weight.to(dtype, copy=True)

        def linear(x: Tensor) -> Tensor:
            rows = x.shape[0]
            padded = F.pad(x.to(dtype), (0, 0, 0, -rows % _FIXED_ROWS))
            parts = [F.linear(part, own) for part in padded.view(-1, _FIXED_ROWS, x.shape[1])]
            return torch.cat(parts)[:rows].float()

        return linear

    return form


def _row_independent(form: Form, shape: tuple[int, int], dtype: torch.dtype) -> bool:
    """Try the form on slices of one random input. Deterministic: the generator is seeded."""
    generator = torch.Generator().manual_seed(0)
    # Rows of the weight are independent of each other in kind: a slice of a large head will do.
    weight = torch.randn(min(shape[0], 2048), shape[1], generator=generator)
    x = torch.randn(_REFERENCE_ROWS, shape[1], generator=generator)
    try:
        linear = form(weight.to(dtype))
        whole = linear(x)
        return all(
            torch.equal(linear(x[start : start + rows]), whole[start : start + rows])
            for rows in _TRIALS
            for start in (0, _REFERENCE_ROWS - rows)
        )
    except RuntimeError:
        # The operation does not exist on this processor or in this build of torch.
        return False
