"""What one NeuronCore is given to do: instructions of its engines, DMA transfers, exchanges.

Compressed: an instruction that repeats over tiles is one object with a count, so a matrix of
8192 x 28672 is as small as one of 128 x 128. Knows nothing of graphs, models or time: cycles are
the engine's own (`Chip.tensor_ghz` and its like turn them into seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Engine(StrEnum):
    """The compute engines of a NeuronCore."""

    TENSOR = "tensor"
    VECTOR = "vector"
    SCALAR = "scalar"
    GPSIMD = "gpsimd"


class Stream(StrEnum):
    """What a DMA transfer carries, which decides how long its rows are and so how fast it goes.

    Weights lie in memory as their tiles are wanted; experts' are fetched when they are, all others
    may be before; cache entries lie as they were written, in rows of one head;
    spills are what has no room in SBUF between two operations."""

    WEIGHTS = "weights"
    EXPERTS = "experts"
    CACHE = "cache"
    SPILL = "spill"


@dataclass(frozen=True, slots=True)
class Instruction:
    """`count` times the same instruction of `cycles` each. `flops`: of all of them together."""

    engine: Engine
    name: str
    cycles: float
    count: int
    flops: int = 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes between device memory and SBUF, in rows of `row_bytes` that lie together; 0: in rows
    long enough not to matter."""

    stream: Stream
    bytes: int
    row_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One collective: `bytes` is what each core brings, `members` the cores of a group, `stride`
    apart."""

    name: str
    bytes: int
    members: int
    stride: int


@dataclass(frozen=True, slots=True)
class Lowered:
    """One operation on one physical core. `depth`: how many of its steps wait for the one before
    as a whole, each with a semaphore and a start of its own; 0 for a view. `joins`: how many times
    the two cores of a logical one hand each other halves, of a product or of what is exchanged."""

    instructions: tuple[Instruction, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    exchange: Exchange | None = None
    depth: int = 0
    joins: int = 0

    def cycles(self, engine: Engine) -> float:
        """Cycles that one engine is busy."""
        return sum(one.cycles * one.count for one in self.instructions if one.engine is engine)

    def bytes(self, stream: Stream) -> int:
        """Bytes of one stream, both ways."""
        return sum(one.bytes for one in self.transfers if one.stream is stream)

    @property
    def flops(self) -> int:
        return sum(one.flops for one in self.instructions)

    @property
    def count(self) -> int:
        """Instructions of all engines."""
        return sum(one.count for one in self.instructions)
