"""How much memory a core needs for its programs: by kind, from what lives when.

Weights and KV are there once, whichever programs read them, KV for the most sequences that one of
them holds. Scratch is shared by the programs, of which one runs at a time: as much as the one needs
that reaches highest, with the gaps that buffers of other sizes leave. A buffer lives from the
operation that writes it to the last one that reads it; a view lives in what it looks at; what a
repeated section reads before it writes lives as long as the section. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache

from ridgeline_backends.neuron.devices.model import Chip
from ridgeline_backends.neuron.heap import DeviceHeap, aligned
from ridgeline_backends.neuron.program import BufferKind, ElementType, Operation, Program, Section
from ridgeline_backends.neuron.schedule import streamed_buffers

_RUNTIME = 96 << 20
"""Micro-code that the runtime keeps on each core (neuron-runtime/explore/device-memory.rst)."""

_DESCRIPTOR = 2 * 16
"""Bytes of the two DMA descriptors, of source and target, that move one packet."""

_PACKET = 2048
"""Bytes a descriptor moves where rows are as long as is recommended."""

_INSTRUCTION = 64
_TILE_BYTES = 128 * 512 * 2
"""What one instruction works on: 128 partitions of 512 numbers."""

_ENDLESS = 1 << 62

_LINK_BUFFERS = 4
"""Copies of its largest tensor that a collective is given to send and receive with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreNeed:
    """Bytes of one core's device memory. `quantized`: weights have 8 bits."""

    weights: int
    kv: int
    scratch: int
    inputs_outputs: int
    code: int
    dma_rings: int
    collectives: int
    runtime: int
    quantized: bool = False

    @property
    def total(self) -> int:
        return (
            self.weights
            + self.kv
            + self.scratch
            + self.inputs_outputs
            + self.code
            + self.dma_rings
            + self.collectives
            + self.runtime
        )

    def table(self) -> dict[str, int]:
        """By the words that the runtime's own messages use."""
        return {
            "tensors": self.kv + self.inputs_outputs,
            "model constants": self.weights,
            "shared scratchpad": self.scratch,
            "model code": self.code,
            "dma rings": self.dma_rings,
            "collectives": self.collectives,
            "runtime": self.runtime,
        }


def core_need(programs: Iterable[Program], chip: Chip) -> CoreNeed:
    """Memory of a core that holds these programs, all of one model."""
    programs = tuple(programs)
    return CoreNeed(
        weights=kept_bytes(programs, BufferKind.WEIGHT),
        kv=kept_bytes(programs, BufferKind.KV),
        scratch=max(peak_scratch(program) for program in programs),
        inputs_outputs=aligned(sum(_inputs_outputs(program) for program in programs)),
        code=aligned(sum(_code(program) for program in programs)),
        dma_rings=aligned(sum(_rings(program, chip) for program in programs)),
        collectives=aligned(max(_exchanged(program) for program in programs) * _LINK_BUFFERS),
        runtime=_RUNTIME,
        quantized=any(_is_quantized(program) for program in programs),
    )


def _is_quantized(program: Program) -> bool:
    weights = (one.dtype for one, _ in program.buffers(BufferKind.WEIGHT))
    return any(one.bytes == 1 and one is not ElementType.BOOL for one in weights)


def kept_bytes(programs: Iterable[Program], kind: BufferKind) -> int:
    """Of weights, or KV, on a core that holds these programs."""
    sizes: dict[tuple[str, int], int] = {}
    for program in programs:
        for buffer, section in program.buffers(kind):
            repeated = "{" in buffer.name
            place = buffer.name, section.first_layer if repeated else -1
            size = buffer.bytes * (section.repeats if repeated else 1)
            sizes[place] = max(sizes.get(place, 0), size)
    return aligned(sum(sizes.values()))


@dataclass(frozen=True, slots=True)
class Bucketed:
    """The programs of one phase, of `buckets` from the shortest to the longest."""

    shortest: Program
    longest: Program
    buckets: Sequence[int]


def bucketed_need(phases: Sequence[Bucketed], chip: Chip) -> CoreNeed:
    """As `core_need` of every bucket's program, from the outermost two of each phase: what a
    program has to itself grows with its bucket along a straight line (or below one, where prompts
    are compared with themselves)."""
    need = core_need(dict.fromkeys(one for p in phases for one in (p.shortest, p.longest)), chip)

    def between(size: Callable[[Program], int]) -> int:
        return sum(_between(one, size) for one in phases)

    return replace(
        need,
        inputs_outputs=aligned(need.inputs_outputs + between(_inputs_outputs)),
        code=aligned(need.code + between(_code)),
        dma_rings=aligned(need.dma_rings + between(lambda one: _rings(one, chip))),
    )


def _between(phase: Bucketed, size: Callable[[Program], int]) -> int:
    """Of the programs between the outermost, all together."""
    low, *inner = phase.buckets
    if not inner:
        return 0
    first, last = size(phase.shortest), size(phase.longest)
    rise = (last - first) / (inner[-1] - low)
    return round(sum(first + rise * (bucket - low) for bucket in inner[:-1]))


def peak_scratch(program: Program) -> int:
    """The highest byte of scratch in use, each buffer at the lowest address that has room for it
    when it is made; a repeated section is there once."""
    heap = DeviceHeap(_ENDLESS)
    operations = [one for section in program.sections for one in section.operations]
    ends = _last_uses(program, operations)
    owners: dict[str, str] = {}
    addresses: dict[str, int] = {}
    for place, operation in enumerate(operations):
        own = operation.attributes.scratch_bytes(operation.input_forms)
        working = heap.take(own) if own else None
        for buffer in operation.outputs:
            if buffer.kind is not BufferKind.SCRATCH:
                continue
            source = operation.inputs[0] if operation.inputs else None
            looks = not operation.attributes.moves_data and source is not None
            if looks and source is not None and source.name in owners:
                owner = owners[source.name]
                ends[owner] = max(ends[owner], ends[buffer.name])
            else:
                owner = buffer.name
                if operation.attributes.moves_data and owner not in addresses:
                    addresses[owner] = heap.take(buffer.bytes)
            owners[buffer.name] = owner
        if working is not None:
            heap.give_back(working)
        for name in [name for name in addresses if ends[name] <= place]:
            heap.give_back(addresses.pop(name))
    return heap.peak


def _last_uses(program: Program, operations: list[Operation]) -> dict[str, int]:
    """The place of the last operation that reads or writes a buffer."""
    ends: dict[str, int] = {}
    for place, operation in enumerate(operations):
        for buffer in (*operation.inputs, *operation.outputs):
            ends[buffer.name] = place
    begin = 0
    for section in program.sections:
        end = begin + len(section.operations)
        written: set[str] = set()
        for operation in section.operations:
            for buffer in operation.inputs:
                if section.repeats > 1 and buffer.name not in written:
                    ends[buffer.name] = max(ends[buffer.name], end - 1)
            written.update(buffer.name for buffer in operation.outputs)
        begin = end
    return ends


def _code(program: Program) -> int:
    """A program's instructions are unrolled: one for each tile that is worked on."""
    tiles = sum(times * (1 + one.bytes // _TILE_BYTES) for one, times in program.operations())
    return tiles * _INSTRUCTION


def _rings(program: Program, chip: Chip) -> int:
    """Descriptors of all that goes through memory, of each repeat its own."""
    if chip.dma_makes_descriptors:
        return 0
    return sum(_section_packets(one, chip) * one.repeats for one in program.sections) * _DESCRIPTOR


@lru_cache(maxsize=4096)
def _section_packets(section: Section, chip: Chip) -> int:
    streamed = streamed_buffers(section, chip)
    return sum(1 + _moved_bytes(one, streamed) // _PACKET for one in section.operations)


def _moved_bytes(operation: Operation, streamed: Set[str]) -> int:
    inputs = zip(operation.inputs, operation.read_bytes, strict=True)
    read = sum(size for buffer, size in inputs if buffer.name not in streamed)
    stays = all(buffer.name in streamed for buffer in operation.outputs)
    return read + (0 if stays else operation.written_bytes)


def _inputs_outputs(program: Program) -> int:
    return sum(program.bytes_of(kind) for kind in (BufferKind.INPUT, BufferKind.OUTPUT))


def _exchanged(program: Program) -> int:
    """Bytes of the largest tensor that cores exchange."""
    sizes = (
        operation.outputs[0].bytes
        for operation, _ in program.operations()
        if operation.kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "permute")
    )
    return max(sizes, default=0)
