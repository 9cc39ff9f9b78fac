"""A stretch of a program in one native call.

Its tensors are in one piece of memory, where one that is read no more gives way to another. Those
that others ask for are fresh with every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import Array, addressof, c_int64, memmove, sizeof
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import Kind, Library, Matrix, Operation, RowsOf
from ridgeline_backends.neuron.execute.linear import PackedMatrices, Scratch
from ridgeline_backends.neuron.execute.values import Room, Rows, Value
from ridgeline_backends.neuron.heap import DeviceHeap
from ridgeline_backends.neuron.program import InvalidProgram

_WORD = sizeof(c_int64)
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation: rows, numbers and addresses by their names in the native struct. `joined`: it
    is in one phase with the one before."""

    kind: Kind
    joined: bool
    rows: Mapping[str, Rows]
    numbers: Mapping[str, float]
    addresses: Mapping[str, Value] = field(default_factory=dict)
    matrices: PackedMatrices | None = None


class Run:
    """From the tensors of `given` to those of `wanted`."""

    def __init__(
        self,
        kernels: Library,
        scratch: Scratch,
        entries: Sequence[Entry],
        given: Sequence[Value],
        wanted: Sequence[Value],
    ) -> None:
        self._kernels = kernels
        self._scratch = scratch
        self._threads = torch.get_num_threads()
        # They hold what the operations point to.
        self._entries = entries
        self._given = given
        self._wanted = wanted
        self._operations = operations = (Operation * len(entries))()
        self._words = (c_int64 * (sizeof(operations) // _WORD)).from_buffer(operations)
        self._places: dict[Room, list[tuple[int, int]]] = {}
        self._structs: list[Array[Matrix]] = []
        for number, entry in enumerate(entries):
            _fill(operations[number], entry)
            if entry.matrices is not None:
                self._structs.append(entry.matrices.structs(operations[number].cores))
                operations[number].matrix = addressof(self._structs[-1])
            for at, value in _pointers(entry):
                word = (number * sizeof(Operation) + at) // _WORD
                self._places.setdefault(value.room, []).append((word, value.offset))
        rooms = {*self._places, *(one.room for one in given)}
        self._kept = {one.room for one in wanted if one.room.tensor is None}
        self._homes, self._used = _arranged(
            room for room in rooms if room.tensor is None and room not in self._kept
        )
        for room in rooms:
            if room.tensor is not None:
                self._point_to(room, room.tensor.data_ptr())
        self._size = self._used + kernels.run_scratch_bytes(operations, self._threads)
        self._base = 0

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Raises `InvalidProgram` for an input of another shape or type than was said."""
        base = self._scratch.address(self._size)
        if base != self._base:
            self._base = base
            for room, home in self._homes.items():
                self._point_to(room, base + home)
        fresh = {room: torch.empty(room.size, dtype=torch.uint8) for room in self._kept}
        for room, memory in fresh.items():
            self._point_to(room, memory.data_ptr())
        for value, tensor in zip(self._given, inputs, strict=True):
            own = fresh.get(value.room)
            to = base + self._homes[value.room] if own is None else own.data_ptr()
            _copy(tensor, value, to)
        self._kernels.run(self._operations, self._threads, base + self._used)
        return tuple(_tensor(one, fresh) for one in self._wanted)

    def _point_to(self, room: Room, address: int) -> None:
        for word, offset in self._places.get(room, ()):
            self._words[word] = address + offset


def _fill(operation: Operation, entry: Entry) -> None:
    operation.kind, operation.joined = entry.kind, entry.joined
    for name, number in entry.numbers.items():
        setattr(operation, name, number)
    for name, rows in entry.rows.items():
        setattr(operation, name, RowsOf(core=rows.core, row=rows.row))


def _pointers(entry: Entry) -> Iterator[tuple[int, Value]]:
    """Where in the struct an address belongs, and of what."""
    for name, rows in entry.rows.items():
        yield getattr(Operation, name).offset + RowsOf.data.offset, rows.value
    for name, value in entry.addresses.items():
        yield getattr(Operation, name).offset, value


def _arranged(rooms: Iterable[Room]) -> tuple[dict[Room, int], int]:
    """A home for each room, and the bytes they take: those in use at a time do not overlap."""
    heap = DeviceHeap(_NO_LIMIT)
    homes: dict[Room, int] = {}
    live: list[Room] = []
    for room in sorted(rooms, key=lambda one: one.born):
        for old in [one for one in live if one.last < room.born]:
            heap.give_back(homes[old])
            live.remove(old)
        homes[room] = heap.take(room.size)
        live.append(room)
    return homes, heap.peak


def _copy(tensor: Tensor, value: Value, to: int) -> None:
    view = value.view
    if tensor.shape != view.shape:
        raise InvalidProgram(f"A run takes {tuple(view.shape)}, not {tuple(tensor.shape)}.")
    whole = tensor.to(view.dtype).contiguous()
    memmove(to, whole.data_ptr(), value.room.size)


def _tensor(value: Value, fresh: Mapping[Room, Tensor]) -> Tensor:
    view, memory = value.view, value.room.tensor
    if memory is None:
        memory = fresh[value.room].view(view.dtype)
    return memory.as_strided(view.shape, view.stride(), view.storage_offset())
