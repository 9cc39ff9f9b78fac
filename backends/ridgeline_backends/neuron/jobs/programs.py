"""Programs from files: what `torch.export.save` and `torch.jit.save` wrote.

Neither runs Python of the file's: both are torch's own operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch.export import ExportedProgram

from ridgeline_backends.neuron.export.compiled import trace_exported
from ridgeline_backends.neuron.export.errors import CompileError, DynamicShape
from ridgeline_backends.neuron.export.torchscript import Interpreted
from ridgeline_backends.neuron.export.tracing import exported, first_line, quiet
from ridgeline_backends.neuron.jobs.options import InvalidOrder
from ridgeline_backends.neuron.program import Program

Example = tuple[torch.Tensor, ...]

_DTYPES = (torch.float32, torch.int64)
_MIXED = 4
"""Inputs, of which each mixture of types is tried."""
_OF_TYPES = re.compile(r"dtype|scalar type|Long|must be long")


def load_program(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> ExportedProgram:
    """`shapes` are those of the inputs, in their order, which TorchScript does not know, nor an
    exported program whose dimensions are left open. Raises `InvalidOrder`."""
    if path.suffix == ".pt2":
        try:
            found: ExportedProgram = torch.export.load(path)
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise InvalidOrder(f"{path.name} is no exported program: {error}.") from error
        return _closed(path.name, found, list(shapes.values()))
    try:
        script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise InvalidOrder(
            f"{path.name} is no TorchScript: {str(error).splitlines()[0]}",
            hint="Save the model with torch.jit.save, or with torch.export.save as .pt2.",
        ) from error
    if not shapes:
        raise InvalidOrder(
            "DataInputConfig is empty, and TorchScript does not know the shapes of its inputs.",
            hint='Give them, like {"input0": [1, 3, 224, 224]}.',
        )
    return _exported(path.name, script, list(shapes.values()))


def _closed(
    name: str, program: ExportedProgram, shapes: Sequence[tuple[int, ...]]
) -> ExportedProgram:
    """Without dimensions left open: a compiled program has one shape. Raises `InvalidOrder`."""
    inputs = _inputs(program)
    left_open = [
        one.name for one in inputs if not all(type(n) is int for n in one.meta["val"].shape)
    ]
    if not left_open:
        return program
    if len(shapes) != len(inputs):
        raise InvalidOrder(
            f"{name} leaves dimensions of {', '.join(left_open)} open, and DataInputConfig gives "
            f"{len(shapes)} shapes for {len(inputs)} inputs: a compiled program has one shape.",
            hint="Give the shape of every input in DataInputConfig, or export without "
            "dynamic_shapes.",
        )
    example = tuple(
        torch.zeros(shape, dtype=one.meta["val"].dtype)
        for shape, one in zip(shapes, inputs, strict=True)
    )
    return exported(program.module(), example, {})


def _exported(
    name: str, script: torch.jit.ScriptModule, shapes: Sequence[tuple[int, ...]]
) -> ExportedProgram:
    """TorchScript with inputs of these shapes. Raises `InvalidOrder`."""
    example = _example(name, script, shapes)
    try:
        return exported(Interpreted(script), example, {})
    except DynamicShape:
        raise
    except CompileError as error:
        raise InvalidOrder(
            f"{name} runs on inputs of these shapes, and does not become a graph: "
            f"{_said(error.__cause__ or error)}",
            hint="What runs must not depend on the values of tensors: choose with torch.where. Or "
            "export the model with torch.export.save as .pt2.",
        ) from error


def _example(
    name: str, script: torch.jit.ScriptModule, shapes: Sequence[tuple[int, ...]]
) -> Example:
    """The first that the script takes: neither it nor the job says of what type its inputs are.
    Raises `InvalidOrder`."""
    refusals = []
    for dtypes in _types(len(shapes)):
        example = tuple(
            torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
        )
        try:
            with quiet(), torch.inference_mode():
                script(*example)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            refusals.append(_said(error))
        else:
            return example
    # What is wrong whatever the type says more than that a type is.
    told = next((one for one in refusals if not _OF_TYPES.search(one)), refusals[0])
    raise InvalidOrder(
        f"{name} does not run on inputs of these shapes: {told}",
        hint="Check DataInputConfig, or export the model with torch.export.save as .pt2.",
    )


def _types(count: int) -> Iterator[tuple[torch.dtype, ...]]:
    """Of so many inputs: all floats, all whole numbers, and the mixtures of a few."""
    for dtype in _DTYPES:
        yield (dtype,) * count
    if count <= _MIXED:
        yield from (one for one in product(_DTYPES, repeat=count) if len(set(one)) > 1)


def _said(error: BaseException) -> str:
    """What torch says itself, behind where in the script it was."""
    lines = str(error).strip().splitlines()
    said = [line for line in lines if line.startswith("RuntimeError: ")]
    return said[-1].removeprefix("RuntimeError: ") if said else first_line(error)


def trace(program: ExportedProgram) -> Program:
    """The operation list of one core. Raises `UnsupportedOperator` and `DynamicShape`."""
    return trace_exported(program)


def shapes_of(program: ExportedProgram) -> dict[str, list[int]]:
    """Of the inputs, by name."""
    return {one.name: [int(n) for n in one.meta["val"].shape] for one in _inputs(program)}


def _inputs(program: ExportedProgram) -> list[torch.fx.Node]:
    """What a caller gives."""
    names = program.graph_signature.user_inputs
    nodes = program.graph.nodes
    return [one for one in nodes if one.op == "placeholder" and one.name in names]
