"""Every operator that a traced module may call, with arguments that are not the default, gives what
PyTorch gives; and the list of operators in the documentation is the list that there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor, nn

from ridgeline_backends.neuron.devices import chip
from ridgeline_backends.neuron.export import compile_module, supported_operators
from ridgeline_backends.neuron.lowering import lower

Call = Callable[..., Any]
DATA = Path(__file__).parents[3] / "data" / "neuron"


def draw(*shape: int) -> Tensor:
    """Numbers that look random, and that a trace may make too."""
    places = torch.arange(prod(shape)).view(shape)
    return 1.7 * torch.sin(places * places * 12.9898 + places + sum(shape))


def ids(high: int, *shape: int, low: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(high))


def flat(found: object) -> list[Any]:
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [one for part in found for one in flat(part)]
    return [found]


def same(ours: Tensor, theirs: Tensor, *, within: float, what: str) -> None:
    assert ours.shape == theirs.shape, what
    assert ours.is_floating_point() == theirs.is_floating_point(), what
    assert (ours.dtype is torch.bool) == (theirs.dtype is torch.bool), what
    a, b = ours.double(), theirs.double()
    assert torch.allclose(a, b, rtol=within, atol=within, equal_nan=True), f"{what}: {a} {b}"


def differ(calls: dict[str, Call], inputs: tuple[Tensor, ...], within: float = 2e-5) -> None:
    """Compile a module that gives the results of all calls, and compare each."""
    each = {name: flat(call(*(one.clone() for one in inputs))) for name, call in calls.items()}

    class Module(nn.Module):
        def forward(self, *args: Tensor) -> list[Any]:
            return [call(*args) for call in calls.values()]

    compiled = compile_module(Module, inputs, weights={})
    for operation, _ in compiled.program.operations():
        lower(operation, chip("trainium2"))
    found = flat(compiled(*inputs))
    for name, expected in each.items():
        for one in expected:
            same(found.pop(0), one, within=within, what=name)
    assert not found


INPUTS = {
    "activations": (draw(3, 4, 6),),
    "unary": (draw(3, 4, 6),),
    "of positive numbers": (draw(3, 4, 6).abs() + 0.1,),
    "binary": (draw(3, 4, 6), draw(3, 4, 6).flip(0) + 0.1),
    "reductions": (draw(3, 4, 6),),
    "layout": (draw(3, 4, 6),),
    "whole numbers": (torch.arange(-6, 6).view(3, 4), ids(7, 3, 4, low=1)),
    "products": (draw(2, 3, 4), draw(2, 4, 5), draw(4)),
    "places": (draw(5, 6, 3), ids(5, 4), ids(6, 4), ids(5, 2, 6, 3), draw(2, 6, 3)),
    "norms and attention": (draw(2, 6, 4, 5), draw(2, 4, 5, 8), draw(2, 4, 7, 8)),
    "images": (draw(2, 4, 9, 8), draw(2, 4, 11), draw(1, 2, 5, 6, 4)),
}
"""The tensors of each section of operators.txt."""

WITHIN = {"norms and attention": 1e-4, "images": 1e-4}

UNSTEADY = ("cdist", "//", "%", "fmod", "remainder", "floor", "trunc", "float64", "isclose")
"""In 16 bits a result on the wrong side of a step is another result, or PyTorch has none."""


def added_second(x: Tensor, i: Tensor, j: Tensor, w: Tensor, n: Tensor) -> Tensor:
    y = torch.ops.aten.index_put(x, [None, j], n[:1, :4], True)
    y[:, :, torch.tensor([2, 0])] = torch.tensor(2.5)
    return torch.ops.aten.index_put(y, [i, None, i % 3], n[0, :4, :1], True)


def written(x: Tensor, i: Tensor, *rest: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1] = 0
    y[0] += 1
    y[i, 2] = 4
    y[1:3, ::2] *= 2
    return y


NAMES = {
    "torch": torch,
    "F": torch.nn.functional,
    "draw": draw,
    "written": written,
    "added_second": added_second,
}
"""What the calls of operators.txt may use."""


def read_calls() -> dict[str, dict[str, Call]]:
    """The sections of operators.txt, each call by what it says."""
    sections: dict[str, dict[str, Call]] = {}
    names = ""
    for line in (DATA / "operators.txt").read_text().splitlines():
        if line.startswith("["):
            section, names = line[1:].split("] ")
            sections[section] = {}
        elif line and not line.startswith("#"):
            own = eval(f"lambda {', '.join(names.split())}: {line}", NAMES)
            sections[section][line] = own
    return sections


CALLS = read_calls()


@pytest.mark.parametrize("section", CALLS)
def test_operators_give_what_pytorch_gives(section: str) -> None:
    differ(CALLS[section], INPUTS[section], WITHIN.get(section, 2e-5))


@pytest.mark.parametrize("section", ["activations", "binary"])
def test_numbers_of_16_bits_are_rounded_as_pytorch_rounds_them(section: str) -> None:
    own = {
        name: call
        for name, call in CALLS[section].items()
        if not any(word in name for word in UNSTEADY)
    }
    differ(own, tuple(one.bfloat16() for one in INPUTS[section]), within=0.04)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True)
        self.second = nn.GRU(12, 5)
        self.norm = nn.BatchNorm1d(5)
        self.act = nn.PReLU(5)
        self.mixer = nn.MultiheadAttention(5, 5, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, state = self.first(x)
        with torch.no_grad():
            x, last = self.second(x)
        x = self.act(self.norm(x.transpose(1, 2))).transpose(1, 2)
        return [x, last, *state, *self.mixer(x, x, x, need_weights=True)]


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_layers_of_many_operators() -> None:
    torch.manual_seed(0)
    whole = Recurrent().eval()
    x = draw(2, 3, 4)
    with torch.inference_mode():
        expected = whole(x)
    found = compile_module(Recurrent, (x,), weights=whole.state_dict())(x)
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs, within=1e-4, what="recurrent")


def test_the_documentation_lists_the_operators_that_there_are() -> None:
    text = (Path(__file__).parents[4] / "docs" / "neuron.md").read_text()
    listed = re.search(r"<!-- operators -->\n(.*?)<!-- end of operators -->", text, re.DOTALL)
    assert listed is not None
    assert re.findall(r"[\w]+", listed[1]) == list(supported_operators())
