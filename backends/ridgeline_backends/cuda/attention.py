"""Attention over KV memory in blocks, on any device: by torch's own kernels, or in plain operations.

In the plain form a row's bits depend on its own tokens alone: keys come in tiles of a fixed number,
merged in their order, and a tile that a query does not see adds exactly nothing. Torch's kernels
are asked for one split of the keys, with which a row does not depend on other sequences; whether
another cut of its own prompt into chunks changes its last bits is up to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from ridgeline_backends.cuda.batch import Batch
from ridgeline_backends.models.arithmetic import softcap
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import Attend

_MIN_TILE = 64
# Finite, so that a tile without a visible key gives numbers (which the merge then drops), not NaN.
_HIDDEN = -1e30


class PagedKV:
    """Keys and values of all layers, each [blocks + 1, block size, kv heads, dim]. The last block
    is nobody's: what only fills a batch up is written there."""

    def __init__(
        self,
        config: DecoderConfig,
        *,
        blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_size = block_size
        self.spare = blocks
        shape = (config.layers, 2, blocks + 1, block_size, config.kv_heads, config.head_dim)
        self._layers = torch.zeros(shape, dtype=dtype, device=device)

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store k and v [rows, kv heads, dim]."""
        for cache, new in zip(self._layers[layer], (k, v), strict=True):
            # What overflowed in one sequence must not reach the next holder of its blocks.
            cache.flatten(0, 1).index_copy_(0, slots, new.to(cache.dtype).nan_to_num())

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = self._layers[layer]
        return keys, values


@dataclass(frozen=True, slots=True)
class Rule:
    """As `DecoderConfig` has it: score = `scale` * q.k, capped softly; a window per layer."""

    scale: float
    windows: tuple[int | None, ...]
    softcap: float | None

    @classmethod
    def of(cls, config: DecoderConfig) -> Rule:
        return cls(config.attention_scale, config.windows, config.attention_softcap)


MakeAttend = Callable[[PagedKV, Rule, Batch], Attend]
"""How one step attends."""


def flash(
    cache: PagedKV, rule: Rule, batch: Batch, kernel: Callable[..., Tensor] = varlen_attn
) -> Attend:
    """By torch's FlashAttention over block tables. Needs bfloat16 and no softcap."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache.write(layer, batch.slots, k, v)
        keys, values = cache.of(layer)
        window = rule.windows[layer]
        out = kernel(
            q.to(keys.dtype).contiguous(),
            keys,
            values,
            batch.bounds,
            None,
            batch.longest_chunk,
            batch.longest,
            scale=rule.scale,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=True,
            seqused_k=batch.lengths,
            block_table=batch.tables,
            num_splits=1,
        )
        return out.float()

    return attend


def plain(cache: PagedKV, rule: Rule, batch: Batch) -> Attend:
    """In float32, for what the kernels do not take. Reads every row's keys anew."""
    width = -(-_MIN_TILE // cache.block_size)
    tile = width * cache.block_size
    tiles = -(-batch.longest // tile)
    tables = batch.tables.long()
    missing = tiles * width - tables.shape[1]
    if missing > 0:
        tables = torch.nn.functional.pad(tables, (0, missing))
    tables = tables[batch.owners]
    positions = batch.positions[:, None]
    offsets = torch.arange(tile, device=tables.device)

    def hidden(first: int, window: int | None) -> Tensor:
        keys = first + offsets
        mask = keys > positions
        if window is not None:
            mask = mask | (keys <= positions - window)
        return mask[:, None, None, :]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache.write(layer, batch.slots, k, v)
        rows, heads, dim = q.shape
        kv_heads = k.shape[1]
        q = q.reshape(rows * kv_heads, heads // kv_heads, dim) * rule.scale
        peak = weight = total = None
        for j in range(tiles):
            own = tables[:, j * width : (j + 1) * width]
            keys, values = (
                part[own].flatten(1, 2).transpose(1, 2).flatten(0, 1).float()
                for part in cache.of(layer)
            )
            scores = torch.bmm(q, keys.transpose(1, 2)).view(rows, kv_heads, -1, tile)
            if rule.softcap is not None:
                scores = softcap(scores, rule.softcap)
            scores = scores.masked_fill(hidden(j * tile, rule.windows[layer]), _HIDDEN)
            scores = scores.flatten(0, 1)
            new = scores.amax(-1, keepdim=True)
            if peak is not None:
                new = torch.maximum(peak, new)
            shares = torch.exp(scores - new)
            out, share = torch.bmm(shares, values), shares.sum(-1, keepdim=True)
            if peak is not None:
                keep = torch.exp(peak - new)
                out, share = total * keep + out, weight * keep + share
            peak, weight, total = new, share, out
        return (total / weight).view(rows, heads, dim)

    return attend
