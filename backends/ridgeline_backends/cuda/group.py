"""The processes of a tensor-parallel model: sums and gathers on the devices, steps over the host.

The first process decides, the others follow: every step is broadcast as whole numbers, so that all
of them run the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from ridgeline_backends.base import Chunk
from ridgeline_backends.cuda.devices import Collectives

_MEET = timedelta(minutes=10)
"""How long the processes wait for each other where all are at work."""

_IDLE = timedelta(days=365)
"""How long the others wait for a step: until the first one ends, which closes its connections."""


class Group:
    """One of `size` processes. A process can be in one group at a time."""

    def __init__(self, rank: int, size: int, *, collectives: Collectives, store: TCPStore) -> None:
        self.rank = rank
        self.size = size
        dist.init_process_group(collectives, store=store, rank=rank, world_size=size, timeout=_MEET)
        self._steps = dist.new_group(backend="gloo", timeout=_IDLE)

    def sum(self, x: Tensor) -> Tensor:
        """Over the processes, in place."""
        dist.all_reduce(x)
        return x

    def gather(self, x: Tensor) -> Tensor:
        """[rows, columns] of each process beside each other, by rank."""
        parts = torch.empty(self.size * x.shape[0], x.shape[1], dtype=x.dtype, device=x.device)
        dist.all_gather_single(parts, x.contiguous())
        return torch.cat(parts.chunk(self.size), 1)

    def lead(self, chunks: Sequence[Chunk], wanted: Sequence[int]) -> None:
        """Tell the others what to compute. For the first process."""
        self._send(encode(chunks, wanted))

    def dismiss(self) -> None:
        """Tell the others to end. For the first process."""
        self._send([])

    def follow(self) -> tuple[tuple[Chunk, ...], list[int]] | None:
        """What to compute next, None for nothing ever more. Raises RuntimeError when the first
        process is gone."""
        size = torch.empty(1, dtype=torch.int64)
        dist.broadcast(size, 0, group=self._steps)
        if not size.item():
            return None
        numbers = torch.empty(int(size.item()), dtype=torch.int64)
        dist.broadcast(numbers, 0, group=self._steps)
        return decode(numbers.tolist())

    def close(self) -> None:
        dist.destroy_process_group()

    def _send(self, numbers: list[int]) -> None:
        dist.broadcast(torch.tensor([len(numbers)]), 0, group=self._steps)
        if numbers:
            dist.broadcast(torch.tensor(numbers), 0, group=self._steps)


def encode(chunks: Sequence[Chunk], wanted: Sequence[int]) -> list[int]:
    """What a forward pass needs of a step, as numbers."""
    numbers = [len(chunks), len(wanted), *wanted]
    for chunk in chunks:
        numbers += [len(chunk.tokens), chunk.start, len(chunk.blocks)]
        numbers += [*chunk.tokens, *chunk.blocks]
    return numbers


def decode(numbers: Sequence[int]) -> tuple[tuple[Chunk, ...], list[int]]:
    """The chunks (without their names and samples) and wanted rows of `encode`."""
    count, rows = numbers[:2]
    place = 2 + rows
    wanted = list(numbers[2:place])
    chunks = []
    for _ in range(count):
        tokens, start, blocks = numbers[place : place + 3]
        place += 3
        chunks.append(
            Chunk(
                sequence_id="",
                tokens=tuple(numbers[place : place + tokens]),
                start=start,
                blocks=tuple(numbers[place + tokens : place + tokens + blocks]),
            )
        )
        place += tokens + blocks
    return tuple(chunks), wanted
