"""What computes each kind of operation on one core, found by the kind.

A kernel gets the operation's attributes, its inputs and the `Call` they belong to. It computes in
float32; the executor rounds what it gives to the type of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from torch import Tensor

from ridgeline_backends.neuron.execute.call import Call
from ridgeline_backends.neuron.program import OperationKind

Results = Tensor | tuple[Tensor, ...]
Kernel = Callable[[OperationKind, Sequence[Tensor], Call], Results]
Kind = TypeVar("Kind", bound=OperationKind)

KERNELS: dict[type[OperationKind], Kernel] = {}


def computes(
    kind: type[Kind],
) -> Callable[[Callable[[Kind, Sequence[Tensor], Call], Results]], Kernel]:
    """Register what computes a kind."""

    def register(function: Callable[[Kind, Sequence[Tensor], Call], Results]) -> Kernel:
        KERNELS[kind] = kernel = cast(Kernel, function)
        return kernel

    return register
