"""Matrix products whose rows do not depend on each other, prepared once when weights are loaded.

Sums are in fp32, products of bfloat16 numbers exact, as in the tensor engine and its accumulators.
The processor backend's kernels do that where they are; else torch, in whichever form gives a row
the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import WIDTH, Library, library
from ridgeline_backends.cpu.kernels.packing import pack
from ridgeline_backends.cpu.linear import choose_form

Multiply = Callable[[Tensor], Tensor]
"""[rows, in] -> [rows, out], both float32."""

_ALIGNMENT = 64


def prepare(weight: Tensor) -> Multiply:
    """From a weight [out, in] of any type whose numbers bfloat16 or float32 can hold."""
    # 8-bit numbers, whole or not, are bfloat16 numbers too.
    kept = torch.float32 if weight.dtype in (torch.float32, torch.float16) else torch.bfloat16
    kernels = library()
    if kernels is not None:
        return _Native(kernels, weight.to(kept))
    _, form = choose_form([(weight.shape[0], weight.shape[1])], torch.float32)
    return form(weight.float())


class _Native:
    def __init__(self, kernels: Library, weight: Tensor) -> None:
        self._kernels = kernels
        self._rows, self._columns = weight.shape
        self._packed = pack(weight, weight.dtype)
        self._matrix = self._packed.struct()
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._room = 0
        self._padding = -self._columns % WIDTH
        self._threads = torch.get_num_threads()

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        threads = self._threads
        if rows > self._room:
            size = self._kernels.linear_scratch_bytes(self._matrix, rows, threads)
            self._scratch = torch.empty(size + _ALIGNMENT, dtype=torch.uint8)
            self._room = rows
        wide = (F.pad(x, (0, self._padding)) if self._padding else x).contiguous()
        out = torch.empty(rows, self._packed.n)
        address = -(-self._scratch.data_ptr() // _ALIGNMENT) * _ALIGNMENT
        self._kernels.linear(self._matrix, wide.data_ptr(), out.data_ptr(), rows, threads, address)
        return out if self._packed.n == self._rows else out[:, : self._rows]
