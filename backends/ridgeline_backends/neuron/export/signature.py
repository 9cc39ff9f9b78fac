"""How the arguments of a call lie in the inputs of a program, and its outputs in what the module
gives: nests of Python's own, flattened as `torch.export` flattens them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as nests

from ridgeline_backends.neuron.execute.rounding import element_type, rounded
from ridgeline_backends.neuron.export.errors import InvalidInput
from ridgeline_backends.neuron.export.weights import check_range
from ridgeline_backends.neuron.program import ElementType, Form

_VALUES = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)
"""What an argument may be beside a tensor; it is compiled in."""


@dataclass(frozen=True, slots=True)
class Named:
    """A leaf that the program has, by the name of its input or output. Other leaves are values."""

    name: str


@dataclass(frozen=True, slots=True)
class Signature:
    """`inputs` and `results` are the leaves of (args, kwargs) and of what a call gives, in the
    order of `given` and `gives`; `forms` those of inputs by name."""

    given: nests.TreeSpec
    gives: nests.TreeSpec
    inputs: tuple[object, ...]
    results: tuple[object, ...]
    forms: Mapping[str, Form]

    def inputs_of(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, Tensor]:
        """The tensors of a call as cores have them. Raises `InvalidInput`."""
        places, names = self.given.children()
        if len(args) != places.num_children or set(kwargs) != set(names.context):
            raise InvalidInput(
                f"The call has {_counted(len(args), kwargs)}, and the module was compiled for "
                f"{_counted(places.num_children, names.context)}.",
                hint="Give the arguments that the example had, by place or by name as there.",
            )
        ordered = {name: kwargs[name] for name in names.context}
        leaves, spec = nests.tree_flatten(_in_order((tuple(args), ordered), self.given))
        if spec != self.given:
            raise InvalidInput(
                "The arguments are nested otherwise than those of the example.",
                hint="Give lists, tuples and dicts of the lengths and names that it had.",
            )
        kept = {}
        for wanted, one in zip(self.inputs, leaves, strict=True):
            if isinstance(wanted, Named):
                kept[wanted.name] = _held(wanted, self.forms[wanted.name], one)
            elif isinstance(one, Tensor) or not _same(one, wanted):
                shown = f"a tensor {list(one.shape)}" if isinstance(one, Tensor) else repr(one)
                raise InvalidInput(
                    f"An argument is {shown}, and the module was compiled for {wanted!r} there.",
                    hint="What is no tensor is part of the program: compile the module for this "
                    "value too.",
                )
        return kept

    def results_of(self, outputs: Mapping[str, Tensor]) -> Any:
        """What the module gives, in its own nest."""
        leaves = [outputs[one.name] if isinstance(one, Named) else one for one in self.results]
        return nests.tree_unflatten(leaves, self.gives)


def checked_example(
    args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The example's arguments by place and by name, each tensor one of its own: of one that is
    there twice `torch.export` makes one input. Raises `InvalidInput` for what no program takes."""
    if isinstance(args, Tensor | Mapping | str) or not isinstance(args, Sequence):
        raise InvalidInput(
            f"example is of type {type(args).__name__}, not a sequence of arguments.",
            hint="Pass a tuple with one for each argument of forward, such as (x,).",
        )
    whole = tuple(args), dict(kwargs)
    for path, one in nests.tree_flatten_with_path(whole)[0]:
        if not isinstance(one, Tensor) and not isinstance(one, _VALUES):
            raise InvalidInput(
                f"{_place(path)} is of type {type(one).__name__}, which no program takes.",
                hint="Pass tensors, numbers, strings or None, in tuples, lists and dicts; give "
                "other objects to the module when it is made.",
            )
    leaves, spec = nests.tree_flatten(whole)
    own = [one.clone() if isinstance(one, Tensor) else one for one in leaves]
    found: tuple[tuple[object, ...], dict[str, object]] = nests.tree_unflatten(own, spec)
    return found


def _in_order(given: Any, wanted: nests.TreeSpec) -> Any:
    """With the keys of dicts in the order of the example, where they are the same."""
    children = wanted.children()
    if type(given) is dict and wanted.type is dict and set(given) == set(wanted.context):
        pairs = zip(wanted.context, children, strict=True)
        return {key: _in_order(given[key], child) for key, child in pairs}
    if type(given) in (tuple, list) and len(given) == len(children):
        pairs = zip(given, children, strict=True)
        return type(given)(_in_order(one, child) for one, child in pairs)
    return given


def _same(one: object, wanted: object) -> bool:
    if type(one) is not type(wanted):
        return False
    return one == wanted or (isinstance(one, float) and isnan(one) and isnan(cast(float, wanted)))


def _place(path: Sequence[Any]) -> str:
    """Of `example` or `example_kwargs`."""
    _, *inner = path
    whole = "example" if path[0].idx == 0 else "example_kwargs"
    return whole + nests.keystr(tuple(inner))


def _counted(places: int, names: Any) -> str:
    found = f"{places} argument{'' if places == 1 else 's'} by place"
    return f"{found} and {', '.join(sorted(names))} by name" if names else found


def _held(wanted: Named, form: Form, given: object) -> Tensor:
    """An input as cores have it."""
    name = wanted.name.lstrip(".")
    if not isinstance(given, Tensor):
        raise InvalidInput(
            f"Input {name!r} is of type {type(given).__name__}, not a tensor.",
            hint="Convert it with torch.as_tensor.",
        )
    dtype = element_type(given.dtype)
    kind = (form.dtype.floating, form.dtype is ElementType.BOOL)
    fits = dtype is not None and (dtype.floating, dtype is ElementType.BOOL) == kind
    if tuple(given.shape) != form.shape or not fits:
        raise InvalidInput(
            f"Input {name!r} is {given.dtype} {list(given.shape)}, and the module was compiled for "
            f"{form.dtype} {list(form.shape)}.",
            hint="Pad or convert it to that, or compile the module for this shape too.",
        )
    check_range(f"Input {name!r}", given, InvalidInput)
    if form.dtype.floating:
        return rounded(given.float(), form.dtype)
    return given if form.dtype is ElementType.BOOL else given.long()
