"""All translators of torch's operators, and which operators there are.

A translator gets the node's arguments, buffers in the place of tensors, and gives a buffer or a
list of them. What an operator could be asked for and no operation does is refused by name.
"""

from __future__ import annotations

from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.export import (  # noqa: F401  they register their own
    elementwise_operators,
    indexing_operators,
    layout_operators,
    matrix_operators,
    norm_operators,
    reduce_operators,
    vision_operators,
)
from ridgeline_backends.neuron.export.registry import OPERATORS, Value, translates
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.program import Buffer

__all__ = ["OPERATORS", "supported_operators"]


@translates("neuron.all_reduce.default")
def _all_reduce(w: Writer, x: Buffer, size: int) -> Buffer:
    return w.add(ops.AllReduce(ops.Group(size)), x)


@translates("neuron.all_gather.default")
def _all_gather(w: Writer, x: Buffer, axis: int, size: int) -> Buffer:
    return w.add(ops.AllGather(ops.Group(size), axis), x)


@translates("neuron.own_part.default")
def _own_part(w: Writer, x: Buffer, axis: int, size: int) -> Buffer:
    return w.add(ops.OwnPart(ops.Group(size), axis), x)


@translates("neuron.rope.default")
def _rope(w: Writer, x: Buffer, positions: Value, cos: Value, sin: Value) -> Buffer:
    return w.add(ops.Rope(), x, *(w.tensor(one) for one in (positions, cos, sin)))


def supported_operators() -> tuple[str, ...]:
    """torch's operators that have a translator, by their names without namespace and overload. An
    operator that torch itself decomposes into these, as einsum, is supported too."""
    names = (name.split(".")[1] for name in OPERATORS if name.startswith("aten."))
    return tuple(sorted({*names}, key=lambda name: (name.strip("_"), name)))
