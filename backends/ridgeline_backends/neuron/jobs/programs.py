"""Programs from files: what `torch.export.save` and `torch.jit.save` wrote.

Neither runs Python of the file's: both are read by torch into graphs of its own operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch.export import ExportedProgram

from ridgeline_backends.neuron.export.compiled import trace_exported
from ridgeline_backends.neuron.jobs.options import InvalidOrder
from ridgeline_backends.neuron.program import Program


def load_program(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> ExportedProgram:
    """`shapes` are those of the inputs, in their order, which TorchScript does not know. Raises
    `InvalidOrder`."""
    if path.suffix == ".pt2":
        try:
            exported: ExportedProgram = torch.export.load(path)
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise InvalidOrder(f"{path.name} is no exported program: {error}.") from error
        return exported
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
    # Here: its import brings what only TorchScript needs.
    from torch._export.converter import TS2EPConverter

    example = tuple(torch.zeros(shape) for shape in shapes.values())
    try:
        return TS2EPConverter(script, example, {}).convert()
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidOrder(
            f"{path.name} does not become a graph with inputs of these shapes: {first}",
            hint="Check DataInputConfig, or export the model with torch.export.save as .pt2.",
        ) from error


def trace(exported: ExportedProgram) -> Program:
    """The operation list of one core. Raises `UnsupportedOperator` and `DynamicShape`."""
    return trace_exported(exported)


def shapes_of(exported: ExportedProgram) -> dict[str, list[int]]:
    """Of the inputs, by name."""
    names = exported.graph_signature.user_inputs
    return {
        node.name: [int(size) for size in node.meta["val"].shape]
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name in names
    }
