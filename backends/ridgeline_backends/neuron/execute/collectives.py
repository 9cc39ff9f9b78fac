"""What the cores of a group do together: from every member's tensor to every member's result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from ridgeline_backends.neuron import operations as ops

Exchange = Callable[[ops.Collective, Sequence[Tensor]], list[Tensor]]
Kind = TypeVar("Kind", bound=ops.Collective)

EXCHANGES: dict[type[ops.Collective], Exchange] = {}


def _exchanges(
    kind: type[Kind],
) -> Callable[[Callable[[Kind, Sequence[Tensor]], list[Tensor]]], Exchange]:
    def register(function: Callable[[Kind, Sequence[Tensor]], list[Tensor]]) -> Exchange:
        EXCHANGES[kind] = exchange = cast(Exchange, function)
        return exchange

    return register


@_exchanges(ops.AllReduce)
def _all_reduce(kind: ops.AllReduce, parts: Sequence[Tensor]) -> list[Tensor]:
    return [_sum(parts)] * len(parts)


@_exchanges(ops.AllGather)
def _all_gather(kind: ops.AllGather, parts: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat(list(parts), kind.axis)] * len(parts)


@_exchanges(ops.ReduceScatter)
def _reduce_scatter(kind: ops.ReduceScatter, parts: Sequence[Tensor]) -> list[Tensor]:
    return list(_sum(parts).chunk(len(parts), kind.axis))


@_exchanges(ops.AllToAll)
def _all_to_all(kind: ops.AllToAll, parts: Sequence[Tensor]) -> list[Tensor]:
    sent = [part.chunk(len(parts), kind.split) for part in parts]
    return [torch.cat([own[rank] for own in sent], kind.concat) for rank in range(len(parts))]


@_exchanges(ops.Permute)
def _permute(kind: ops.Permute, parts: Sequence[Tensor]) -> list[Tensor]:
    return [parts[(rank - kind.shift) % len(parts)] for rank in range(len(parts))]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """In fp32, by rank: the same on every core and in every run."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
