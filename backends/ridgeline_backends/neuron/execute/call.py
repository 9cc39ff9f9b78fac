"""What a kernel may know beside its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from torch import Tensor

from ridgeline_backends.neuron.execute.linear import Matrices
from ridgeline_backends.neuron.program import ElementType, Form

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. `rank`: on which core, where cores are computed one by one. `outputs`: the
    forms of what it gives. `matrices`: the operation's own, prepared, where it has some. `memo`:
    what was found out about the inputs of this run; it is emptied before the next."""

    rank: int
    outputs: tuple[Form, ...]
    matrices: Matrices | None = None
    memo: dict[tuple[str, int], object] = field(default_factory=dict)

    @property
    def dtype(self) -> ElementType:
        return self.outputs[0].dtype

    def once(self, about: str, key: Tensor, find: Callable[[], T]) -> T:
        """`find()`, remembered for this tensor until the run ends."""
        place = about, id(key)
        if place not in self.memo:
            self.memo[place] = find()
        return cast(T, self.memo[place])
