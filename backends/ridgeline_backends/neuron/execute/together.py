"""One call for all cores, of kinds whose rows do not depend on each other.

Cores are put beside each other along the batch. A row's numbers do not depend on the rows beside
it, so this changes no bit; it saves the cost of many small calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.operations import CachedAttention, Gated, KVWrite, Rope
from ridgeline_backends.neuron.program import OperationKind

ROLES: dict[type[OperationKind], str] = {
    Rope: "brtt",
    KVWrite: "cbrs",
    CachedAttention: "bccrs",
    Gated: "b",
}
"""What each input is: b, a batch of each core's own; c, a cache of each core's own; r, numbers of
rows that all cores share; s, slots of rows that all share; t, a table that all share."""

Whole = Callable[[Sequence[Tensor]], Tensor | None]
"""From the caches of the cores to the one tensor that they are parts of."""


def joined(
    kind: OperationKind, inputs: Sequence[Sequence[Tensor]], call: Call, whole: Whole
) -> list[Tensor] | None:
    """The inputs of one call for all cores, from those of each. None where they are not so: a kind
    that has no roles, or caches that lie apart."""
    roles = ROLES.get(type(kind))
    if roles is None:
        return None
    cores = len(inputs[0])
    slots = next(
        (own[0].shape[0] for own, role in zip(inputs, roles, strict=True) if role == "c"), 0
    )
    found: list[Tensor] = []
    for own, role in zip(inputs, roles, strict=True):
        first = own[0]
        if role == "b":
            found.append(torch.cat(list(own)))
        elif role == "c":
            cache = whole(own)
            if cache is None:
                return None
            found.append(cache)
        elif any(one is not first for one in own):
            return None
        elif role == "r":
            found.append(call.once("rows", first, partial(_copies, first, cores)))
        elif role == "s":
            found.append(call.once("slots", first, partial(_offset, first, cores, slots)))
        else:
            found.append(first)
    return found


def _copies(rows: Tensor, cores: int) -> Tensor:
    return torch.cat([rows] * cores)


def _offset(slots: Tensor, cores: int, each: int) -> Tensor:
    return torch.cat([slots + core * each for core in range(cores)])
