"""Which compiled programs the texts of a request go through. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ridgeline_backends.neuron.buckets import bucket_of


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the program of a bucket and a batch, and the places of its texts."""

    bucket: int
    batch: int
    places: Sequence[int]


def calls_of(
    lengths: Sequence[int],
    buckets: Sequence[int],
    batch: int,
    seconds: Callable[[int, int], float],
) -> Iterator[Call]:
    """Texts of one bucket together: in a batch, or one by one where that takes no longer. `seconds`
    are those of a call, by bucket and batch."""
    together: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        together.setdefault(bucket_of(buckets, length), []).append(place)
    for bucket, places in sorted(together.items()):
        each, whole = seconds(bucket, 1), seconds(bucket, batch)
        for begin in range(0, len(places), batch):
            part = places[begin : begin + batch]
            if len(part) * each <= whole:
                yield from (Call(bucket, 1, [place]) for place in part)
            else:
                yield Call(bucket, batch, part)
