"""Compiled sizes: what a call costs, and what of it is executed. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

FEWEST = 16
"""The shortest text that a program of its own is executed for."""


def bucket_of(buckets: Sequence[int], size: int) -> int:
    """The compiled size that holds so many."""
    return min(bucket for bucket in buckets if bucket >= size)


def executed(count: int, most: int, fewest: int) -> int:
    """The next power of two, so that few programs are made."""
    size = fewest
    while size < count:
        size *= 2
    return max(min(size, most), count)
