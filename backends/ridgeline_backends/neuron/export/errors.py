"""Why a module does not compile or run, with the compiler's own codes and the line of the model.

CompileError                a `BackendError`
├── UnsupportedOperator     NCC_EUOC002: an operator that there is no operation for
├── IntegerProduct          NCC_EVRF035: a product of matrices of whole numbers
├── DynamicShape            NCC_EMOD025: a shape or a branch depends on data
├── NotSharded              more than one core, and nothing in the module is cut
├── NotGathered             a result differs between cores
├── InvalidWeights          the weights are not those of the module
└── InvalidInput            an example, or an input of a call, that a program has no place for
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from ridgeline_backends.errors import BackendError

_HERE = Path(__file__).parent

LIST = 'docs/neuron.md, "Modules of your own", lists those that are supported'


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the model."""

    file: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}"


class CompileError(BackendError):
    """A module that cannot be compiled as it is."""

    code = "CompileError"
    http_status = 400


class UnsupportedOperator(CompileError):
    """An operator that the compiler has no operation for."""

    code = "UnsupportedOperator"

    def __init__(self, operator: str, where: SourceLine | None, *, hint: str = "") -> None:
        place = f", at {where}" if where else ""
        super().__init__(
            f"[NCC_EUOC002] Unsupported operator: {operator}{place}.",
            hint=hint
            or f"Write it with other operators, or run it on the host. {LIST}, and so does "
            "ridgeline_backends.neuron.export.supported_operators().",
        )
        self.operator = operator
        self.where = where


class IntegerProduct(CompileError):
    """A product of matrices, or a convolution, of whole numbers."""

    code = "IntegerProduct"

    def __init__(self, operator: str, where: SourceLine | None) -> None:
        place = f", at {where}" if where else ""
        super().__init__(
            f"[NCC_EVRF035] {operator} multiplies matrices of whole numbers{place}.",
            hint="The Tensor engine has floating-point numbers alone: convert with .float() first, "
            "and back with .round().long().",
        )
        self.where = where


class DynamicShape(CompileError):
    """A shape, an index or a branch that depends on the values of tensors."""

    code = "DynamicShape"

    def __init__(self, reason: str, where: SourceLine | None, *, hint: str = "") -> None:
        place = f" at {where}" if where else ""
        super().__init__(
            f"[NCC_EMOD025] Dynamic shapes are not supported{place}: {reason}",
            hint=hint or "Give every tensor a fixed shape: pad, and mask what is padding.",
        )
        self.where = where


class NotSharded(CompileError):
    """A tensor-parallel degree above 1 for a module of which every core would do all."""

    code = "NotSharded"


class NotGathered(CompileError):
    """A result of which each core has its own part, or its own summand."""

    code = "NotGathered"


class InvalidWeights(CompileError):
    """Names or shapes that are not those of the module's weights."""

    code = "InvalidWeights"


class InvalidInput(CompileError):
    """An example or an input that is no tensor of a type and shape that the program takes."""

    code = "InvalidInput"


def line_of(stack_trace: str | None) -> SourceLine | None:
    """The model's own line: the innermost one outside of torch, and of the code that it makes."""
    frames = re.findall(
        r'File "([^"]+)", line (\d+), in \S+\n\s+(.*)', stack_trace or "", flags=re.MULTILINE
    )
    own = [one for one in frames if _is_the_models(one[0])]
    if not own:
        return None
    file, line, code = own[-1]
    return SourceLine(file, int(line), code.strip())


def line_of_error(error: BaseException) -> SourceLine | None:
    """The model's own line that raised it."""
    frames = [one for one in extract_tb(error.__traceback__) if _is_the_models(one.filename)]
    if not frames or not frames[-1].line:
        return None
    return SourceLine(frames[-1].filename, frames[-1].lineno or 0, frames[-1].line)


def _is_the_models(file: str) -> bool:
    return "/torch/" not in file and not file.startswith("<") and Path(file).parent != _HERE
