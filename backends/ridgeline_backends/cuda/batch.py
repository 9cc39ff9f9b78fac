"""One step as numbers on a device: sent in one transfer, and laid out alike for equal shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline_backends.base import Chunk


@dataclass(frozen=True, slots=True)
class Shape:
    """`rows` tokens of `sequences` sequences; block tables are `width` wide."""

    rows: int
    sequences: int
    width: int

    @property
    def size(self) -> int:
        return 4 * self.rows + self.sequences * (2 + self.width) + 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Per row: `tokens`, `positions`, `slots` (block * block size + offset) to write to, and
    `owners`, the place of its sequence. Per sequence: `bounds` [sequences + 1], where its rows
    begin, `lengths`, how many keys it has, and `tables` [sequences, width], its blocks.

    `longest_chunk` rows and `longest` keys are bounds on those of any sequence.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    owners: Tensor
    bounds: Tensor
    lengths: Tensor
    tables: Tensor
    longest_chunk: int
    longest: int


def numbers(chunks: Sequence[Chunk], shape: Shape, block_size: int, spare: int) -> list[int]:
    """What `view` reads. Sequences that are missing in `chunks` are filled up with ones of one
    token in the block `spare`, which belongs to nobody."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    owners: list[int] = []
    bounds = [0]
    lengths: list[int] = []
    tables: list[int] = []
    for owner, chunk in enumerate(chunks):
        end = chunk.start + len(chunk.tokens)
        tokens.extend(chunk.tokens)
        positions.extend(range(chunk.start, end))
        slots.extend(
            chunk.blocks[position // block_size] * block_size + position % block_size
            for position in range(chunk.start, end)
        )
        owners.extend([owner] * len(chunk.tokens))
        bounds.append(len(tokens))
        lengths.append(end)
        blocks = chunk.blocks[: -(-end // block_size)]
        tables.extend(blocks)
        tables.extend([0] * (shape.width - len(blocks)))
    for owner in range(len(chunks), shape.sequences):
        tokens.append(0)
        positions.append(0)
        slots.append(spare * block_size)
        owners.append(owner)
        bounds.append(len(tokens))
        lengths.append(1)
        tables.extend([spare, *[0] * (shape.width - 1)])
    return [*tokens, *positions, *slots, *owners, *bounds, *lengths, *tables]


def view(flat: Tensor, shape: Shape, *, longest_chunk: int, longest: int) -> Batch:
    """`flat` [shape.size] of `numbers`, taken apart. The kernels want 32 bits per sequence."""
    rows, sequences = shape.rows, shape.sequences
    sizes = [rows, rows, rows, rows, sequences + 1, sequences, sequences * shape.width]
    tokens, positions, slots, owners, bounds, lengths, tables = torch.split(flat, sizes)
    return Batch(
        tokens=tokens,
        positions=positions,
        slots=slots,
        owners=owners,
        bounds=bounds.to(torch.int32),
        lengths=lengths.to(torch.int32),
        tables=tables.view(sequences, shape.width).to(torch.int32),
        longest_chunk=longest_chunk,
        longest=longest,
    )
