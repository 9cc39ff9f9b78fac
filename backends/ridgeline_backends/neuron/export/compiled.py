"""From a module to a program per core, and the module as a thing that runs on cores."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor, fx, nn
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
    free_unbacked_symbols,
)

from ridgeline_backends.neuron.builders.listing import Listing, given
from ridgeline_backends.neuron.execute.executor import LoadedProgram
from ridgeline_backends.neuron.execute.memory import CoreMemory, stored
from ridgeline_backends.neuron.export.errors import (
    DynamicShape,
    NotSharded,
    UnsupportedOperator,
    line_of,
)
from ridgeline_backends.neuron.export.fusion import fused
from ridgeline_backends.neuron.export.layers import PARTITION
from ridgeline_backends.neuron.export.operators import OPERATORS
from ridgeline_backends.neuron.export.parallel_state import tensor_model_parallel
from ridgeline_backends.neuron.export.registry import is_constant
from ridgeline_backends.neuron.export.writer import Writer
from ridgeline_backends.neuron.operations import Embedding, Reshape
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Operation,
    Program,
    Section,
)
from ridgeline_backends.neuron.sharding import by_columns, by_rows


@dataclass(frozen=True, slots=True)
class CompiledModule:
    """A module's program, and its weights on the cores. Call it as the module."""

    program: Program
    memory: CoreMemory
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    loaded: LoadedProgram

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        """What the module gives, from core 0; in float32 and int64."""
        kept = [one.float() if one.is_floating_point() else one for one in args]
        with torch.inference_mode():
            found = self.loaded.run(dict(zip(self.inputs, kept, strict=True)))
        return tuple(found[name][0] for name in self.outputs)


def compile_module(
    make: Callable[[], nn.Module],
    example: Sequence[Tensor],
    *,
    weights: Mapping[str, Tensor],
    tensor_parallel: int = 1,
) -> CompiledModule:
    """Compile what `make` makes, for inputs of the shapes of `example`.

    `make` is called once for the degree, so that layers that shard themselves hold one core's part.
    `weights` is the state dict of the module that `make` makes for one core, whole tensors.
    Raises `UnsupportedOperator`, `DynamicShape` and `NotSharded`.
    """
    module, cuts = _made(make, tensor_parallel)
    translated = _Translation(_export(module, tuple(example)), tensor_parallel)
    program = translated.program()
    memory = CoreMemory(tensor_parallel)

    def load(name: str) -> list[Tensor]:
        if name in translated.constants:
            found = translated.constants[name]
            return [found.clone()] * tensor_parallel
        whole, dtype = weights[translated.weights[name].name], translated.weights[name].dtype
        cut = cuts.get(translated.weights[name].name)
        made = [whole] * tensor_parallel
        if cut is not None:
            made = (by_columns if cut else by_rows)(whole, tensor_parallel)
        own = {id(part): stored(part, dtype) for part in made}
        return [own[id(part)] for part in made]

    with torch.inference_mode():
        memory.load([program], load)
    return CompiledModule(
        program, memory, translated.inputs, translated.outputs, LoadedProgram(program, memory)
    )


def trace_module(
    make: Callable[[], nn.Module], example: Sequence[Tensor], *, tensor_parallel: int = 1
) -> Program:
    """The program alone, without weights. Raises as `compile_module` does."""
    module, _ = _made(make, tensor_parallel)
    return _Translation(_export(module, tuple(example)), tensor_parallel).program()


def trace_exported(exported: ExportedProgram) -> Program:
    """The program of one core of what is exported already. Raises `UnsupportedOperator` and
    `DynamicShape`."""
    return _Translation(exported, 1).program()


def _made(make: Callable[[], nn.Module], tensor_parallel: int) -> tuple[nn.Module, dict[str, int]]:
    """The module of one core, and along which axis each of its cut weights is cut."""
    with tensor_model_parallel(tensor_parallel):
        module = make().eval()
    cuts = {
        name: getattr(parameter, PARTITION)
        for name, parameter in module.named_parameters()
        if hasattr(parameter, PARTITION)
    }
    if tensor_parallel > 1 and not cuts:
        raise NotSharded(
            f"Nothing in {type(module).__name__} is cut over {tensor_parallel} cores.",
            hint="Compile it for one core, or make it of ColumnParallelLinear, RowParallelLinear "
            "and ParallelEmbedding.",
        )
    return module, cuts


def _export(module: nn.Module, example: tuple[Tensor, ...]) -> ExportedProgram:
    try:
        return torch.export.export(module, example)
    except (UserError, GuardOnDataDependentSymNode) as error:
        where = line_of(str(error))
        first = re.split(r"\n", str(error).strip())[0]
        raise DynamicShape(first, where) from error


@dataclass(frozen=True, slots=True)
class _Weight:
    """A weight's name in the state dict."""

    name: str
    dtype: ElementType


class _Translation:
    """A traced graph as one section."""

    def __init__(self, traced: ExportedProgram, cores: int) -> None:
        self._traced = traced
        self._cores = cores
        self._writer = Writer(Listing("module", cores))
        self._found: dict[fx.Node, object] = {}
        self.weights: dict[str, _Weight] = {}
        self.inputs: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = ()

    @property
    def constants(self) -> Mapping[str, Tensor]:
        return self._writer.constants

    def program(self) -> Program:
        self._check_static()
        specs = {spec.arg.name: spec for spec in self._traced.graph_signature.input_specs}
        results: Sequence[object] = ()
        for node in self._traced.graph.nodes:
            if node.op == "placeholder":
                self._found[node] = self._placeholder(node, specs[node.name])
            elif node.op == "call_function":
                self._found[node] = self._call(node)
            elif node.op == "output":
                results = [self._found[one] for one in node.args[0]]
            elif node.op == "get_attr":
                self._found[node] = self._traced.constants[str(node.target)]
        operations = self._outputs(results)
        section = Section("module", tuple(fused(_used(operations))))
        program = Program("module", (section,), cores=self._cores)
        program.check()
        return program

    def _check_static(self) -> None:
        """Before anything else: what cannot be static is no matter of one operator."""
        for node in self._traced.graph.nodes:
            value = node.meta.get("val")
            shape = value.shape if isinstance(value, Tensor) else ()
            if free_unbacked_symbols(shape):
                sizes = ", ".join(map(str, shape))
                where = line_of(node.meta.get("stack_trace"))
                raise DynamicShape(f"{node.name} has the shape [{sizes}]", where)

    def _placeholder(self, node: fx.Node, spec: object) -> object:
        kind, target = spec.kind, spec.target  # type: ignore[attr-defined]
        value = node.meta["val"]
        if kind is InputKind.USER_INPUT:
            form = self._writer.form(value)
            self.inputs = (*self.inputs, node.name)
            return given(node.name, *form.shape, dtype=form.dtype)
        if kind is InputKind.CONSTANT_TENSOR or target in self._traced.constants:
            return self._traced.constants[target]
        form = self._writer.form(value)
        self.weights[target] = _Weight(target, form.dtype)
        return Buffer(target, form, BufferKind.WEIGHT)

    def _call(self, node: fx.Node) -> object:
        writer = self._writer
        writer.name, writer.operator = node.name, str(node.target)
        writer.where = line_of(node.meta.get("stack_trace"))
        args = [self._value(one) for one in node.args]
        kwargs = {name: self._value(one) for name, one in node.kwargs.items()}
        if node.target is operator.getitem:
            return operator.getitem(*args)
        if "assert" in writer.operator:
            return None
        if is_constant(args) and is_constant(tuple(kwargs.values())):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if writer.operator == "neuron.sharded_embedding.default":
            rank = given("rank", 1)
            return writer.add(Embedding(), writer.tensor(args[0]), writer.tensor(args[1]), rank)
        translate = OPERATORS.get(writer.operator)
        if translate is None:
            raise UnsupportedOperator(writer.operator, writer.where)
        known = {name: one for name, one in kwargs.items() if name not in _IGNORED}
        try:
            return translate(writer, *args, **known)
        except TypeError as error:
            raise writer.refused(f"arguments {sorted(known)}") from error

    def _value(self, given: object) -> Any:
        """An argument of a node, with what earlier nodes gave in their places."""
        if isinstance(given, fx.Node):
            return self._found[given]
        if isinstance(given, list | tuple):
            return [self._value(one) for one in given]
        return given

    def _outputs(self, results: Sequence[object]) -> list[Operation]:
        """The operations, with what the module gives in buffers that the host reads."""
        renamed: dict[str, Buffer] = {}
        for place, result in enumerate(results):
            name = f"output.{place}"
            self.outputs = (*self.outputs, name)
            found = self._writer.tensor(result)
            if found.kind is not BufferKind.SCRATCH or found.name in renamed:
                self._writer.name = name
                found = self._writer.add(Reshape(found.shape), found)
            renamed[found.name] = Buffer(name, found.form, BufferKind.OUTPUT)

        def own(buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
            return tuple(renamed.get(one.name, one) for one in buffers)

        return [
            replace(one, inputs=own(one.inputs), outputs=own(one.outputs))
            for one in self._writer.out.section().operations
        ]


_IGNORED = ("device", "pin_memory", "layout", "memory_format", "non_blocking", "copy")


def _used(operations: Sequence[Operation]) -> list[Operation]:
    """Those that something that is read depends on."""
    needed: set[str] = set()
    kept: list[Operation] = []
    for one in reversed(operations):
        outputs = {buffer.name for buffer in one.outputs}
        read = any(buffer.kind is not BufferKind.SCRATCH for buffer in one.outputs)
        if read or needed & outputs:
            kept.append(one)
            needed.update(buffer.name for buffer in one.inputs)
    return kept[::-1]
