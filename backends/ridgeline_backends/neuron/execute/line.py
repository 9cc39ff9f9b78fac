"""One operation of one repeat, bound to the places of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ridgeline_backends.neuron.execute.linear import Matrices
from ridgeline_backends.neuron.execute.registry import Results
from ridgeline_backends.neuron.program import Operation

Compute = Callable[[Sequence[Tensor]], Results]


@dataclass(slots=True)
class Bound:
    """What a line was made of. `spread`: which inputs differ between cores."""

    operation: Operation
    spread: list[bool]
    matrices: Matrices | None


@dataclass(slots=True)
class Line:
    """`inputs` and `outputs` are places of tensors, `done` those of the ones that nobody reads
    later. `kept`: it runs even if nobody reads its outputs. `bound`: None where several operations
    have become one line."""

    compute: Compute
    inputs: list[int]
    outputs: list[int]
    kept: bool = False
    done: list[int] = field(default_factory=list)
    bound: Bound | None = None
