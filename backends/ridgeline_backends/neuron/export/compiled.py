"""From a module to a program per core, and the module as a thing that runs on cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ridgeline_backends.neuron.execute.executor import LoadedProgram
from ridgeline_backends.neuron.execute.memory import CoreMemory, stored
from ridgeline_backends.neuron.export.errors import CompileError, NotSharded
from ridgeline_backends.neuron.export.gathering import check_gathered
from ridgeline_backends.neuron.export.layers import PARTITION
from ridgeline_backends.neuron.export.parallel_state import tensor_model_parallel
from ridgeline_backends.neuron.export.signature import Signature, checked_example
from ridgeline_backends.neuron.export.tracing import decomposed, exported
from ridgeline_backends.neuron.export.translation import Translation
from ridgeline_backends.neuron.export.weights import check_range, expected_of, matched, parts_of
from ridgeline_backends.neuron.program import Program


@dataclass(frozen=True, slots=True)
class CompiledModule:
    """A module's program, and its weights on the cores. Call it as the module.

    What the module writes into its buffers stays for the next call, as on a device, where such a
    buffer is an output at the address of an input.
    """

    program: Program
    memory: CoreMemory
    signature: Signature
    loaded: LoadedProgram

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """What the module gives, which all cores have: in its own tuples, dicts and output classes,
        with tensors in float32, int64 and bool.

        Raises `InvalidInput` for other arguments than those it was compiled for, and
        `PlaceOutOfRange` for ids that a table does not have.
        """
        inputs = self.signature.inputs_of(args, kwargs)
        with torch.inference_mode():
            found = self.loaded.run(inputs)
        return self.signature.results_of({name: parts[0] for name, parts in found.items()})


def compile_module(
    make: Callable[[], nn.Module],
    example: Sequence[object],
    *,
    example_kwargs: Mapping[str, object] | None = None,
    weights: Mapping[str, Tensor],
    tensor_parallel: int = 1,
) -> CompiledModule:
    """Compile what `make` makes, as it is after `.eval()`, for tensors of the shapes and types of
    the example, which has the arguments of `forward` by place and by name. What of them is no
    tensor is compiled in.

    `make` is called once for the degree, so that layers that shard themselves hold one core's part.
    `weights` is the state dict of the module that `make` makes for one core, whole tensors.
    Raises `UnsupportedOperator`, `DynamicShape`, `NotSharded`, `NotGathered`, `InvalidWeights` and
    `InvalidInput`.
    """
    args, kwargs = checked_example(example, example_kwargs or {})
    module = _made(make, tensor_parallel)
    expected = expected_of(module)
    given = matched(expected, weights, tensor_parallel)
    translated = Translation(decomposed(exported(module, args, kwargs)), tensor_parallel)
    program = translated.program()
    cut = [name for name, one in expected.items() if one.axis is not None]
    check_gathered(program, translated.signature.results, cut)
    memory = CoreMemory(tensor_parallel)

    def load(name: str) -> list[Tensor]:
        made = translated.constants.get(name)
        if made is not None:
            check_range(f"Weight {name!r}", made)
            return [made.clone()] * tensor_parallel
        check_range(f"Weight {name!r}", given[name])
        parts = parts_of(given[name], expected[name].axis, tensor_parallel)
        own = {id(part): stored(part, translated.weights[name].dtype) for part in parts}
        return [own[id(part)] for part in parts]

    with torch.inference_mode():
        memory.load([program], load)
        for name in translated.state:
            _begin(memory, name, given.get(name, translated.constants.get(name)), expected)
    return CompiledModule(program, memory, translated.signature, LoadedProgram(program, memory))


def _begin(
    memory: CoreMemory, name: str, value: Tensor | None, expected: Mapping[str, Any]
) -> None:
    """What a buffer holds before the first call, on every core."""
    kept = memory.tensor(name)
    assert kept is not None, "what is written stays in memory"
    assert value is not None, "a module has its buffers"
    check_range(f"Weight {name!r}", value)
    axis = expected[name].axis if name in expected else None
    parts = parts_of(value, axis, memory.cores)
    tensor, spread = kept
    tensor.copy_(torch.stack(parts) if spread else parts[0])


def trace_module(
    make: Callable[[], nn.Module],
    example: Sequence[object],
    *,
    example_kwargs: Mapping[str, object] | None = None,
    tensor_parallel: int = 1,
) -> Program:
    """The program alone, without weights. Raises as `compile_module` does."""
    args, kwargs = checked_example(example, example_kwargs or {})
    module = _made(make, tensor_parallel)
    return Translation(decomposed(exported(module, args, kwargs)), tensor_parallel).program()


def trace_exported(traced: ExportedProgram) -> Program:
    """The program of one core of what is exported already. Raises `UnsupportedOperator` and
    `DynamicShape`."""
    return Translation(decomposed(traced), 1).program()


def _made(make: Callable[[], nn.Module], tensor_parallel: int) -> nn.Module:
    """The module of one core."""
    whole = isinstance(tensor_parallel, int) and not isinstance(tensor_parallel, bool)
    if not whole or tensor_parallel < 1:
        raise CompileError(
            f"tensor_parallel is {tensor_parallel!r}, not a whole number from 1 on.",
            hint="Give the number of cores that share the module; 1 for one core.",
        )
    with tensor_model_parallel(tensor_parallel):
        module = make().eval()
    # A tensor that is tied to another has each of its names.
    parameters = module.named_parameters(remove_duplicate=False)
    if tensor_parallel > 1 and not any(hasattr(one, PARTITION) for _, one in parameters):
        raise NotSharded(
            f"Nothing in {type(module).__name__} is cut over {tensor_parallel} cores.",
            hint="Compile it for one core, or make it of ColumnParallelLinear, RowParallelLinear "
            "and ParallelEmbedding.",
        )
    return module
