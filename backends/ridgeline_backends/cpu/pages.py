"""Memory straight from the system, for what is large and filled little by little."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

_HUGE = 2 << 20
_CHUNK = 16 * _HUGE
_LINE = 64


def zeros_on_demand(size: int, *, huge_pages: bool) -> Tensor:
    """`size` bytes [uint8] that the system hands out, zeroed, when they are first touched.

    Not from an allocator, which decides about huge pages by itself: with them a touch takes 2 MB,
    and many reads need few address translations.
    """
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advice = "MADV_HUGEPAGE" if huge_pages else "MADV_NOHUGEPAGE"
    if hasattr(mmap, advice):
        mapped.madvise(getattr(mmap, advice))
    return torch.frombuffer(mapped, dtype=torch.uint8)


class Arena:
    """Tensors side by side in huge pages, for what is read again and again and never freed alone.

    With small pages a tenth of a decoding step goes into address translation.
    """

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.uint8)

    def store(self, tensor: Tensor) -> Tensor:
        """A contiguous copy, at the start of a cache line."""
        size = tensor.numel() * tensor.element_size()
        if size > len(self._free):
            # What is left of the former chunk was never touched, so it costs nothing.
            room = -(-size // _CHUNK) * _CHUNK
            chunk = zeros_on_demand(room + _HUGE, huge_pages=True)
            self._free = chunk[-chunk.data_ptr() % _HUGE :][:room]
        place = self._free[:size].view(tensor.dtype).view(tensor.shape)
        self._free = self._free[-(-size // _LINE) * _LINE :]
        return place.copy_(tensor)
