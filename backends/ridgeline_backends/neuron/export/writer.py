"""The list under construction, as the translators of operators see it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ridgeline_backends.neuron.builders.listing import Listing
from ridgeline_backends.neuron.execute.rounding import element_type
from ridgeline_backends.neuron.export.errors import SourceLine, UnsupportedOperator
from ridgeline_backends.neuron.operations import Transpose
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    OperationKind,
)


@dataclass(slots=True)
class Writer:
    """`operator`, `name` and `where` are those of the node that is being translated; `constants`
    are tensors that the trace made, kept as weights."""

    out: Listing
    operator: str = ""
    name: str = ""
    where: SourceLine | None = None
    constants: dict[str, Tensor] = field(default_factory=dict)
    _count: int = 0
    _transposes: dict[str, tuple[Buffer, tuple[int, ...]]] = field(default_factory=dict)

    def add(self, kind: OperationKind, *inputs: Buffer) -> Buffer:
        if isinstance(kind, Transpose):
            return self._transposed(kind, inputs[0])
        return self.out.add(kind, *inputs, to=self._fresh())

    def _transposed(self, kind: Transpose, x: Buffer) -> Buffer:
        """One that undoes another gives back what that one took."""
        source, order = self._transposes.get(x.name, (x, tuple(range(len(x.shape)))))
        whole = tuple(order[axis] for axis in kind.order)
        if whole == tuple(range(len(whole))):
            return source
        made = self.out.add(kind, x, to=self._fresh())
        self._transposes[made.name] = source, whole
        return made

    def add_all(self, kind: OperationKind, inputs: tuple[Buffer, ...], count: int) -> list[Buffer]:
        return list(self.out.add_all(kind, inputs, tuple(self._fresh() for _ in range(count))))

    def tensor(self, value: object) -> Buffer:
        """A buffer, be it of a tensor that the trace knows the numbers of."""
        if isinstance(value, Buffer):
            return value
        if isinstance(value, Tensor):
            name = f"constant.{len(self.constants)}"
            self.constants[name] = value
            return Buffer(name, self.form(value), BufferKind.WEIGHT)
        raise self.refused(f"an argument of type {type(value).__name__}")

    def scalar(self, value: float, dtype: ElementType) -> Buffer:
        kept = torch.float32 if dtype.floating else torch.int32
        return self.tensor(torch.tensor([value], dtype=kept))

    def form(self, value: Tensor) -> Form:
        found = element_type(value.dtype)
        if found is None:
            raise self.refused(f"numbers of type {value.dtype}")
        return Form(tuple(int(size) for size in value.shape), found)

    def refused(self, what: str = "") -> UnsupportedOperator:
        name = f"{self.operator} with {what}" if what else self.operator
        return UnsupportedOperator(name, self.where)

    def _fresh(self) -> str:
        self._count += 1
        return f"{self.name}.{self._count}"
