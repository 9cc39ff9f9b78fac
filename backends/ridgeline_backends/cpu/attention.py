"""Paged attention whose bits depend on a sequence's own tokens alone.

Keys are taken in tiles of a fixed number of tokens, and a query's partial results are merged in
order of tiles. A tile that a query may not see adds exactly nothing, so it does not matter how far
the context was padded, which other queries ran along, or in how many chunks a prompt came. Query
heads of one KV head become rows of one matrix, in a multiple of `ROWS` (matrix products of other
row counts take another path, with other last bits). A layer with a sliding window masks what lies
before it, and leaves out tiles that no query of a sequence's chunk can see.

Everything is in float32; keys and values are stored in the type of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ridgeline_backends.base import Chunk
from ridgeline_backends.cpu.pages import zeros_on_demand
from ridgeline_backends.models.arithmetic import softcap

ROWS = 4
_MIN_TILE = 64
# Finite, so that a tile without a visible key gives numbers (which the merge then drops), not NaN.
_HIDDEN = -1e30


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """How a model's layers score: `scale` times q.k, bent below `softcap`; a query at position p
    sees the keys from p - window + 1 on, `windows` being given per layer."""

    scale: float
    windows: tuple[int | None, ...]
    softcap: float | None = None


class KVCache:
    """Keys and values of all layers: per layer [2 * kv heads, blocks, block size, dim]."""

    def __init__(
        self, layers: int, kv_heads: int, dim: int, blocks: int, block_size: int, dtype: torch.dtype
    ) -> None:
        self.block_size = block_size
        self.tile_blocks = -(-_MIN_TILE // block_size)
        self.tile = self.tile_blocks * block_size
        self.kv_heads = kv_heads
        shape = (layers, 2 * kv_heads, blocks, block_size, dim)
        size = prod(shape) * dtype.itemsize
        # Small pages: a token writes to layers * 2 * heads places, each 2 MB of them at once.
        self._layers = zeros_on_demand(size, huge_pages=False).view(dtype).view(shape)

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

    Row i of the step is token i of the chunks in order.
    """

    def __init__(self, cache: KVCache, chunks: tuple[Chunk, ...], rule: AttentionRule) -> None:
        self._cache = cache
        self._rule = rule
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
        self._slots = torch.tensor(slots)
        distinct = set(rule.windows) if decodes else ()
        self._decodes = {window: _Decode.of(decodes, cache, window) for window in distinct}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._cache.write(layer, self._slots, k, v)
        rows, _, dim = q.shape
        q = q.reshape(rows, self._cache.kv_heads, -1, dim) * self._rule.scale
        decode = self._decodes.get(self._rule.windows[layer])
        if not self._prefills:
            assert decode is not None
            return _attend_decode(decode, q, self._cache, layer, self._rule).flatten(1, 2)
        out = torch.empty_like(q)
        for prefill in self._prefills:
            own = slice(prefill.row, prefill.row + prefill.count)
            out[own] = _attend_prefill(prefill, q[own], self._cache, layer, self._rule)
        if decode is not None:
            out[decode.rows] = _attend_decode(decode, q, self._cache, layer, self._rule)
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
    """Sequences by falling number of tiles, so that those that have tile j are the first n_j.

    A sequence's tiles are those in which its window, or all of its context, lies. `owner` is the
    row of each tile's query, tiles in the order all first ones, all second ones, ... `order` puts
    the results back into the order of `rows`, those of the step that decode.
    """

    rows: Tensor
    ends: list[int]
    owner: Tensor
    order: Tensor
    blocks: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, decodes: list[tuple[int, Chunk]], cache: KVCache, window: int | None) -> _Decode:
        ends = [chunk.start + 1 for _, chunk in decodes]
        begins = [0 if window is None else max(0, end - window) for end in ends]
        first = [begin // cache.tile for begin in begins]
        tiles = [-(-end // cache.tile) - skip for end, skip in zip(ends, first, strict=True)]
        ordered = sorted(range(len(decodes)), key=lambda i: -tiles[i])
        counts = [sum(1 for n in tiles if n > j) for j in range(max(tiles))]
        pairs = [(i, first[i] + j) for j, count in enumerate(counts) for i in ordered[:count]]
        tables = [_tile_blocks(chunk, cache) for _, chunk in decodes]
        width = cache.tile_blocks
        blocks = [b for i, j in pairs for b in tables[i][j * width : (j + 1) * width]]
        keys = torch.arange(cache.tile) + torch.tensor([[j * cache.tile] for _, j in pairs])
        hidden = keys >= torch.tensor([[ends[i]] for i, _ in pairs])
        if window is not None:
            hidden |= keys < torch.tensor([[begins[i]] for i, _ in pairs])
        return cls(
            rows=torch.tensor([row for row, _ in decodes]),
            ends=list(accumulate(counts)),
            owner=torch.tensor([decodes[i][0] for i, _ in pairs]),
            order=torch.tensor(ordered).argsort(),
            blocks=torch.tensor(blocks),
            hidden=hidden[:, None, :],
        )


def _tile_blocks(chunk: Chunk, cache: KVCache) -> list[int]:
    """The chunk's blocks, filled up to whole tiles with block 0, whose keys are masked."""
    needed = -(-(chunk.start + len(chunk.tokens)) // cache.block_size)
    return [*chunk.blocks[:needed], *[0] * (-needed % cache.tile_blocks)]


def _attend_decode(
    decode: _Decode, q: Tensor, cache: KVCache, layer: int, rule: AttentionRule
) -> Tensor:
    """q [rows of the step, kv heads, group, dim]; the results of those that decode."""
    k, v = cache.read(layer, decode.blocks)
    group = q.shape[2]
    q = F.pad(q.index_select(0, decode.owner), (0, 0, 0, -group % ROWS)).transpose(0, 1)
    tiles = _tile_attention(q, k, v, decode.hidden, rule.softcap)
    total = tiles.part(0, decode.ends[0])
    for begin, end in pairwise(decode.ends):
        total.add(tiles.part(begin, end), 0)
    return total.value()[:, :, :group].transpose(0, 1).index_select(0, decode.order)


def _attend_prefill(
    prefill: _Prefill, q: Tensor, cache: KVCache, layer: int, rule: AttentionRule
) -> Tensor:
    """q [tokens, kv heads, group, dim] of one sequence, at consecutive positions."""
    count, kv_heads, group, dim = q.shape
    window = rule.windows[layer]
    # The first query looks back the furthest.
    skipped = 0 if window is None else max(0, prefill.start - window + 1) // cache.tile
    k, v = cache.read(layer, prefill.blocks[skipped * cache.tile_blocks :])
    rows = q.transpose(0, 1).reshape(kv_heads, 1, count * group, dim)
    rows = F.pad(rows, (0, 0, 0, -count * group % ROWS))
    positions = prefill.positions.repeat_interleave(group)
    positions = F.pad(positions, (0, rows.shape[2] - len(positions)), value=prefill.start + count)
    total: _Partial | None = None
    for j in range(skipped, skipped + k.shape[1]):
        # Queries before this tile see nothing of it.
        first = max(0, j * cache.tile - prefill.start) * group // ROWS * ROWS
        hidden = _hidden(positions[first:, None], j * cache.tile, cache.tile, window)
        own = slice(j - skipped, j - skipped + 1)
        part = _tile_attention(rows[:, :, first:], k[:, own], v[:, own], hidden, rule.softcap)
        if total is None:
            total = part
        else:
            total.add(part, first)
    assert total is not None
    out = total.value()[:, 0, : count * group]
    return out.view(kv_heads, count, group, dim).transpose(0, 1)


def _hidden(positions: Tensor, start: int, tile: int, window: int | None) -> Tensor | None:
    """Which keys of the tile at `start` the queries at `positions` [rows, 1] do not see."""
    first, last = int(positions[0]), int(positions[-1])
    keys = torch.arange(start, start + tile)
    hidden = None
    if first < start + tile - 1:
        hidden = keys > positions
    if window is not None and start <= last - window:
        before = keys <= positions - window
        hidden = before if hidden is None else hidden | before
    return hidden


@dataclass(slots=True)
class _Partial:
    """Attention over some tiles, unnormalised: [kv heads, sequences, rows, 1 or dim]."""

    peak: Tensor
    weight: Tensor
    sum: Tensor

    def part(self, begin: int, end: int) -> _Partial:
        """Tiles `begin` to `end`; a view, as good as a copy where no tile is in two parts."""
        own = (slice(None), slice(begin, end))
        return _Partial(self.peak[own], self.weight[own], self.sum[own])

    def add(self, other: _Partial, first: int) -> None:
        """Merge the next tile, of the leading sequences and of the rows from `first` on."""
        mine = (slice(None), slice(0, other.peak.shape[1]), slice(first, None))
        own_peak = self.peak[mine]
        peak = torch.maximum(own_peak, other.peak)
        keep, take = torch.exp(own_peak - peak), torch.exp(other.peak - peak)
        own_peak.copy_(peak)
        self.weight[mine].mul_(keep).add_(other.weight * take)
        self.sum[mine].mul_(keep).add_(other.sum * take)

    def value(self) -> Tensor:
        return self.sum / self.weight


def _tile_attention(
    q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, cap: float | None
) -> _Partial:
    """q [kv heads, n, rows, dim] against one tile each, k and v [kv heads, n, tile, dim]."""
    heads, n, rows, dim = q.shape
    scores = torch.bmm(q.reshape(-1, rows, dim), k.reshape(heads * n, -1, dim).transpose(1, 2))
    scores = scores.view(heads, n, rows, -1)
    if cap is not None:
        scores = softcap(scores, cap)
    if hidden is not None:
        scores.masked_fill_(hidden, _HIDDEN)
    peak = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - peak)
    out = torch.bmm(weights.view(heads * n, rows, -1), v.reshape(heads * n, -1, dim))
    return _Partial(peak, weights.sum(-1, keepdim=True), out.view(heads, n, rows, dim))
