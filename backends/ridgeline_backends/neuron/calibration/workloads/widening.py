"""Experts kept in 8 bits with a scale for each block of them, which the tensor engine has no word
for: every call makes 16 bits of all that a core holds."""

from __future__ import annotations

from ridgeline_backends.neuron.operations import Binary, Cast
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Operation,
    Program,
    Section,
)
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.work import Work


def widened(program: Program, machine: Machine, *, fused: bool) -> Work:
    """What that adds to a program. `fused`: tile by tile, in one pass over memory; the compiler
    alone writes what each operation makes, in fp32, and reads it again."""
    sections = [
        Section(f"{section.name}.{matrices.name}", part, section.repeats)
        for section in program.sections
        for matrices in _expert_matrices(section)
        for part in _parts(_widening(matrices), fused)
    ]
    return Work.of(Program("widening", tuple(sections), cores=program.cores), machine)


def _expert_matrices(section: Section) -> list[Buffer]:
    return [one.inputs[1] for one in section.operations if one.kind == "expert_matmul"]


def _parts(operations: tuple[Operation, ...], fused: bool) -> list[tuple[Operation, ...]]:
    """Nothing is streamed from one section to the next."""
    return [operations] if fused else [(one,) for one in operations]


def _widening(matrices: Buffer) -> tuple[Operation, ...]:
    """In fp32, as NxD's `scale_dequantize` does it: widened, multiplied by the scale, narrowed."""
    shape, name = matrices.shape, matrices.name
    wide = Buffer(f"{name}.wide", Form(shape, ElementType.FP32))
    scale = Buffer(f"{name}.scale", Form((shape[0], 1, 1), ElementType.FP32), BufferKind.WEIGHT)
    scaled = Buffer(f"{name}.scaled", Form(shape, ElementType.FP32))
    narrow = Buffer(f"{name}.narrow", Form(shape, ElementType.BF16))
    return (
        Operation(Cast(ElementType.FP32), (matrices,), (wide,)),
        Operation(Binary("multiply"), (wide, scale), (scaled,)),
        Operation(Cast(ElementType.BF16), (scaled,), (narrow,)),
    )
