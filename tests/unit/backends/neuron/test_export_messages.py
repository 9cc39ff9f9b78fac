"""What a module that does not compile is told: its own line, the mend, and nothing of torch's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor, nn

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.export import (
    ColumnParallelLinear,
    CompileError,
    DynamicShape,
    InvalidWeights,
    RowParallelLinear,
    compile_module,
    get_tensor_model_parallel_size,
)


class Sharded(nn.Module):
    """With what `between` makes of one core's part."""

    def __init__(self, between: Callable[[Sharded, Tensor], Tensor]) -> None:
        super().__init__()
        self.up = ColumnParallelLinear(8, 8, gather_output=False)
        self.down = RowParallelLinear(8, 8, input_is_parallel=True)
        self.between = between
        self.bias = nn.Parameter(torch.zeros(8))
        part = torch.zeros(2, 8 // get_tensor_model_parallel_size())
        self.register_buffer("cache", part, persistent=True)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.between(self, self.up(x)))


def refused(make: Callable[[], nn.Module], x: Tensor, degree: int = 1) -> BackendError:
    weights = make().state_dict()
    with pytest.raises(BackendError) as caught:
        compile_module(make, (x,), weights=weights, tensor_parallel=degree)
    return caught.value


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x + 1 if x.sum() > 0 else x - 1,
        lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x * 2,)),
    ],
)
def test_a_branch_by_data_names_its_line_and_where(
    forward: Callable[[Tensor], Tensor], capfd: pytest.CaptureFixture[str]
) -> None:
    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    error = refused(Module, torch.zeros(3))
    assert isinstance(error, DynamicShape)
    assert re.search(r"test_export_messages.py:\d+: (lambda x|return forward)", error.message)
    assert "torch.where" in error.hint
    assert capfd.readouterr().err == ""


def test_what_fails_on_one_cores_part_names_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    def whole_bias(module: Sharded, x: Tensor) -> Tensor:
        return x + module.bias

    def make() -> nn.Module:
        made = Sharded(whole_bias)
        del made.cache
        return made

    error = refused(make, torch.zeros(2, 8), degree=2)
    assert isinstance(error, CompileError)
    assert re.search(r"test_export_messages.py:\d+: return x \+ module.bias", error.message)
    assert "one core's part" in error.hint
    assert capfd.readouterr().err == ""


def test_a_buffer_of_one_cores_part_is_told_not_to_be_a_weight() -> None:
    error = refused(lambda: Sharded(lambda module, x: x + module.cache), torch.zeros(2, 8), 2)
    assert isinstance(error, InvalidWeights)
    assert "persistent=False" in error.hint
