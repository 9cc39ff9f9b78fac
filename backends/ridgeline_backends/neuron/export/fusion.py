"""Operations of a traced list that one operation does: what the builders write as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ridgeline_backends.neuron.operations import Binary, Gated, Split, Unary
from ridgeline_backends.neuron.operations.elementwise import GatedFunction
from ridgeline_backends.neuron.program import Operation

_GATES: dict[str, GatedFunction] = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_tanh"}


def fused(operations: Sequence[Operation]) -> list[Operation]:
    """With function(a) * b of the halves a and b of one tensor as one gated activation, where
    nothing else reads the halves."""
    makers = {buffer.name: one for one in operations for buffer in one.outputs}
    readers = Counter(buffer.name for one in operations for buffer in one.inputs)
    gone: set[int] = set()
    made: dict[int, Operation] = {}
    for one in operations:
        if not (isinstance(one.attributes, Binary) and one.attributes.function == "multiply"):
            continue
        for left, right in (one.inputs, one.inputs[::-1]):
            gate = makers.get(left.name)
            split = makers.get(right.name)
            if gate is None or split is None or not isinstance(gate.attributes, Unary):
                continue
            function = _GATES.get(gate.attributes.function)
            halves = [gate.inputs[0].name, right.name]
            if (
                function is not None
                and isinstance(split.attributes, Split)
                and [buffer.name for buffer in split.outputs] == halves
                and len(set(split.attributes.sizes)) == 1
                and split.attributes.axis % len(right.shape) == len(right.shape) - 1
                and all(readers[name] == 1 for name in (left.name, *halves))
            ):
                gone.update((id(gate), id(split)))
                made[id(one)] = Operation(Gated(function), split.inputs, one.outputs, one.layer)
                break
    return [made.get(id(one), one) for one in operations if id(one) not in gone]
