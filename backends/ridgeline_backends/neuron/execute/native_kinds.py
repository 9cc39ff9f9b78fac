"""Kinds of operation as the native kernels have them, for all cores at once.

Each function appends what computes its kind to a run and returns the outputs, or returns None where
the kernels have nothing for it: torch computes it then. A view of the same numbers takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch

from ridgeline_backends.cpu.kernels.library import BF16, F32, GELU_TANH, SILU, Kind
from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.linear import Matrices, PackedMatrices
from ridgeline_backends.neuron.execute.run_builder import RunBuilder
from ridgeline_backends.neuron.execute.values import Rows, Value, content_depth, rows_of
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind

_CACHES = {torch.float32: F32, torch.bfloat16: BF16}
_ACTIVATIONS = {"silu": SILU, "gelu_tanh": GELU_TANH}


@dataclass(frozen=True, slots=True)
class Site:
    """Where an operation is written. `forms`: of its outputs on one core; `matrices`: its own."""

    run: RunBuilder
    forms: tuple[Form, ...]
    matrices: Matrices | None

    @property
    def round(self) -> bool:
        return self.forms[0].dtype is ElementType.BF16

    def result(self, *, spread: bool) -> Value:
        cores = self.run.cores if spread else 0
        return Value.fresh(self.forms[0].shape, torch.float32, cores=cores)

    def cores(self, *, spread: bool) -> int:
        return self.run.cores if spread else 1


Outputs = tuple[Value, ...] | None
Emit = Callable[[OperationKind, Sequence[Value], Site], Outputs]
Of = TypeVar("Of", bound=OperationKind)

_EMITS: dict[type[OperationKind], Emit] = {}


def emit(kind: OperationKind, inputs: Sequence[Value], site: Site) -> Outputs:
    """The outputs, or None where torch must compute them."""
    function = _EMITS.get(type(kind))
    if function is None:
        return None
    if kind.moves_data and site.forms[0].dtype not in (ElementType.BF16, ElementType.FP32):
        return None
    return function(kind, inputs, site)


def _emits(kind: type[Of]) -> Callable[[Callable[[Of, Sequence[Value], Site], Outputs]], None]:
    def register(function: Callable[[Of, Sequence[Value], Site], Outputs]) -> None:
        _EMITS[kind] = cast(Emit, function)

    return register


def _numbers(value: Value, depth: int) -> Rows | None:
    """float32 numbers by rows."""
    return rows_of(value, depth) if value.view.dtype is torch.float32 else None


def _integers(value: Value, count: int) -> bool:
    """Whether these are so many integers, one after the other, for all cores."""
    view = value.view
    fitting = view.dtype is torch.int64 and view.numel() == count and view.is_contiguous()
    return fitting and not value.spread


def _vector(value: Value) -> Rows | None:
    """A float32 vector that is the same for every row."""
    rows = _numbers(value, 1)
    if rows is None or rows.count != 1:
        return None
    return Rows(value, rows.core, 0, 1, rows.inner)


@_emits(ops.Matmul)
def _matmul(kind: ops.Matmul, inputs: Sequence[Value], site: Site) -> Outputs:
    x, _, *vectors = inputs
    rows = _numbers(x, 1)
    beside = [_vector(one) for one in vectors]
    if rows is None or not isinstance(site.matrices, PackedMatrices) or None in beside:
        return None
    found = [one for one in beside if one is not None]
    spread = x.spread or site.matrices.count > 1
    wide = site.forms[0].shape[-1]
    if any(one.inner != (wide,) or (one.value.spread and not spread) for one in found):
        return None
    out = site.result(spread=spread)
    operands = {"x": rows, "out": _whole(out, 1)}
    if kind.biased:
        operands["z"] = found[0]
    if kind.scaled:
        operands["y"] = found[-1]
    site.run.append(
        Kind.PRODUCT,
        operands,
        matrices=site.matrices,
        cores=site.cores(spread=spread),
        width=out.shape[-1],
        dim=x.shape[-1],
        round=site.round,
    )
    return (out,)


def _whole(value: Value, depth: int) -> Rows:
    """A fresh tensor as rows."""
    rows = rows_of(value, depth)
    assert rows is not None, "a fresh tensor is contiguous"
    return rows


@_emits(ops.RMSNorm)
def _rms_norm(kind: ops.RMSNorm, inputs: Sequence[Value], site: Site) -> Outputs:
    x, weight = inputs
    depth = content_depth(x.shape)
    rows, vector = _numbers(x, depth), _vector(weight)
    if rows is None or vector is None or (weight.spread and not x.spread):
        return None
    out = site.result(spread=x.spread)
    site.run.append(
        Kind.NORM,
        {"x": rows, "y": vector, "out": _whole(out, depth)},
        cores=site.cores(spread=x.spread),
        heads=rows.inner[0] if depth == 2 else 1,
        width=rows.inner[-1],
        eps=kind.eps,
        round=site.round,
    )
    return (out,)


@_emits(ops.Rope)
def _rope(kind: ops.Rope, inputs: Sequence[Value], site: Site) -> Outputs:
    x, positions, cos, sin = inputs
    rows, tables = _numbers(x, 2), [_table(cos), _table(sin)]
    if rows is None or not _integers(positions, rows.count) or None in tables:
        return None
    out = site.result(spread=x.spread)
    cosines, sines = (one for one in tables if one is not None)
    site.run.append(
        Kind.TURN,
        {"x": rows, "y": cosines, "z": sines, "out": _whole(out, 2)},
        addresses={"position": positions},
        cores=site.cores(spread=x.spread),
        heads=rows.inner[0],
        dim=rows.inner[1],
        rotary=cos.shape[-1],
        round=site.round,
    )
    return (out,)


def _table(value: Value) -> Rows | None:
    return None if value.spread else _numbers(value, 1)


@_emits(ops.KVWrite)
def _kv_write(kind: ops.KVWrite, inputs: Sequence[Value], site: Site) -> Outputs:
    cache, new, positions, slots = inputs
    rows, type = _numbers(new, 2), _CACHES.get(cache.view.dtype)
    if rows is None or type is None or cache.strides[-1] != 1 or (new.spread and not cache.spread):
        return None
    batch, length = new.shape[:2]
    if not (_integers(positions, rows.count) and _integers(slots, batch)):
        return None
    slot, head, entry, _ = cache.strides
    site.run.append(
        Kind.PUT,
        {"x": rows, "out": Rows(cache, cache.core, entry, 1, ())},
        addresses={"position": positions, "slot": slots},
        cores=site.cores(spread=cache.spread),
        heads=rows.inner[0],
        dim=rows.inner[1],
        each=length,
        type=type,
        key_slot=slot,
        key_head=head,
    )
    return (cache,)


@_emits(ops.CachedAttention)
def _cached_attention(kind: ops.CachedAttention, inputs: Sequence[Value], site: Site) -> Outputs:
    q, k, v, positions, slots = inputs
    return _attend(kind, q, _Keys.cached(k), _Keys.cached(v), positions, slots, site)


@_emits(ops.Attention)
def _attention(kind: ops.Attention, inputs: Sequence[Value], site: Site) -> Outputs:
    q, k, v, *rest = inputs
    batch, queries = q.shape[:2]
    if not kind.causal or rest or k.shape[1] != queries:
        return None
    # A prompt begins at 0, and its own keys are all that it sees.
    positions = Value.resident(torch.arange(queries).repeat(batch, 1), spread=False)
    slots = Value.resident(torch.arange(batch), spread=False)
    return _attend(kind, q, _Keys.fresh(k), _Keys.fresh(v), positions, slots, site)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys, or values, and what lies between two slots, heads and entries."""

    value: Value
    slot: int
    head: int
    entry: int
    heads: int
    entries: int

    @classmethod
    def cached(cls, value: Value) -> _Keys:
        slot, head, entry, _ = value.strides
        return cls(value, slot, head, entry, *value.shape[1:3])

    @classmethod
    def fresh(cls, value: Value) -> _Keys:
        slot, entry, head, _ = value.strides
        return cls(value, slot, head, entry, value.shape[2], value.shape[1])

    @property
    def rows(self) -> Rows:
        return Rows(self.value, self.value.core, self.entry, 1, ())


def _attend(
    kind: ops.Attention | ops.CachedAttention,
    q: Value,
    k: _Keys,
    v: _Keys,
    positions: Value,
    slots: Value,
    site: Site,
) -> Outputs:
    rows, type = _numbers(q, 2), _CACHES.get(k.value.view.dtype)
    alike = k.value.view.dtype is v.value.view.dtype
    together = k.value.strides[-1] == v.value.strides[-1] == 1
    if rows is None or type is None or not (alike and together):
        return None
    batch, queries = q.shape[:2]
    if not (_integers(positions, rows.count) and _integers(slots, batch)):
        return None
    spread = q.spread or k.value.spread or v.value.spread
    out = site.result(spread=spread)
    site.run.append(
        Kind.ATTEND,
        {"x": rows, "y": k.rows, "z": v.rows, "out": _whole(out, 2)},
        addresses={"position": positions, "slot": slots},
        cores=site.cores(spread=spread),
        heads=rows.inner[0],
        kv_heads=k.heads,
        dim=rows.inner[1],
        width=out.shape[-1],
        each=queries,
        window=kind.window or 0,
        entries=k.entries,
        type=type,
        scale=kind.scale,
        softcap=kind.softcap or 0.0,
        key_slot=k.slot,
        key_head=k.head,
        value_slot=v.slot,
        value_head=v.head,
        round=site.round,
    )
    return (out,)


@_emits(ops.Gated)
def _gated(kind: ops.Gated, inputs: Sequence[Value], site: Site) -> Outputs:
    (x,) = inputs
    rows, activation = _numbers(x, 1), _ACTIVATIONS.get(kind.function)
    if rows is None or activation is None:
        return None
    out = site.result(spread=x.spread)
    site.run.append(
        Kind.GATED,
        {"x": rows, "out": _whole(out, 1)},
        cores=site.cores(spread=x.spread),
        width=out.shape[-1],
        activation=activation,
        round=site.round,
    )
    return (out,)


@_emits(ops.Binary)
def _binary(kind: ops.Binary, inputs: Sequence[Value], site: Site) -> Outputs:
    shape, depth = site.forms[0].shape, content_depth(site.forms[0].shape)
    if kind.function != "add" or len(shape) < depth:
        return None
    x, y = (_numbers(_stretched(one, shape), depth) for one in inputs)
    if x is None or y is None:
        return None
    spread = x.value.spread or y.value.spread
    out = site.result(spread=spread)
    rows = _whole(out, depth)
    site.run.append(
        Kind.ADD,
        {"x": x, "y": y, "out": rows},
        cores=site.cores(spread=spread),
        width=rows.row,
        round=site.round,
    )
    return (out,)


def _stretched(value: Value, shape: tuple[int, ...]) -> Value:
    view, missing = value.view, len(shape) - len(value.shape)
    if value.spread:
        aligned = view.view(view.shape[0], *[1] * missing, *view.shape[1:])
        return value.seen(aligned.expand(view.shape[0], *shape))
    return value.seen(view.expand(shape))


@_emits(ops.AllReduce)
def _all_reduce(kind: ops.AllReduce, inputs: Sequence[Value], site: Site) -> Outputs:
    (x,) = inputs
    depth = content_depth(x.shape)
    rows = _numbers(x, depth)
    if kind.group.size != site.run.cores or rows is None:
        return None
    out = site.result(spread=False)
    whole = _whole(out, depth)
    site.run.append(
        Kind.SUM,
        {"x": rows, "out": whole},
        cores=1,
        parts=site.run.cores,
        width=whole.row,
        round=site.round,
    )
    return (out,)


@_emits(ops.Reshape)
def _reshape(kind: ops.Reshape, inputs: Sequence[Value], site: Site) -> Outputs:
    (x,) = inputs
    shape = (site.run.cores, *kind.shape) if x.spread else kind.shape
    try:
        return (x.seen(x.view.view(shape)),)
    except RuntimeError:  # numbers would have to be moved
        return None


@_emits(ops.Split)
def _split(kind: ops.Split, inputs: Sequence[Value], site: Site) -> Outputs:
    (x,) = inputs
    axis = kind.axis + (x.spread and kind.axis >= 0)
    return tuple(x.seen(one) for one in torch.split(x.view, list(kind.sizes), axis))
