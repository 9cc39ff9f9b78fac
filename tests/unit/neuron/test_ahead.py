"""Weights and cache that are fetched ahead of the operations that want them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_backends.neuron.builders.encoder import EncoderShape, build_encoder
from ridgeline_backends.neuron.devices import instance
from ridgeline_backends.neuron.instructions import Stream
from ridgeline_backends.neuron.lowering import lower
from ridgeline_backends.neuron.operations import AllReduce, Group
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Operation,
    Program,
    Section,
)
from ridgeline_backends.neuron.schedule import streamed_buffers
from ridgeline_backends.neuron.timing.ahead import Ahead
from ridgeline_backends.neuron.timing.coefficients import prior_coefficients
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.seconds import operation_seconds, seconds
from ridgeline_backends.neuron.timing.work import Array, Part, Work

Step = tuple[int, int]
"""Seconds of an operation: what it fetches, and how long it computes."""

steps = st.tuples(st.integers(0, 9), st.integers(0, 9))
sections = st.lists(
    st.tuples(st.lists(steps, min_size=1, max_size=8), st.integers(1, 4)), min_size=1, max_size=4
)


def rows_of(listed: list[tuple[list[Step], int]], room: float) -> Array:
    rows = []
    for operations, repeats in listed:
        for place, (fetch, compute) in enumerate(operations):
            row = np.zeros(len(Part))
            row[Part.WEIGHTS], row[Part.FIXED], row[Part.ROOM] = fetch, compute, room
            row[Part.REPEATS], row[Part.BEGINS] = repeats, place == 0
            rows.append(row)
    return np.array(rows)


def by_hand(operations: list[Step], room: float, held: float) -> tuple[float, float]:
    """How long a section takes, and what is ahead behind it."""
    taken = 0.0
    for fetch, compute in operations:
        took = max(compute, fetch - held)
        held = min(room, held + took - fetch)
        taken += took
    return taken, held


@given(sections, st.integers(0, 12))
def test_a_section_waits_for_what_is_late(listed: list[tuple[list[Step], int]], room: int) -> None:
    rows = rows_of(listed, room)
    weights, computing = rows[:, Part.WEIGHTS], rows[:, Part.FIXED]
    waits = Ahead(rows).waits(weights, computing, rows[:, Part.ROOM])
    found = ((waits + computing) * rows[:, Part.REPEATS]).sum()
    wanted = 0.0
    for operations, repeats in listed:
        first, held = by_hand(operations, room, 0.0)
        wanted += first + (repeats - 1) * by_hand(operations, room, held)[0]
    assert found == pytest.approx(wanted)


@given(sections, st.integers(0, 12))
def test_no_more_room_makes_it_slower(listed: list[tuple[list[Step], int]], room: int) -> None:
    c = prior_coefficients()
    taken = [operation_seconds(rows_of(listed, size), c).sum() for size in (room, room + 1)]
    assert taken[1] <= taken[0] * (1 + 1e-12)


@given(sections)
def test_without_room_each_operation_waits_for_its_own(
    listed: list[tuple[list[Step], int]],
) -> None:
    rows = rows_of(listed, 0.0)
    fetch, free = rows[:, Part.WEIGHTS], rows[:, Part.FIXED]
    waits = Ahead(rows).waits(fetch, free, rows[:, Part.ROOM])
    assert waits == pytest.approx(np.maximum(0.0, fetch - free))


def test_every_matrix_of_an_encoder_is_fetched() -> None:
    shape = EncoderShape(hidden=256, layers=2, heads=4, intermediate=1024, vocab=1000)
    program = build_encoder(shape, batch=2, length=64)
    chip = instance("inf2.xlarge").chip
    seen = 0
    for section in program.sections:
        streamed = streamed_buffers(section, chip)
        for operation in section.operations:
            read = operation.attributes.read_bytes(operation.input_forms)
            weights = [
                moved
                for buffer, moved in zip(operation.inputs, read, strict=True)
                if buffer.kind is BufferKind.WEIGHT
            ]
            assert lower(operation, chip, streamed).bytes(Stream.WEIGHTS) == sum(weights)
            seen += sum(weights)
    assert seen >= 2 * (4 * 256 * 256 + 2 * 256 * 1024) / 2


def test_cores_that_share_a_bank_of_memory_have_more_of_it_alone() -> None:
    old, new = instance("inf1.xlarge"), instance("inf2.xlarge")
    alone, all_four = Machine(old, 1, active=1), Machine(old, 1)
    assert alone.memory_gb_s == pytest.approx(4 * all_four.memory_gb_s)
    assert Machine(new, 1, active=1).memory_gb_s == Machine(new, 1).memory_gb_s


def test_members_of_a_small_collective_cost_before_release_19() -> None:
    def taken(elements: int, cores: int, minor: int | None) -> float:
        x = Buffer("x", Form((elements,), ElementType.BF16))
        kind = AllReduce(Group(cores))
        operation = Operation(kind, (x,), (Buffer("y", kind.infer((x.form,))[0]),))
        program = Program("one", (Section("one", (operation,)),), cores=cores)
        work = Work.of(program, Machine(instance("trn1.32xlarge"), 1)).run_by(minor)
        return seconds(work, prior_coefficients())

    assert taken(1024, 32, 18) > taken(1024, 32, 19) == taken(1024, 32, None)
    assert taken(1024, 32, 18) - taken(1024, 2, 18) > taken(1024, 32, 19) - taken(1024, 2, 19)
    assert taken(1 << 24, 32, 18) == taken(1 << 24, 32, 19)
