"""Device memory of a core as a program's run fills it: addresses handed out and given back.

What `liveness` says of a program without running it is held against this: every operation of every
layer takes its outputs and its own scratch from one heap and gives back what nobody reads any more.
Shape-only, so that models run through it that no machine here could hold. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from ridgeline_backends.neuron.devices.model import Chip
from ridgeline_backends.neuron.heap import DeviceHeap
from ridgeline_backends.neuron.liveness import CoreNeed, core_need
from ridgeline_backends.neuron.program import Buffer, BufferKind, Operation, Program


def run_through(programs: Iterable[Program], chip: Chip, limit: int) -> int:
    """Load programs of one model on a core and run each once: the highest byte that was in use.
    Raises `OutOfDeviceMemory`."""
    programs = tuple(programs)
    heap = DeviceHeap(limit)
    for size in filter(None, _resident(core_need(programs, chip))):
        heap.take(size)
    for program in programs:
        _Run(heap, program).run()
    return heap.peak


def _resident(need: CoreNeed) -> tuple[int, ...]:
    """What lies there as long as the model is loaded."""
    return (
        need.weights,
        need.kv,
        need.inputs_outputs,
        need.code,
        need.dma_rings,
        need.collectives,
        need.runtime,
    )


class _Run:
    """One call of a program: every repeat of every section, in order. A layer's own buffers are
    others in each repeat."""

    def __init__(self, heap: DeviceHeap, program: Program) -> None:
        self._heap = heap
        self._steps = [
            (operation, repeat)
            for section in program.sections
            for repeat in range(section.repeats)
            for operation in section.operations
        ]
        self._last: dict[str, int] = {}
        for place, (operation, repeat) in enumerate(self._steps):
            for buffer in (*operation.inputs, *operation.outputs):
                self._last[_name(buffer, repeat)] = place
        self._addresses: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self._views: dict[str, set[str]] = {}

    def run(self) -> None:
        for place, (operation, repeat) in enumerate(self._steps):
            own = operation.attributes.scratch_bytes(operation.input_forms)
            address = self._heap.take(own) if own else None
            for buffer in operation.outputs:
                self._write(operation, buffer, repeat)
            if address is not None:
                self._heap.give_back(address)
            for buffer in (*operation.inputs, *operation.outputs):
                if self._last[_name(buffer, repeat)] == place:
                    self._forget(_name(buffer, repeat))

    def _write(self, operation: Operation, buffer: Buffer, repeat: int) -> None:
        name = _name(buffer, repeat)
        if buffer.kind is not BufferKind.SCRATCH or name in self._owners:
            return
        owner = name
        if not operation.attributes.moves_data:
            # A view: of scratch it keeps alive what it looks at, of anything else it takes nothing.
            source = _name(operation.inputs[0], repeat) if operation.inputs else ""
            if source not in self._owners:
                return
            owner = self._owners[source]
        else:
            self._addresses[name] = self._heap.take(buffer.bytes)
        self._owners[name] = owner
        self._views.setdefault(owner, set()).add(name)

    def _forget(self, name: str) -> None:
        owner = self._owners.pop(name, None)
        if owner is None:
            return
        self._views[owner].discard(name)
        if not self._views[owner]:
            del self._views[owner]
            self._heap.give_back(self._addresses.pop(owner))


def _name(buffer: Buffer, repeat: int) -> str:
    return f"{buffer.name}#{repeat}" if "{" in buffer.name else buffer.name
