"""Matrix products of all cores at once, prepared when weights are loaded.

Sums are in fp32, products of bfloat16 numbers exact, as in the tensor engine and its accumulators,
and a row's numbers do not depend on the rows beside it. The processor backend's kernels do that
where they are, in one call for all cores; else torch, in whichever form gives a row the same bits
in any company.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from ctypes import Array

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import WIDTH, Library, Matrix, Product, library
from ridgeline_backends.cpu.kernels.packing import pack
from ridgeline_backends.cpu.linear import choose_form

_ALIGNMENT = 64


class Scratch:
    """Memory that one kernel call after the other works in."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def address(self, size: int) -> int:
        """An aligned address of so many bytes."""
        if self._bytes.numel() < size + _ALIGNMENT:
            self._bytes = torch.empty(size + _ALIGNMENT, dtype=torch.uint8)
        return -(-self._bytes.data_ptr() // _ALIGNMENT) * _ALIGNMENT


class Matrices(ABC):
    """A weight [out, in] on each core, or one that all have."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.count = len(parts)
        self.rows, self.columns = parts[0].shape

    @abstractmethod
    def multiply(self, x: Tensor, *, spread: bool) -> Tensor:
        """x [rows, in], with `spread` [cores, rows, in], in float32 -> [cores, rows, out]; without
        the cores where neither x nor the weight differs between them."""


def prepare(parts: Sequence[Tensor], scratch: Scratch, *, exact: bool) -> Matrices:
    """From the weight of each core, or the one of all, of a type that bfloat16 or float32 hold.
    `exact`: what they are multiplied with is float32, which processors with products of bfloat16
    numbers would round to those."""
    # 8-bit numbers, whole or not, are bfloat16 numbers too.
    wide = exact or parts[0].dtype in (torch.float32, torch.float16)
    kept = torch.float32 if wide else torch.bfloat16
    kernels = library()
    if kernels is not None:
        return PackedMatrices(kernels, [part.to(kept) for part in parts], scratch)
    return _Plain(parts)


class PackedMatrices(Matrices):
    """As the kernels multiply by them."""

    def __init__(self, kernels: Library, parts: Sequence[Tensor], scratch: Scratch) -> None:
        super().__init__(parts)
        self._kernels = kernels
        self._packed = [pack(part, part.dtype) for part in parts]
        self._out, self._in = self._packed[0].n, self._packed[0].k
        self._products = (Product * self.count)(*(Product(w=p.struct()) for p in self._packed))
        self._threads = torch.get_num_threads()
        self._scratch = scratch
        self._room = self._size = 0
        self._padding = -self.columns % WIDTH

    def structs(self, cores: int) -> Array[Matrix]:
        """The matrix of each core, as the kernels want it. They must not outlive these."""
        own = self._packed if self.count == cores else self._packed * cores
        return (Matrix * cores)(*(one.struct() for one in own))

    def multiply(self, x: Tensor, *, spread: bool) -> Tensor:
        if spread and self.count == 1:
            # All cores' rows below each other.
            return self.multiply(x.flatten(0, 1), spread=False).view(*x.shape[:2], -1)
        rows = x.shape[-2]
        wide = (F.pad(x, (0, self._padding)) if self._padding else x).contiguous()
        out = torch.empty((self.count, rows, self._out))
        source, target = wide.data_ptr(), out.data_ptr()
        for core, product in enumerate(self._products):
            product.rows = rows
            product.x = source + (core * rows * self._in * 4 if spread else 0)
            product.y = target + core * rows * self._out * 4
        if rows > self._room:
            self._size = self._kernels.products_scratch_bytes(self._products, self._threads)
            self._room = rows
        self._kernels.products(self._products, self._threads, self._scratch.address(self._size))
        own = out if self._out == self.rows else out[..., : self.rows]
        return own if self.count > 1 else own[0]


class _Plain(Matrices):
    def __init__(self, parts: Sequence[Tensor]) -> None:
        super().__init__(parts)
        _, form = choose_form([(self.rows, self.columns)], torch.float32)
        self._forms = [form(part.float()) for part in parts]

    def multiply(self, x: Tensor, *, spread: bool) -> Tensor:
        if self.count == 1:
            rows = self._forms[0](x.flatten(0, -2))
            return rows.view(*x.shape[:-1], self.rows)
        inputs = x.unbind(0) if spread else [x] * self.count
        return torch.stack([form(one) for form, one in zip(self._forms, inputs, strict=True)])
