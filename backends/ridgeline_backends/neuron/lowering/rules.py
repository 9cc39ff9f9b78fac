"""The registry of rules, and what all of them share: tiles, engine cycles and transfers.

Cycle formulas: nki.isa reference, "Estimated instruction cost" (source IS). An engine takes
`partitions` rows at once and one element a row and cycle, but never less than 64 cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ridgeline_backends.errors import UnsupportedModel
from ridgeline_backends.neuron.devices.model import Chip
from ridgeline_backends.neuron.instructions import (
    Engine,
    Instruction,
    Lowered,
    Stream,
    Transfer,
)
from ridgeline_backends.neuron.program import (
    BufferKind,
    ElementType,
    Form,
    Operation,
    OperationKind,
)

LEAST_CYCLES = 64
"""No instruction starts sooner after the one before it (source IS)."""

START_CYCLES = 60
"""A Vector or Scalar instruction reaches its operands in SBUF after so many cycles (source N2)."""

_BLOCKS_AT_ONCE = 16

AHEAD_BYTES = 2 * 128 * _BLOCKS_AT_ONCE * 128 * ElementType.BF16.bytes
"""Two groups of a matrix's tiles are fetched before they are wanted: one is used while the next
comes in. The rest of SBUF holds tensors and results."""

_RESIDENT_SHARE = 2
"""A tensor of up to this fraction of SBUF stays there between two operations: the other half is for
what the operation makes of it."""


@dataclass(frozen=True)
class Task:
    """An operation as a rule sees it. `kinds` and `streamed` are of the inputs, then of the
    outputs; a streamed one passes from operation to operation tile by tile and never leaves SBUF.
    """

    attributes: OperationKind
    inputs: tuple[Form, ...]
    outputs: tuple[Form, ...]
    kinds: tuple[BufferKind, ...]
    streamed: tuple[bool, ...]
    chip: Chip

    def transfers(self, weight_rows: int = 0) -> tuple[Transfer, ...]:
        """Weights, in rows of so many bytes, and cache entries as they are read and written, and
        activations that are too large for SBUF."""
        found: dict[Stream, int] = {}
        forms = (*self.inputs, *self.outputs)
        written = self.attributes.written_bytes(self.inputs)
        moved = (*self.attributes.read_bytes(self.inputs), *_shares(written, self.outputs))
        for form, kind, streams, moves in zip(forms, self.kinds, self.streamed, moved, strict=True):
            stream = None if streams else self._stream(form, kind)
            if stream is not None and moves:
                found[stream] = found.get(stream, 0) + moves
        return tuple(
            Transfer(stream, moves, weight_rows if stream is Stream.WEIGHTS else 0)
            for stream, moves in found.items()
        )

    def _stream(self, form: Form, kind: BufferKind) -> Stream | None:
        if kind is BufferKind.WEIGHT:
            return Stream.WEIGHTS
        if kind is BufferKind.KV:
            return Stream.CACHE
        return Stream.SPILL if form.bytes > resident_bytes(self.chip) else None


def resident_bytes(chip: Chip) -> float:
    """The largest tensor that stays in SBUF."""
    return chip.sbuf_mib_per_core * 2**20 / _RESIDENT_SHARE


Rule = Callable[[Task], Lowered]
RULES: dict[type[OperationKind], Rule] = {}


def lower(operation: Operation, chip: Chip, streamed: frozenset[str] = frozenset()) -> Lowered:
    """The instructions of an operation; `streamed` names buffers that never leave SBUF. Raises
    `UnsupportedModel` for a kind without a rule."""
    buffers = (*operation.inputs, *operation.outputs)
    kinds = tuple(buffer.kind for buffer in buffers)
    scratch = BufferKind.SCRATCH
    passed = tuple(one.kind is scratch and one.name in streamed for one in buffers)
    outputs = tuple(buffer.form for buffer in operation.outputs)
    return _lowered(operation.attributes, operation.input_forms, outputs, kinds, passed, chip)


@lru_cache(maxsize=1 << 16)
def _lowered(
    attributes: OperationKind,
    inputs: tuple[Form, ...],
    outputs: tuple[Form, ...],
    kinds: tuple[BufferKind, ...],
    streamed: tuple[bool, ...],
    chip: Chip,
) -> Lowered:
    rule = RULES.get(type(attributes))
    if rule is None:
        raise UnsupportedModel(
            f"Operation {attributes.name!r} has no lowering to Neuron instructions."
        )
    return rule(Task(attributes, inputs, outputs, kinds, streamed, chip))


def product(
    task: Task, rows: int, inner: int, columns: int, dtype: ElementType, *, times: int = 1
) -> tuple[Instruction, ...]:
    """`times` products [rows, inner] by [inner, columns] on the tensor engine, and the copies of
    their sums out of PSUM.

    One operand is stationary, 128 x 128 at a time; the other moves through, up to 512 columns at a
    time. The one that takes fewer cycles is chosen, as a compiler would.
    """
    chip = task.chip
    deep = tiles(inner, chip.tensor_rows)
    bank = chip.psum_bank_bytes // ElementType.FP32.bytes
    choices = []
    for stationary, moving in ((columns, rows), (rows, columns)):
        blocks = tiles(stationary, chip.tensor_columns)
        whole, rest = divmod(moving, bank)
        held = min(LEAST_CYCLES, min(stationary, chip.tensor_columns))
        cycles = deep * blocks * (whole * bank + (max(held, rest) if rest else 0))
        choices.append((cycles, deep * blocks * (whole + (rest > 0))))
    cycles, count = min(choices)
    passes = chip.fp32_passes if dtype is ElementType.FP32 else fp8_share(chip, dtype)
    flops = 2 * rows * inner * columns * times
    return (
        Instruction(Engine.TENSOR, "matmul", cycles * passes / count, count * times, flops),
        *evacuation(task, rows * columns * times),
    )


def fp8_share(chip: Chip, dtype: ElementType) -> float:
    """Cycles against those of bf16: 8-bit numbers go through twice as fast where the chip can."""
    if dtype.bytes != 1:
        return 1.0
    peaks = chip.tflops_per_core
    return peaks["bf16"] / peaks["fp8"] if "fp8" in peaks else 1.0


def evacuation(task: Task, elements: int) -> tuple[Instruction, ...]:
    """Sums leave PSUM by copies, half of them by each engine that can read it."""
    half = elements // 2
    return (
        *elementwise(task, "copy", half, engine=Engine.SCALAR),
        *elementwise(task, "copy", elements - half, engine=Engine.VECTOR),
    )


def elementwise(
    task: Task,
    name: str,
    elements: int,
    *,
    engine: Engine = Engine.VECTOR,
    passes: float = 1.0,
    dtype: ElementType = ElementType.FP32,
    flops: int = 0,
) -> tuple[Instruction, ...]:
    """One instruction over all partitions per 512 elements of each, `passes` times the cycles."""
    if elements <= 0:
        return ()
    lanes = _lanes(task.chip, engine, dtype)
    tile = task.chip.partitions * 512
    count = tiles(elements, tile)
    busy = max(LEAST_CYCLES, elements / count / lanes * passes)
    return (Instruction(engine, name, busy + START_CYCLES, count, flops),)


def row_bytes(rows: int, columns: int, dtype: ElementType) -> int:
    """How many bytes of a weight's row one tile takes: as many blocks of 128 as divide their
    number evenly, at most 16, in the dimension that divides worse. A prime number of blocks leaves
    one at a time; a matrix with a size that is no multiple of 128 is padded and laid out anew."""
    if rows % 128 or columns % 128:
        return _BLOCKS_AT_ONCE * 128 * dtype.bytes
    return min(_blocks(rows), _blocks(columns)) * 128 * dtype.bytes


def _blocks(size: int) -> int:
    whole = size // 128
    return max(one for one in range(1, _BLOCKS_AT_ONCE + 1) if whole % one == 0)


def tiles(size: int, tile: int) -> int:
    """How many tiles cover a size."""
    return -(-size // tile)


def _lanes(chip: Chip, engine: Engine, dtype: ElementType) -> int:
    if engine is Engine.VECTOR:
        return chip.vector_bf16_lanes if dtype.bytes == 2 else chip.vector_lanes
    return chip.scalar_lanes if engine is Engine.SCALAR else chip.partitions


def _shares(total: int, forms: Sequence[Form]) -> tuple[int, ...]:
    """Bytes written, to each output by its size."""
    whole = sum(form.bytes for form in forms)
    return tuple(total * form.bytes // whole if whole else 0 for form in forms)
