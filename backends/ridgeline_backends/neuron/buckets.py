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
    return max(min(power_of_two(count, fewest), most), count)


def power_of_two(size: int, fewest: int = 128) -> int:
    """`fewest`, doubled until it holds so many; 128 is the shortest bucket that is compiled."""
    found = fewest
    while found < size:
        found *= 2
    return found
