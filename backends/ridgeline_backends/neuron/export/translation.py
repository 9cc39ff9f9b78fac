"""A traced graph as one section of a program."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from ridgeline_backends.neuron.builders.listing import Listing, given
from ridgeline_backends.neuron.execute.rounding import element_type
from ridgeline_backends.neuron.export.errors import (
    CompileError,
    DynamicShape,
    InvalidInput,
    UnsupportedOperator,
    line_of,
)
from ridgeline_backends.neuron.export.fusion import fused
from ridgeline_backends.neuron.export.operators import OPERATORS
from ridgeline_backends.neuron.export.registry import HINTS, is_constant
from ridgeline_backends.neuron.export.signature import Named, Signature
from ridgeline_backends.neuron.export.writer import Writer, named
from ridgeline_backends.neuron.operations import Cast, Reshape, Store
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    Form,
    InvalidProgram,
    Operation,
    Program,
    Section,
)

_NO_NUMBERS = ("device", "pin_memory", "layout", "memory_format", "non_blocking", "copy")
"""Arguments by name that say where and how numbers are kept, not which."""

_OVERFLOWING = (
    *("mul", "add", "sub", "rsub", "neg", "pow", "sum", "prod", "cumsum", "cumprod"),
    *("abs", "div", "floor_divide", "bitwise_left_shift", "__lshift__", "_to_copy"),
    *("scatter_add", "scatter_reduce", "index_add", "index_put"),
)
"""Operators whose results may lie beyond 32 bits, and begin anew there."""

_KEPT = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
_READ = (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT)


class Translation:
    """`traced` is functional (see `tracing`). After `program()`: `weights` and `state`, the forms
    of what the module reads and of what it also writes, by the names of the module; `inputs`, the
    forms of what a call is given; `signature`, how a call's arguments and results lie in these and
    in the outputs."""

    def __init__(self, traced: ExportedProgram, cores: int) -> None:
        self._traced = traced
        self._cores = cores
        self._writer = Writer(Listing("module", cores))
        self._found: dict[fx.Node, object] = {}
        self._written = {
            spec.target
            for spec in traced.graph_signature.output_specs
            if spec.kind in _KEPT and spec.target is not None
        }
        self.weights: dict[str, Form] = {}
        self.state: dict[str, Form] = {}
        self.inputs: dict[str, Form] = {}
        self._arguments: list[object] = []
        self._results: list[object] = []

    @property
    def signature(self) -> Signature:
        call = self._traced.call_spec
        assert call.in_spec is not None, "what is exported has a signature"
        assert call.out_spec is not None, "what is exported has a signature"
        return Signature(
            call.in_spec,
            call.out_spec,
            tuple(self._arguments),
            tuple(self._results),
            self.inputs,
        )

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """What the trace made, and what of the module no state dict has."""
        return {**self._traced.constants, **self._writer.constants}

    def program(self) -> Program:
        specs = {spec.arg.name: spec for spec in self._traced.graph_signature.input_specs}
        results: Sequence[object] = ()
        for node in self._traced.graph.nodes:
            if node.op == "placeholder":
                self._found[node] = self._placeholder(node, specs[node.name])
            elif node.op == "call_function":
                self._found[node] = self._call(node)
            elif node.op == "output":
                results = [self._value(one) for one in node.args[0]]
            elif node.op == "get_attr":
                self._found[node] = self._traced.constants.get(str(node.target))
        operations = self._finished(results)
        section = Section("module", tuple(fused(_used(operations))))
        program = Program("module", (section,), cores=self._cores)
        program.check()
        return program

    def _placeholder(self, node: fx.Node, spec: Any) -> object:
        kind, target = spec.kind, spec.target
        value = node.meta.get("val")
        if kind is InputKind.USER_INPUT:
            found = self._input(node, value)
            self._arguments.append(Named(found.name) if isinstance(found, Buffer) else found)
            return found
        if target in self._written and isinstance(value, Tensor):
            self.state[target] = self._writer.form(value)
            return Buffer(target, self.state[target], BufferKind.KV)
        if kind is InputKind.CONSTANT_TENSOR or target in self._traced.constants:
            return self._traced.constants[target]
        if not isinstance(value, Tensor):
            raise CompileError(f"{node.name} of the graph is no tensor.", hint="Export it anew.")
        if not node.users:
            return None
        self._writer.operator, self._writer.line = f"weight {target!r}", _first_use(node)
        self.weights[target] = self._writer.form(value)
        return Buffer(target, self.weights[target], BufferKind.WEIGHT)

    def _input(self, node: fx.Node, value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        dtype = element_type(value.dtype)
        if dtype is None:
            line = _first_use(node)
            raise InvalidInput(
                f"Input {node.name!r} is of {value.dtype}, a type that cores do not compute on"
                + (f"; it is used at {line}." if line else "."),
                hint="Convert it before the call, with .float() or .int(), on the host.",
            )
        form = Form(tuple(int(size) for size in value.shape), dtype)
        name = named(node.name)
        self.inputs[name] = form
        return given(name, *form.shape, dtype=form.dtype)

    def _call(self, node: fx.Node) -> object:
        writer, target = self._writer, node.target
        writer.name, writer.operator = node.name, str(target)
        writer.line = line_of(node.meta.get("stack_trace"))
        args = [self._value(one) for one in node.args]
        kwargs = {name: self._value(one) for name, one in node.kwargs.items()}
        if target is operator.getitem:
            return operator.getitem(*args)
        if "assert" in writer.operator:
            return None
        if isinstance(target, HigherOrderOperator):
            raise DynamicShape(
                f"{target} chooses what runs by the values of tensors",
                writer.line,
                hint="Compute both and choose with torch.where.",
            )
        self._check_certain(node)
        values = _tensors(node)
        writer.dtypes = tuple(one.dtype for one in values)
        if is_constant(args) and is_constant(tuple(kwargs.values())):
            return target(*args, **kwargs)  # type: ignore[operator]
        translate = OPERATORS.get(writer.operator)
        if translate is None:
            raise UnsupportedOperator(
                writer.operator, writer.line, hint=HINTS.get(writer.operator, "")
            )
        known = {name: one for name, one in kwargs.items() if name not in _NO_NUMBERS}
        try:
            call = inspect.signature(translate).bind(writer, *args, **known)
        except TypeError as error:
            raise writer.refused(f"{len(args)} arguments and {sorted(known)}") from error
        for name, one in call.arguments.items():
            # A translator that wants a buffer gets one of numbers that the trace knows too.
            if isinstance(one, Tensor) and call.signature.parameters[name].annotation == "Buffer":
                call.arguments[name] = writer.tensor(one)
        try:
            return self._checked(translate(*call.args, **call.kwargs), values)
        except InvalidProgram as error:
            raise writer.refused(f"shapes that no operation takes ({error.message})") from error

    def _check_certain(self, node: fx.Node) -> None:
        """Refuse numbers by chance: the trace would take one draw for all calls."""
        target = node.target
        # Translators see to it that attention and dropout have none.
        if str(target) in OPERATORS or not isinstance(target, OpOverload):
            return
        if torch.Tag.nondeterministic_seeded in target.tags:
            raise self._writer.refused(
                "random numbers", hint="Draw them on the host, and pass them as an input."
            )

    def _checked(self, found: object, values: Sequence[Tensor]) -> object:
        """As torch says that it is, in shape and type."""
        if isinstance(found, Buffer):
            return self._as_said(found, values[0]) if values else found
        if isinstance(found, Sequence) and len(found) == len(values):
            return [
                self._as_said(one, value) if isinstance(one, Buffer) else one
                for one, value in zip(found, values, strict=True)
            ]
        return found

    def _as_said(self, found: Buffer, value: Tensor) -> Buffer:
        shape = tuple(int(size) for size in value.shape)
        if found.shape == (1,) and not shape:
            # A number beside a tensor of no axis has one.
            found = self._writer.reshape(found)
        if found.shape != shape:
            raise self._writer.refused(f"arguments that give {list(shape)}")
        dtype = element_type(value.dtype)
        if dtype is None:
            raise self._writer.refused(f"numbers of type {value.dtype}")
        _, name, *_ = self._writer.operator.split(".")
        if value.dtype is torch.int32 and name in _OVERFLOWING:
            return self._writer.add(Cast(dtype), found)
        return self._writer.cast(found, dtype)

    def _value(self, given: object) -> Any:
        """An argument of a node, with what earlier nodes gave in their places."""
        if isinstance(given, fx.Node):
            return self._found[given]
        if isinstance(given, list | tuple):
            return [self._value(one) for one in given]
        return given

    def _finished(self, results: Sequence[object]) -> list[Operation]:
        """The operations, with what the module gives in buffers that the host reads, and what it
        keeps in those that stay."""
        kept: list[tuple[str, Buffer]] = []
        renamed: dict[str, Buffer] = {}
        specs = self._traced.graph_signature.output_specs
        for spec, result in zip(specs, results, strict=True):
            if spec.kind is OutputKind.USER_INPUT_MUTATION:
                raise CompileError(
                    f"The module writes into its input {spec.target!r}.",
                    hint="Cores have inputs of their own: compute a new tensor, and return it.",
                )
            if spec.kind in _KEPT:
                kept.append((str(spec.target), self._new_state(str(spec.target), result)))
            elif spec.kind in _READ:
                self._output(result, renamed)
            else:
                raise CompileError(
                    f"The graph gives {spec.kind.name.lower()}, which no program does.",
                    hint="Export the module alone, for inference.",
                )

        def own(buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
            return tuple(renamed.get(one.name, one) for one in buffers)

        stored = []
        for name, new in kept:
            buffer = Buffer(name, self.state[name], BufferKind.KV)
            stored.append(Operation(Store(), (buffer, new), (buffer,)))
        operations = (*self._writer.out.section().operations, *stored)
        return [
            replace(one, inputs=own(one.inputs), outputs=own(one.outputs)) for one in operations
        ]

    def _new_state(self, name: str, result: object) -> Buffer:
        self._writer.name = self._writer.operator = f"state.{name}"
        return self._apart(self._writer.cast(self._writer.tensor(result), self.state[name].dtype))

    def _output(self, result: object, renamed: dict[str, Buffer]) -> None:
        if not isinstance(result, Buffer | Tensor):
            self._results.append(result)
            return
        self._writer.name = self._writer.operator = f".output.{len(self._results)}"
        name = named(self._writer.name)
        found = self._apart(self._writer.tensor(result))
        if found.kind is not BufferKind.SCRATCH or found.name in renamed:
            found = self._writer.add(Reshape(found.shape), found)
        renamed[found.name] = Buffer(name, found.form, BufferKind.OUTPUT)
        self._results.append(Named(name))

    def _apart(self, found: Buffer) -> Buffer:
        """What looks at a buffer that is written at the end is read before."""
        seen = self._writer.seen(found)
        return self._writer.copied(found) if seen.kind is BufferKind.KV else found


def _tensors(node: fx.Node) -> list[Tensor]:
    """What torch says that a node gives."""
    value = node.meta.get("val")
    found = value if isinstance(value, list | tuple) else [value]
    return [one for one in found if isinstance(one, Tensor)]


def _first_use(node: fx.Node) -> Any:
    for user in node.users:
        line = line_of(user.meta.get("stack_trace"))
        if line is not None:
            return line
    return None


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
