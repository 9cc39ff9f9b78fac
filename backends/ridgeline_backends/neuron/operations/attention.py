"""Attention, over fresh keys and over a compiled length of the KV cache, and what surrounds it.

Scores and their softmax are in fp32; the shares are rounded to the type of the values before they
weigh them, as the tensor engine takes them. Position -1 stands for a row that only fills a batch or
a bucket up: it is written nowhere, and what it gives is read by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ridgeline_backends.neuron.operations.checks import require, take
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind

AttentionKernel = Literal["plain", "flash"]
"""plain: all scores are computed and kept, masked ones too. flash: tiles that are hidden as a whole
are skipped, and no score leaves the core's own memory."""


@dataclass(frozen=True, slots=True)
class Rope(OperationKind):
    """x [batch, length, heads, dim], positions [batch, length], and tables of cosines and sines
    [positions, rotary dim] of which the sines carry the sign of the first half."""

    name: ClassVar[str] = "rope"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, positions, cos, sin = take(inputs, self.name, 4)
        require(len(x.shape) == 4, self.name, "turns [batch, length, heads, dim]", inputs)
        require(positions.shape == x.shape[:2], self.name, "has a position of each", inputs)
        fitting = cos.shape == sin.shape and cos.shape[-1] <= x.shape[-1]
        require(fitting, self.name, "turns no more than a head", inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        x, _, cos, _ = inputs
        return 3 * x.elements // x.shape[-1] * cos.shape[-1]

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        x, positions, cos, _ = inputs
        rows = positions.elements * cos.shape[-1] * cos.dtype.bytes
        return x.bytes, positions.bytes, rows, rows


@dataclass(frozen=True, slots=True)
class Attention(OperationKind):
    """q [batch, queries, heads, dim] over k [batch, keys, KV heads, dim] and v [.., .., .., width]
    -> [batch, queries, heads, width]. Further inputs, in this order: with `masked` the number of
    keys of each sequence [batch]; with `biased` what is added to scores [1 or batch, heads,
    queries, keys].

    A score is `scale` * q.k, then capped softly. `causal`: query i sees the keys up to i, or the
    last `window` of them.
    """

    name: ClassVar[str] = "attention"
    scale: float
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    masked: bool = False
    biased: bool = False
    kernel: AttentionKernel = "plain"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        q, k, v, *_ = take(inputs, self.name, 3 + self.masked + self.biased)
        deep = all(len(one.shape) == 4 for one in (q, k, v))
        require(deep, self.name, "takes [batch, length, heads, dim]", inputs)
        fitting = (
            k.shape[:3] == v.shape[:3]
            and (q.shape[0], q.shape[3]) == (k.shape[0], k.shape[3])
            and q.shape[2] % k.shape[2] == 0
        )
        require(fitting, self.name, "attends over keys like its queries", inputs)
        return (replace(q, shape=(*q.shape[:3], v.shape[3])),)

    def pairs(self, queries: int, keys: int) -> int:
        """The scores of one head that are computed."""
        if self.kernel == "plain" or not self.causal:
            return queries * keys
        window = min(self.window or keys, keys)
        rising = min(window, queries)
        return rising * (rising + 1) // 2 + (queries - rising) * window

    def flops(self, inputs: Sequence[Form]) -> int:
        q, k, v = inputs[:3]
        batch, queries, heads, dim = q.shape
        pairs = batch * heads * self.pairs(queries, k.shape[1])
        return pairs * (2 * dim + 2 * v.shape[3] + 5)

    def scratch_bytes(self, inputs: Sequence[Form]) -> int:
        """The scores, in the type of the queries."""
        q, k = inputs[:2]
        if self.kernel == "flash":
            return 0
        batch, queries, heads, _ = q.shape
        return batch * heads * queries * k.shape[1] * q.dtype.bytes


@dataclass(frozen=True, slots=True)
class CachedAttention(OperationKind):
    """q [batch, queries, heads, dim] at positions [batch, queries] over the first `length` entries
    of caches [slots, KV heads, entries, dim or width], of which `slots` [batch] says whose ->
    [batch, queries, heads, width]. A query sees the entries up to its position, or the last
    `window` of them; all `length` are read."""

    name: ClassVar[str] = "cached_attention"
    scale: float
    length: int
    window: int | None = None
    softcap: float | None = None
    kernel: AttentionKernel = "plain"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        q, k, v, positions, slots = take(inputs, self.name, 5)
        deep = all(len(one.shape) == 4 for one in (q, k, v))
        require(deep, self.name, "takes [batch, queries, heads, dim] and caches", inputs)
        fitting = (
            k.shape[:3] == v.shape[:3]
            and q.shape[3] == k.shape[3]
            and q.shape[2] % k.shape[1] == 0
            and self.length <= k.shape[2]
        )
        require(fitting, self.name, f"reads {self.length} keys like its queries", inputs)
        placed = positions.shape == q.shape[:2] and slots.shape == q.shape[:1]
        require(placed, self.name, "has a position of each query and a slot of each row", inputs)
        return (replace(q, shape=(*q.shape[:3], v.shape[3])),)

    def flops(self, inputs: Sequence[Form]) -> int:
        q, _, v, *_ = inputs
        batch, queries, heads, dim = q.shape
        return batch * heads * queries * self.length * (2 * dim + 2 * v.shape[3] + 5)

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        q, k, v, positions, slots = inputs

        def entries(cache: Form) -> int:
            return q.shape[0] * cache.shape[1] * self.length * cache.shape[3] * cache.dtype.bytes

        return q.bytes, entries(k), entries(v), positions.bytes, slots.bytes


@dataclass(frozen=True, slots=True)
class KVWrite(OperationKind):
    """A cache [slots, KV heads, entries, dim], new entries [batch, length, KV heads, dim], their
    positions [batch, length] and slots [batch] -> the cache, in its place."""

    name: ClassVar[str] = "kv_write"

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        cache, new, positions, slots = take(inputs, self.name, 4)
        deep = len(cache.shape) == len(new.shape) == 4
        require(deep, self.name, "writes [batch, length, heads, dim]", inputs)
        fitting = (cache.shape[1], cache.shape[3]) == new.shape[2:]
        require(fitting, self.name, "writes entries like those of the cache", inputs)
        placed = positions.shape == new.shape[:2] and slots.shape == new.shape[:1]
        require(placed, self.name, "has a position of each entry and a slot of each row", inputs)
        integers = positions.dtype is slots.dtype is ElementType.INT32
        require(integers, self.name, "writes by int32", inputs)
        return (cache,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 0

    def read_bytes(self, inputs: Sequence[Form]) -> tuple[int, ...]:
        _, new, positions, slots = inputs
        return 0, new.bytes, positions.bytes, slots.bytes

    def written_bytes(self, inputs: Sequence[Form]) -> int:
        return inputs[1].elements * inputs[0].dtype.bytes
