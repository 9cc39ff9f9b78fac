"""From a module to a graph of functional operators: `torch.export`, then torch's own
decompositions of every operator that has no translator here.

What has one stays whole, so that a layer norm is one operation and no ten. Writes in place become
values that the graph gives beside its results.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from io import StringIO

from torch import SymBool, SymFloat, SymInt, Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram, default_decompositions, export
from torch.export.decomp_utils import CustomDecompTable
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
    free_unbacked_symbols,
)

from ridgeline_backends.neuron.export.decompositions import DECOMPOSITIONS
from ridgeline_backends.neuron.export.errors import (
    CompileError,
    DynamicShape,
    SourceLine,
    line_of,
    line_of_error,
)
from ridgeline_backends.neuron.export.operators import OPERATORS
from ridgeline_backends.neuron.export.registry import HINTS


def exported(
    module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> ExportedProgram:
    """Raises `DynamicShape`, and `CompileError` for a module that does not run on the example."""
    try:
        with quiet():
            found: ExportedProgram = export(module, args, kwargs)
    except GuardOnDataDependentSymNode as error:
        raise _branches(line_of(str(error)) or line_of_error(error)) from error
    except UserError as error:
        raise DynamicShape(first_line(error), line_of(str(error))) from error
    except Exception as error:  # whatever the module's own code raises
        where = line_of_error(error)
        raise CompileError(
            f"{type(module).__name__} does not run on the example inputs: "
            f"{type(error).__name__}: {first_line(error)}" + (f", at {where}" if where else ""),
            hint="Call the module on the same inputs without compiling it, to see where it fails; "
            "on more than one core a layer gives one core's part.",
        ) from error
    return found


def decomposed(traced: ExportedProgram) -> ExportedProgram:
    """The same in functional operators that have translators, as far as torch has them. Raises
    `DynamicShape` before any other error: what cannot be static is no matter of one operator."""
    _check_static(traced)
    try:
        with warnings.catch_warnings():
            # Of torch about itself, and of constants of a script, which nobody trains.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", ".* requires gradient", UserWarning)
            made: ExportedProgram = traced.run_decompositions(_table())
    except GuardOnDataDependentSymNode as error:
        raise _branches(line_of(str(error))) from error
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise CompileError(
            f"torch does not decompose the graph: {type(error).__name__}: {first_line(error)}",
            hint="Write what is unusual in it with plain operators.",
        ) from error
    _check_static(made)
    return made


@lru_cache(maxsize=1)
def _table() -> CustomDecompTable:
    """torch's decompositions and ours, without those of operators that are translated whole."""
    table = default_decompositions()
    for ours, apart in DECOMPOSITIONS.items():
        table[ours] = apart
    for operator in list(table):
        if str(operator) in OPERATORS or str(operator) in HINTS:
            del table[operator]
    return table


def _check_static(traced: ExportedProgram) -> None:
    for node in traced.graph.nodes:
        value = node.meta.get("val")
        where = line_of(node.meta.get("stack_trace"))
        if isinstance(value, Tensor):
            if free_unbacked_symbols(value.shape):
                sizes = ", ".join(map(str, value.shape))
                raise DynamicShape(f"{node.name} has the shape [{sizes}]", where)
        elif isinstance(value, SymInt | SymFloat | SymBool) and free_unbacked_symbols(value):
            raise DynamicShape(
                f"{node.name} is a number that Python reads of a tensor",
                where,
                hint="Keep it a tensor: leave out .item(), int() and float().",
            )


def _branches(where: SourceLine | None) -> DynamicShape:
    return DynamicShape(
        "what runs, or a shape, depends on the values of tensors",
        where,
        hint="Compute both sides and choose with torch.where; give every tensor a fixed shape.",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch logs, and prints of its graph, of an error that is told in a line here."""

    def nothing(_: logging.LogRecord) -> bool:
        return False

    loggers = logging.root.manager.loggerDict.items()
    handlers = [
        handler
        for name, logger in loggers
        if name.startswith("torch") and isinstance(logger, logging.Logger)
        for handler in logger.handlers
    ]
    for one in handlers:
        one.addFilter(nothing)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        for one in handlers:
            one.removeFilter(nothing)


def first_line(error: BaseException) -> str:
    """What an error says, or its type where it says nothing."""
    return re.split(r"\n", str(error).strip() or type(error).__name__)[0]
