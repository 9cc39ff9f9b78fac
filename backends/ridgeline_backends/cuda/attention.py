"""Attention over KV memory in blocks, by torch's own kernels or in plain operations.

In the plain form a row's bits depend on its own tokens alone: keys come in tiles of a fixed number,
merged in their order, and a tile that a query does not see adds exactly nothing. Torch's kernels
are asked for one split of the keys, with which a row does not depend on other sequences; whether
another cut of its own prompt into chunks changes its last bits is up to them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from ridgeline_backends.base import Chunk
from ridgeline_backends.cuda.batch import Batch, Shape, numbers, view
from ridgeline_backends.models.arithmetic import softcap
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import Attend

log = logging.getLogger(__name__)

_TOLERANCE = 0.05
"""On averages of numbers of about 1, of which bfloat16 keeps eight bits."""

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


def choose_attention(
    config: DecoderConfig, block_size: int, dtype: torch.dtype, device: torch.device
) -> MakeAttend:
    """Torch's kernels where they do on this very device what the plain form does, else that.

    Which of them take block tables, and blocks of which size, differs between generations of GPUs
    and releases of torch; so nothing is assumed.
    """
    if dtype is not torch.bfloat16 or config.attention_softcap is not None:
        return plain
    try:
        apart = _distance(config, block_size, device)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        log.info("Attention in plain operations: torch's kernels refuse this model: %s", error)
        return plain
    if apart > _TOLERANCE:
        log.warning("Attention in plain operations: torch's kernels are off by %.3f", apart)
        return plain
    return flash


def _distance(config: DecoderConfig, block_size: int, device: torch.device) -> float:
    """The largest difference between both forms for a prompt's chunk and a decode."""
    draw = torch.Generator().manual_seed(0)
    prompt = min(37, block_size)
    rows = prompt + 1
    rule = Rule.of(config)
    chunks = (
        Chunk(sequence_id="a", tokens=(0,) * prompt, start=0, blocks=(1,)),
        Chunk(sequence_id="b", tokens=(0,), start=block_size + 4, blocks=(2, 0)),
    )
    shape = Shape(rows, sequences=2, width=2)
    flat = torch.tensor(numbers(chunks, shape, block_size, spare=3), device=device)
    batch = view(flat, shape, longest_chunk=prompt, longest=block_size + 5)

    def random(heads: int) -> Tensor:
        return torch.randn(rows, heads, config.head_dim, generator=draw).to(device)

    q, k, v = random(config.heads), random(config.kv_heads), random(config.kv_heads)
    found = []
    for make in (plain, flash):
        cache = PagedKV(
            replace(config, layers=1),
            blocks=3,
            block_size=block_size,
            dtype=torch.bfloat16,
            device=device,
        )
        earlier = torch.arange(block_size, device=device) + 2 * block_size
        filler = torch.linspace(-1, 1, block_size, device=device)[:, None, None]
        filler = filler.expand(-1, config.kv_heads, config.head_dim)
        cache.write(0, earlier, filler, filler)
        found.append(make(cache, rule, batch)(0, q, k, v))
    return float((found[0] - found[1]).abs().max())


def flash(
    cache: PagedKV, rule: Rule, batch: Batch, kernel: Callable[..., object] = varlen_attn
) -> Attend:
    """By torch's FlashAttention over block tables. Needs bfloat16 and no softcap."""
    key_bounds = torch.nn.functional.pad(batch.lengths.cumsum(0), (1, 0)).to(torch.int32)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache.write(layer, batch.slots, k, v)
        keys, values = cache.of(layer)
        window = rule.windows[layer]
        out = kernel(
            q.to(keys.dtype).contiguous(),
            keys,
            values,
            batch.bounds,
            key_bounds,
            batch.longest_chunk,
            batch.longest,
            scale=rule.scale,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=True,
            seqused_k=batch.lengths,
            block_table=batch.tables,
            num_splits=1,
        )
        assert isinstance(out, Tensor)
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
        peak = torch.full((rows * kv_heads, q.shape[1], 1), -torch.inf, device=q.device)
        weight, total = torch.zeros_like(peak), torch.zeros_like(q)
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
            new = torch.maximum(peak, scores.amax(-1, keepdim=True))
            keep, shares = torch.exp(peak - new), torch.exp(scores - new)
            total = total * keep + torch.bmm(shares, values)
            weight = weight * keep + shares.sum(-1, keepdim=True)
            peak = new
        return (total / weight).view(rows, heads, dim)

    return attend
