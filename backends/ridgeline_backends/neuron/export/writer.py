"""The list under construction, as the translators of operators see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ridgeline_backends.neuron.builders.listing import Listing
from ridgeline_backends.neuron.execute.rounding import element_type, torch_dtype
from ridgeline_backends.neuron.export.errors import (
    IntegerProduct,
    SourceLine,
    UnsupportedOperator,
)
from ridgeline_backends.neuron.operations import Binary, Cast, Concat, Reshape, Transpose, Unary
from ridgeline_backends.neuron.operations.elementwise import BinaryFunction, UnaryFunction
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    OperationKind,
)

Number = int | float
"""bool is one too."""


def named(what: str) -> str:
    """What is no weight: no name of a state dict begins with a dot."""
    return f".{what}"


@dataclass(slots=True)
class Writer:
    """`operator`, `name` and `line` are those of the node that is being translated, `dtypes` the
    types of what torch says that it gives; `constants` are tensors that the trace made, kept as
    weights."""

    out: Listing
    operator: str = ""
    name: str = ""
    line: SourceLine | None = None
    dtypes: tuple[torch.dtype, ...] = ()
    constants: dict[str, Tensor] = field(default_factory=dict)
    _count: int = 0
    _transposes: dict[str, tuple[Buffer, tuple[int, ...]]] = field(default_factory=dict)
    _looks_at: dict[str, Buffer] = field(default_factory=dict)

    @property
    def dtype(self) -> ElementType:
        """Of the first tensor that the operator gives."""
        found = element_type(self.dtypes[0]) if self.dtypes else ElementType.FP32
        if found is None:
            raise self.refused(f"numbers of type {self.dtypes[0]}")
        return found

    def add(self, kind: OperationKind, *inputs: Buffer) -> Buffer:
        if isinstance(kind, Transpose):
            return self._transposed(kind, inputs[0])
        return self._noted(kind, inputs, self.out.add(kind, *inputs, to=self._fresh()))

    def _transposed(self, kind: Transpose, x: Buffer) -> Buffer:
        """One that undoes another gives back what that one took."""
        source, order = self._transposes.get(x.name, (x, tuple(range(len(x.shape)))))
        whole = tuple(order[axis] for axis in kind.order)
        if whole == tuple(range(len(whole))):
            return source
        made = self.out.add(kind, x, to=self._fresh())
        self._transposes[made.name] = source, whole
        # Executed as a view, whatever it costs.
        self._looks_at[made.name] = self.seen(x)
        return made

    def add_all(self, kind: OperationKind, inputs: tuple[Buffer, ...], count: int) -> list[Buffer]:
        made = self.out.add_all(kind, inputs, tuple(self._fresh() for _ in range(count)))
        return [self._noted(kind, inputs, one) for one in made]

    def _noted(self, kind: OperationKind, inputs: Sequence[Buffer], made: Buffer) -> Buffer:
        if not kind.moves_data:
            self._looks_at[made.name] = self.seen(inputs[0])
        return made

    def seen(self, x: Buffer) -> Buffer:
        """What a view, or a view of one, looks at."""
        return self._looks_at.get(x.name, x)

    def transposed_from(self, x: Buffer) -> Buffer | None:
        """The matrix that x is the transpose of."""
        source, order = self._transposes.get(x.name, (x, ()))
        return source if order == (1, 0) else None

    def unary(self, function: UnaryFunction, x: Buffer, operand: float = 0.0) -> Buffer:
        return self.add(Unary(function, operand), x)

    def binary(self, function: BinaryFunction, left: Buffer, right: Buffer) -> Buffer:
        return self.add(Binary(function), left, right)

    def where(self, condition: Buffer, yes: Buffer, no: Buffer) -> Buffer:
        return self.add(Binary("where"), self.cast(condition, ElementType.BOOL), yes, no)

    def cast(self, x: Buffer, dtype: ElementType) -> Buffer:
        return x if x.dtype is dtype else self.add(Cast(dtype), x)

    def reshape(self, x: Buffer, *shape: int) -> Buffer:
        return x if x.shape == shape else self.add(Reshape(shape), x)

    def copied(self, x: Buffer) -> Buffer:
        """The same numbers in a place of their own."""
        flat = x if x.shape else self.reshape(x, 1)
        return self.reshape(self.add(Concat(0), flat), *x.shape)

    def tensor(self, value: object) -> Buffer:
        """A buffer, be it of a tensor that the trace knows the numbers of."""
        if isinstance(value, Buffer):
            return value
        if isinstance(value, Tensor):
            name = named(f".constant.{len(self.constants)}")
            form = self.form(value)
            self.constants[name] = value.float() if value.dtype is torch.float64 else value
            return Buffer(name, form, BufferKind.WEIGHT)
        raise self.refused(f"an argument of type {type(value).__name__}")

    def scalar(self, value: Number, dtype: ElementType) -> Buffer:
        """A number that stretches to any shape."""
        kept = {ElementType.INT32: torch.int64}.get(dtype, torch_dtype(dtype))
        return self.tensor(torch.tensor([value], dtype=torch.float32 if dtype.floating else kept))

    def as_type(self, value: object, dtype: ElementType) -> Buffer:
        """A tensor or a number as that type."""
        if isinstance(value, Number):
            return self.scalar(value, dtype)
        return self.cast(self.tensor(value), dtype)

    def form(self, value: Tensor) -> Form:
        found = element_type(value.dtype)
        if found is None:
            raise self.refused(f"numbers of type {value.dtype}")
        return Form(tuple(int(size) for size in value.shape), found)

    def axis(self, axis: int, x: Buffer) -> int:
        """Counted from the front; torch gives a single number an axis."""
        return axis % max(1, len(x.shape))

    def floating(self, *values: Buffer) -> None:
        """Refuse whole numbers to the Tensor engine."""
        if not all(one.dtype.floating for one in values):
            raise IntegerProduct(self.operator, self.line)

    def refused(self, what: str = "", *, hint: str = "") -> UnsupportedOperator:
        name = f"{self.operator} with {what}" if what else self.operator
        return UnsupportedOperator(name, self.line, hint=hint)

    def _fresh(self) -> str:
        self._count += 1
        return named(f"{self.name}.{self._count}")
