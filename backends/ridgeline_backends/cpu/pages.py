"""Memory straight from the system, for what is large and filled little by little."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor


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
