"""Whether what a module gives is the same on all of its cores.

A call answers what core 0 has. What is one core's own part, or its own summand, is no answer of the
module, so such a result is refused before it is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ridgeline_backends.neuron.export.errors import NotGathered
from ridgeline_backends.neuron.export.signature import Named
from ridgeline_backends.neuron.operations import AllGather, AllReduce, Collective, OwnPart
from ridgeline_backends.neuron.program import BufferKind, Operation, Program


def check_gathered(program: Program, results: Sequence[object], cut: Iterable[str]) -> None:
    """`results`: leaves of what the module gives; `cut`: the weights of which each core has a part.
    Raises `NotGathered`."""
    apart = _apart(program, cut)
    shapes = {buffer.name: buffer.shape for buffer, _ in program.buffers(BufferKind.OUTPUT)}
    for place, one in enumerate(results):
        if isinstance(one, Named) and one.name in apart:
            raise NotGathered(
                f"Result {place} of the module, {list(shapes[one.name])} on each core, differs "
                f"between its {program.cores} cores.",
                hint="Gather it (ColumnParallelLinear with gather_output=True), or sum it "
                "(RowParallelLinear with reduce_output=True), before the module gives it.",
            )


def _apart(program: Program, cut: Iterable[str]) -> set[str]:
    """The buffers that differ between cores. What is kept for the next call is read there before it
    is written, so that a second look may find more."""
    if program.cores == 1:
        return set()
    found, before = {"rank", *cut}, 0
    while len(found) > before:
        before = len(found)
        for operation, _ in program.operations():
            if _differs(operation, found, program.cores):
                found.update(one.name for one in operation.outputs)
    return found


def _differs(operation: Operation, apart: set[str], cores: int) -> bool:
    kind = operation.attributes
    if isinstance(kind, Collective):
        return not (isinstance(kind, AllReduce | AllGather) and kind.group.size == cores)
    return isinstance(kind, OwnPart) or any(one.name in apart for one in operation.inputs)
