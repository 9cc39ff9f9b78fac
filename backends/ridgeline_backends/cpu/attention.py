"""Paged attention whose bits depend on a sequence's own tokens alone.

Keys are taken in tiles of a fixed number of tokens, and a query's partial results are merged in
order of tiles. A tile that a query may not see adds exactly nothing, so it does not matter how far
the context was padded, which other queries ran along, or in how many chunks a prompt came. Query
heads of one KV head become rows of one matrix, in a multiple of `ROWS` (matrix products of other
row counts take another path, with other last bits).

Everything is in float32; keys and values are stored in the type of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.base import Chunk

ROWS = 4
_MIN_TILE = 64
# Finite, so that a tile without a visible key gives numbers (which the merge then drops), not NaN.
_HIDDEN = -1e30


class KVCache:
    """Keys and values of all layers: per layer [2 * kv heads, blocks, block size, dim]."""

    def __init__(
        self, layers: int, kv_heads: int, dim: int, blocks: int, block_size: int, dtype: torch.dtype
    ) -> None:
        self.block_size = block_size
        self.tile_blocks = -(-_MIN_TILE // block_size)
        self.tile = self.tile_blocks * block_size
        self.kv_heads = kv_heads
        # Zeroed, for a masked key counts nothing only if it is a number; by numpy, for then the
        # system hands out pages when they are first written, not all of them at load.
        shape = (layers, 2 * kv_heads, blocks, block_size, dim)
        zeros = np.zeros(shape, np.uint16 if dtype is torch.bfloat16 else np.float32)
        self._layers = torch.from_numpy(zeros).view(dtype)

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store k and v [rows, kv heads, dim] at `slots` (block * block size + offset)."""
        cache = self._layers[layer].flatten(1, 2)
        kv = torch.cat([k, v], 1).transpose(0, 1).to(cache.dtype)
        # What overflowed in one sequence must not reach the next holder of its blocks.
        cache.index_copy_(1, slots, kv.nan_to_num_())

    def read(self, layer: int, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of whole tiles: [kv heads, tiles, tile, dim] each, in float32."""
        found = self._layers[layer].index_select(1, blocks).float()
        tiles = found.view(2 * self.kv_heads, -1, self.tile, found.shape[-1])
        return tiles[: self.kv_heads], tiles[self.kv_heads :]


class StepAttention:
    """Attention for the chunks of one step: built once per step, called once per layer.

    Row i of the step belongs to the chunks in order; `rows` counts the padding too.
    """

    def __init__(self, cache: KVCache, chunks: tuple[Chunk, ...], rows: int) -> None:
        self._cache = cache
        self._rows = rows
        slots: list[int] = []
        decodes: list[tuple[int, Chunk]] = []
        self._prefills: list[_Prefill] = []
        for chunk in chunks:
            row = len(slots)
            size = cache.block_size
            slots.extend(
                chunk.blocks[position // size] * size + position % size
                for position in range(chunk.start, chunk.start + len(chunk.tokens))
            )
            if len(chunk.tokens) == 1:
                decodes.append((row, chunk))
            else:
                self._prefills.append(_Prefill.of(chunk, row, cache))
        self._used = len(slots)
        self._slots = torch.tensor(slots)
        self._decode = _Decode.of(decodes, cache) if decodes else None

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        used, kv_heads = self._used, self._cache.kv_heads
        self._cache.write(layer, self._slots, k[:used], v[:used])
        dim = q.shape[-1]
        q = q.view(self._rows, kv_heads, -1, dim) * (1 / sqrt(dim))
        out = q.new_zeros(q.shape)
        for prefill in self._prefills:
            rows = slice(prefill.row, prefill.row + prefill.count)
            out[rows] = _attend_prefill(prefill, q[rows], self._cache, layer)
        if self._decode is not None:
            out[self._decode.rows] = _attend_decode(
                self._decode, q[self._decode.rows], self._cache, layer
            )
        return out.flatten(1, 2)


@dataclass(frozen=True, slots=True)
class _Prefill:
    row: int
    count: int
    start: int
    blocks: Tensor
    positions: Tensor

    @classmethod
    def of(cls, chunk: Chunk, row: int, cache: KVCache) -> _Prefill:
        count = len(chunk.tokens)
        blocks = _tile_blocks(chunk, cache)
        positions = torch.arange(chunk.start, chunk.start + count)
        return cls(row, count, chunk.start, torch.tensor(blocks), positions)


@dataclass(frozen=True, slots=True)
class _Decode:
    """Sequences by falling context length, so that those that have tile j are the first n_j.

    `owner` says whose tile it is, tiles in the order all first ones, all second ones, ...
    """

    rows: Tensor
    counts: list[int]
    owner: Tensor
    blocks: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, decodes: list[tuple[int, Chunk]], cache: KVCache) -> _Decode:
        ordered = sorted(decodes, key=lambda item: -item[1].start)
        lengths = [chunk.start + 1 for _, chunk in ordered]
        tables = [_tile_blocks(chunk, cache) for _, chunk in ordered]
        tiles = [-(-length // cache.tile) for length in lengths]
        counts = [sum(1 for n in tiles if n > j) for j in range(tiles[0])]
        pairs = [(i, j) for j, count in enumerate(counts) for i in range(count)]
        width = cache.tile_blocks
        blocks = [b for i, j in pairs for b in tables[i][j * width : (j + 1) * width]]
        visible = torch.tensor([lengths[i] - j * cache.tile for i, j in pairs])
        return cls(
            rows=torch.tensor([row for row, _ in ordered]),
            counts=counts,
            owner=torch.tensor([i for i, _ in pairs]),
            blocks=torch.tensor(blocks),
            hidden=(torch.arange(cache.tile) >= visible[:, None])[:, None, :],
        )


def _tile_blocks(chunk: Chunk, cache: KVCache) -> list[int]:
    """The chunk's blocks, filled up to whole tiles with block 0, whose keys are masked."""
    needed = -(-(chunk.start + len(chunk.tokens)) // cache.block_size)
    return [*chunk.blocks[:needed], *[0] * (-needed % cache.tile_blocks)]


def _attend_decode(decode: _Decode, q: Tensor, cache: KVCache, layer: int) -> Tensor:
    """q [sequences, kv heads, group, dim], one position each."""
    k, v = cache.read(layer, decode.blocks)
    group = q.shape[2]
    q = F.pad(q, (0, 0, 0, -group % ROWS)).transpose(0, 1)
    tiles = _tile_attention(q[:, decode.owner], k, v, decode.hidden)
    ends = list(accumulate(decode.counts))
    total = tiles.part(0, ends[0])
    for begin, end in pairwise(ends):
        total.add(tiles.part(begin, end), 0)
    return total.value()[:, :, :group].transpose(0, 1)


def _attend_prefill(prefill: _Prefill, q: Tensor, cache: KVCache, layer: int) -> Tensor:
    """q [tokens, kv heads, group, dim] of one sequence, at consecutive positions."""
    count, kv_heads, group, dim = q.shape
    k, v = cache.read(layer, prefill.blocks)
    rows = q.transpose(0, 1).reshape(kv_heads, 1, count * group, dim)
    rows = F.pad(rows, (0, 0, 0, -count * group % ROWS))
    positions = prefill.positions.repeat_interleave(group)
    positions = F.pad(positions, (0, rows.shape[2] - len(positions)), value=prefill.start + count)
    total: _Partial | None = None
    for j in range(k.shape[1]):
        # Queries before this tile see nothing of it.
        first = max(0, j * cache.tile - prefill.start) * group // ROWS * ROWS
        hidden = None
        if prefill.start < (j + 1) * cache.tile - 1:
            keys = torch.arange(j * cache.tile, (j + 1) * cache.tile)
            hidden = keys > positions[first:, None]
        part = _tile_attention(rows[:, :, first:], k[:, j : j + 1], v[:, j : j + 1], hidden)
        if total is None:
            total = part
        else:
            total.add(part, first)
    assert total is not None
    out = total.value()[:, 0, : count * group]
    return out.view(kv_heads, count, group, dim).transpose(0, 1)


@dataclass(slots=True)
class _Partial:
    """Attention over some tiles, unnormalised: [kv heads, sequences, rows, 1 or dim]."""

    peak: Tensor
    weight: Tensor
    sum: Tensor

    def part(self, begin: int, end: int) -> _Partial:
        return _Partial(
            self.peak[:, begin:end].clone(),
            self.weight[:, begin:end].clone(),
            self.sum[:, begin:end].clone(),
        )

    def add(self, other: _Partial, first: int) -> None:
        """Merge the next tile, of the leading sequences and of the rows from `first` on."""
        sequences = other.peak.shape[1]
        mine = (slice(None), slice(0, sequences), slice(first, None))
        peak = torch.maximum(self.peak[mine], other.peak)
        keep, take = torch.exp(self.peak[mine] - peak), torch.exp(other.peak - peak)
        self.peak[mine] = peak
        self.weight[mine] = self.weight[mine] * keep + other.weight * take
        self.sum[mine] = self.sum[mine] * keep + other.sum * take

    def value(self) -> Tensor:
        return self.sum / self.weight


def _tile_attention(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> _Partial:
    """q [kv heads, n, rows, dim] against one tile each, k and v [kv heads, n, tile, dim]."""
    heads, n, rows, dim = q.shape
    scores = torch.bmm(q.reshape(-1, rows, dim), k.reshape(heads * n, -1, dim).transpose(1, 2))
    scores = scores.view(heads, n, rows, -1)
    if hidden is not None:
        scores.masked_fill_(hidden, _HIDDEN)
    peak = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - peak)
    out = torch.bmm(weights.view(heads * n, rows, -1), v.reshape(heads * n, -1, dim))
    return _Partial(peak, weights.sum(-1, keepdim=True), out.view(heads, n, rows, dim))
