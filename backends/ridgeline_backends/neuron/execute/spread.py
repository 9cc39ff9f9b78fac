"""One call for all cores.

A tensor that differs between cores is *spread*: [cores, ...], one core's below the other's. Most
kinds compute it as they compute one core's, with an axis more, or with the cores as further rows
of a batch; a row's numbers do not depend on the rows beside it, so this changes no bit. Kinds that
have no such way are computed core by core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute import attention_kernels  # noqa: F401  registers its own
from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.execute.kernels import scaled_and_biased
from ridgeline_backends.neuron.execute.registry import KERNELS, Results
from ridgeline_backends.neuron.program import OperationKind

Kind = TypeVar("Kind", bound=OperationKind)
SpreadKernel = Callable[[OperationKind, Sequence[Tensor], Sequence[bool], Call, int], Results]
"""From the attributes, the inputs, which of them are spread, the call and the number of cores to
outputs that are all spread."""

_SPREAD: dict[type[OperationKind], SpreadKernel] = {}
_AS_ONE = (ops.Gated, ops.Unary, ops.Cast)
"""Number by number: an axis more makes no difference."""
_BY_ROWS = (ops.RMSNorm, ops.LayerNorm)


def spread_kernel(kind: OperationKind, spread: Sequence[bool]) -> SpreadKernel:
    """What computes a kind for all cores, where these of its inputs are spread."""
    own = _SPREAD.get(type(kind))
    if own is not None:
        return own
    if isinstance(kind, _AS_ONE) or (isinstance(kind, _BY_ROWS) and not any(spread[1:])):
        return _as_one
    return _core_by_core


def _spreads(
    kind: type[Kind],
) -> Callable[[Callable[[Kind, Sequence[Tensor], Sequence[bool], Call, int], Results]], None]:
    def register(
        function: Callable[[Kind, Sequence[Tensor], Sequence[bool], Call, int], Results],
    ) -> None:
        _SPREAD[kind] = cast(SpreadKernel, function)

    return register


def _as_one(
    kind: OperationKind,
    inputs: Sequence[Tensor],
    spread: Sequence[bool],
    call: Call,
    cores: int,
) -> Results:
    return KERNELS[type(kind)](kind, inputs, call)


def _core_by_core(
    kind: OperationKind,
    inputs: Sequence[Tensor],
    spread: Sequence[bool],
    call: Call,
    cores: int,
) -> Results:
    kernel = KERNELS[type(kind)]
    by_core = []
    for core in range(cores):
        own = [x[core] if apart else x for x, apart in zip(inputs, spread, strict=True)]
        # With notes of its own: what is found out about one core's tensors is not true of all.
        found = kernel(kind, own, Call(core, call.outputs))
        by_core.append(found if isinstance(found, tuple) else (found,))
    return tuple(torch.stack(parts) for parts in zip(*by_core, strict=True))


@_spreads(ops.Matmul)
def _matmul(
    kind: ops.Matmul, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    if call.matrices is None:
        return _core_by_core(kind, inputs, spread, call, cores)
    x, _, *vectors = inputs
    shape = x.shape[1:-1] if spread[0] else x.shape[:-1]
    rows = x.reshape(*x.shape[: spread[0]], -1, x.shape[-1])
    out = call.matrices.multiply(rows, spread=spread[0])
    # A vector [cores, out] stretches to [cores, rows, out].
    fitting = [v[:, None] if apart else v for v, apart in zip(vectors, spread[2:], strict=True)]
    out = scaled_and_biased(kind, out, fitting)
    if out.dim() == 2:
        out = out.expand(cores, -1, -1)
    return out.reshape(cores, *shape, out.shape[-1])


@_spreads(ops.Binary)
def _binary(
    kind: ops.Binary, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    deepest = max(x.dim() - apart for x, apart in zip(inputs, spread, strict=True))
    aligned = [
        x.reshape(cores, *[1] * (deepest + 1 - x.dim()), *x.shape[1:]) if apart else x
        for x, apart in zip(inputs, spread, strict=True)
    ]
    return KERNELS[ops.Binary](kind, aligned, call)


@_spreads(ops.Reshape)
def _reshape(
    kind: ops.Reshape, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    return inputs[0].reshape(cores, *kind.shape)


@_spreads(ops.Split)
def _split(
    kind: ops.Split, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    return torch.split(inputs[0], list(kind.sizes), kind.axis + (kind.axis >= 0))


@_spreads(ops.Rope)
def _rope(
    kind: ops.Rope, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    by_core = any(spread[1:])
    compute = _core_by_core if by_core else _as_one
    return compute(kind, inputs, spread, call, cores)


@_spreads(ops.KVWrite)
def _kv_write(
    kind: ops.KVWrite, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    if any(spread[2:]):
        return _core_by_core(kind, inputs, spread, call, cores)
    cache, new, positions, slots = inputs
    whole = cache.flatten(0, 1)
    rows = _rows(positions, call, cores), _slots(slots, call, cores, cache.shape[1])
    KERNELS[ops.KVWrite](kind, [whole, _folded(new, spread[1], cores), *rows], call)
    return cache


@_spreads(ops.Store)
def _store(
    kind: ops.Store, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    return KERNELS[ops.Store](kind, inputs, call)


@_spreads(ops.CachedAttention)
def _cached_attention(
    kind: ops.CachedAttention,
    inputs: Sequence[Tensor],
    spread: Sequence[bool],
    call: Call,
    cores: int,
) -> Results:
    if any(spread[3:]):
        return _core_by_core(kind, inputs, spread, call, cores)
    q, k, v, positions, slots = inputs
    rows = _rows(positions, call, cores), _slots(slots, call, cores, k.shape[1])
    folded = [_folded(q, spread[0], cores), k.flatten(0, 1), v.flatten(0, 1), *rows]
    found = KERNELS[ops.CachedAttention](kind, folded, call)
    return _apart(cast(Tensor, found), cores)


@_spreads(ops.Attention)
def _attention(
    kind: ops.Attention, inputs: Sequence[Tensor], spread: Sequence[bool], call: Call, cores: int
) -> Results:
    if kind.biased or any(spread[3:]):
        return _core_by_core(kind, inputs, spread, call, cores)
    folded = [_folded(x, apart, cores) for x, apart in zip(inputs[:3], spread[:3], strict=True)]
    rest = [_rows(one, call, cores) for one in inputs[3:]]
    found = KERNELS[ops.Attention](kind, [*folded, *rest], call)
    return _apart(cast(Tensor, found), cores)


def _folded(x: Tensor, spread: bool, cores: int) -> Tensor:
    """The cores' batches below each other."""
    return (x if spread else x.expand(cores, *x.shape)).flatten(0, 1)


def _apart(x: Tensor, cores: int) -> Tensor:
    """Back from `_folded`."""
    return x.view(cores, -1, *x.shape[1:])


def _rows(rows: Tensor, call: Call, cores: int) -> Tensor:
    return call.once("rows", rows, lambda: torch.cat([rows] * cores))


def _slots(slots: Tensor, call: Call, cores: int, each: int) -> Tensor:
    return call.once(
        "slots", slots, lambda: torch.cat([slots + core * each for core in range(cores)])
    )
