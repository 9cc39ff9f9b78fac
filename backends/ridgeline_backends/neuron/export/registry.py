"""Translators of operators by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ridgeline_backends.neuron.program import Buffer

Value = object
"""An argument of an operator, a buffer in the place of a tensor."""

Result = Buffer | Tensor | Sequence[Buffer | Tensor | None]
"""What an operator gives; a tensor where its numbers are known, None for what nobody should read.
"""

Translate = Callable[..., Result]
"""(writer, arguments ...) -> what the operator gives."""

Function = TypeVar("Function", bound=Translate)

OPERATORS: dict[str, Translate] = {}

HINTS: dict[str, str] = {}
"""What to do instead, by operators that are refused although torch could take them apart."""


def translates(*names: str) -> Callable[[Function], Function]:
    """Register a translator."""

    def register(function: Function) -> Function:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def is_constant(value: object) -> bool:
    """Whether the trace knows the numbers of a tensor, or there is none."""
    if isinstance(value, Buffer):
        return False
    if isinstance(value, list | tuple):
        return all(is_constant(one) for one in value)
    return isinstance(value, Tensor | int | float | bool | str | torch.dtype | torch.device) or (
        value is None or isinstance(value, torch.layout | torch.memory_format)
    )
