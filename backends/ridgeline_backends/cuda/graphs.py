"""Work that is recorded once and played again, without the host issuing every kernel anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Work = Callable[[], Tensor]

_BEFORE = 2
"""Runs before a recording: libraries choose their kernels and take their memory in the first."""


class Recorder(Protocol):
    def record(self, work: Work) -> Work:
        """The same work, which reads and writes the memory that it had when it was recorded."""


class Replayed:
    """CUDA graphs. All recordings share memory: a result holds until any of them is played."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> Work:
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_BEFORE):
                work()
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # No other thread of the process may break a recording by what it asks of CUDA.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = work()

        def play() -> Tensor:
            graph.replay()
            return result

        return play


class Repeated:
    """Where nothing records: the work itself."""

    def record(self, work: Work) -> Work:
        return work


def buckets(most: int) -> tuple[int, ...]:
    """The batch sizes that are recorded, up to `most` sequences."""
    sizes = [1, 2, 4, *range(8, most, 8), most]
    return tuple(sorted({size for size in sizes if size <= most}))
