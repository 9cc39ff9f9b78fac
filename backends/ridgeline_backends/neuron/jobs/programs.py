"""Programs from files: what `torch.export.save` and `torch.jit.save` wrote.

Neither runs Python of the file's: both are torch's own operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch.export import ExportedProgram

from ridgeline_backends.neuron.export.compiled import trace_exported
from ridgeline_backends.neuron.export.tracing import exported, first_line, quiet
from ridgeline_backends.neuron.jobs.options import InvalidOrder
from ridgeline_backends.neuron.program import Program

Example = tuple[torch.Tensor, ...]


def load_program(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> ExportedProgram:
    """`shapes` are those of the inputs, in their order, which TorchScript does not know. Raises
    `InvalidOrder`."""
    if path.suffix == ".pt2":
        try:
            found: ExportedProgram = torch.export.load(path)
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise InvalidOrder(f"{path.name} is no exported program: {error}.") from error
        return found
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
    return _converted(path.name, script, tuple(torch.zeros(shape) for shape in shapes.values()))


def _converted(name: str, script: torch.jit.ScriptModule, example: Example) -> ExportedProgram:
    """TorchScript with the shapes of the example. Raises `InvalidOrder`."""
    # Here: its import brings what only TorchScript needs.
    from torch._export.converter import TS2EPConverter

    try:
        with quiet():
            found = TS2EPConverter(script, example, {}).convert()
    except Exception as error:  # whatever the graph of the file leads to
        raise InvalidOrder(
            f"{name} does not become a graph with inputs of these shapes: "
            f"{_refusal(script, example) or first_line(error)}",
            hint="Check DataInputConfig, or export the model with torch.export.save as .pt2.",
        ) from error
    # The converter leaves every size open, though those of the inputs are given.
    return exported(found.module(), example, {})


def _refusal(script: torch.jit.ScriptModule, example: Example) -> str:
    """What torch says of the inputs, in their own numbers; empty where it takes them."""
    try:
        with torch.inference_mode():
            script(*example)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        lines = str(error).strip().splitlines()
        said = [line for line in lines if line.startswith("RuntimeError: ")]
        return said[-1].removeprefix("RuntimeError: ") if said else first_line(error)
    return ""


def trace(program: ExportedProgram) -> Program:
    """The operation list of one core. Raises `UnsupportedOperator` and `DynamicShape`."""
    return trace_exported(program)


def shapes_of(program: ExportedProgram) -> dict[str, list[int]]:
    """Of the inputs, by name."""
    names = program.graph_signature.user_inputs
    return {
        node.name: [int(size) for size in node.meta["val"].shape]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    }
