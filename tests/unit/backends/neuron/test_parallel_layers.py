"""Layers that shard themselves: NxD's arguments in its order, and results that all cores have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor, nn

from ridgeline_backends.neuron.export import (
    ColumnParallelLinear,
    CompileError,
    NotGathered,
    ParallelEmbedding,
    RowParallelLinear,
    compile_module,
    trace_module,
)

FP32 = torch.float32


def agrees(make: Callable[[], nn.Module], example: Tensor, degree: int = 2) -> None:
    torch.manual_seed(0)
    whole = make().eval()
    ours = compile_module(make, (example,), weights=whole.state_dict(), tensor_parallel=degree)
    with torch.inference_mode():
        assert torch.allclose(ours(example), whole(example), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ParallelEmbedding(100, 16, 0, None, 2.0, False, False, nn.init.ones_, None, FP32),
        lambda: ParallelEmbedding(100, 16, padding_idx=0, sparse=True, use_spmd_rank=True),
        lambda: ParallelEmbedding(100, 15, shard_across_embedding=True, pad=True),
    ],
)
def test_an_embedding_has_the_arguments_of_nxd(make: Callable[[], nn.Module]) -> None:
    agrees(make, torch.tensor([[0, 3, 99]]))


@pytest.mark.parametrize("layer", [ColumnParallelLinear, RowParallelLinear])
def test_a_linear_layer_has_the_arguments_of_nxd(layer: type[nn.Module]) -> None:
    x = torch.randn(3, 16)
    agrees(lambda: layer(16, 8, True, layer is ColumnParallelLinear, FP32, None, 1), x)
    agrees(
        lambda: layer(
            16,
            8,
            device=torch.device("cpu"),
            init_method=nn.init.ones_,
            sequence_parallel_enabled=False,
            sequence_dimension=1,
            skip_bias_add=False,
            tensor_model_parallel_group=None,
            reduce_dtype=FP32,
        ),
        x,
    )


def test_padding_makes_columns_of_an_input_divide() -> None:
    agrees(lambda: RowParallelLinear(7, 4, pad=True), torch.randn(3, 7), degree=4)


def test_init_method_fills_the_weight() -> None:
    layers = ColumnParallelLinear, RowParallelLinear, ParallelEmbedding
    made = [layer(4, 4, init_method=lambda weight: weight.fill_(3)) for layer in layers]
    assert all(bool((one.weight == 3).all()) for one in made)


@pytest.mark.parametrize(
    ("layer", "asked"),
    [
        (ColumnParallelLinear, {"sequence_parallel_enabled": True}),
        (ColumnParallelLinear, {"device": torch.device("meta")}),
        (RowParallelLinear, {"skip_bias_add": True}),
        (RowParallelLinear, {"reduce_dtype": torch.bfloat16}),
        (RowParallelLinear, {"stride": 2}),
        (ParallelEmbedding, {"max_norm": 1.0}),
        (ParallelEmbedding, {"tensor_model_parallel_group": [0, 1]}),
    ],
)
def test_what_a_layer_does_not_do_is_refused_by_name(
    layer: Callable[..., nn.Module], asked: dict[str, Any]
) -> None:
    [name] = asked
    with pytest.raises(CompileError, match=f"{layer.__name__} has no {name}="):  # type: ignore[attr-defined]
        layer(4, 4, **asked)


class Part(nn.Module):
    """Gives what `end` makes of each core's own columns."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up = ColumnParallelLinear(16, 32, gather_output=False)
        self.end = end

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.end(self.up(x))


class Kept(nn.Module):
    """Gives what a core kept of its own columns, one call later."""

    kept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.up = ColumnParallelLinear(16, 32, gather_output=False)
        self.register_buffer("kept", torch.zeros(4))

    def forward(self, x: Tensor) -> tuple[int, Tensor]:
        before = self.kept * 1
        self.kept.copy_(self.up(x).sum(-1))
        return 0, before


@pytest.mark.parametrize(
    "make",
    [
        lambda: Part(lambda part: part),
        lambda: Part(lambda part: part.sum(-1)),
        lambda: Part(lambda part: part.argmax(-1)),
        lambda: nn.Sequential(
            nn.Linear(16, 16), RowParallelLinear(16, 16, reduce_output=False, bias=False)
        ),
        Kept,
    ],
)
def test_a_result_that_differs_between_cores_is_refused(make: Callable[[], nn.Module]) -> None:
    x = torch.randn(4, 16)
    weights = make().state_dict()
    with pytest.raises(NotGathered, match="differs between its 2 cores") as caught:
        compile_module(make, (x,), weights=weights, tensor_parallel=2)
    assert "gather_output=True" in caught.value.hint
    compile_module(make, (x,), weights=weights)
    assert trace_module(make, (x,), tensor_parallel=2).cores == 2


def test_what_is_the_same_on_all_cores_after_a_sum_is_given() -> None:
    class Gathered(Part):
        def __init__(self) -> None:
            super().__init__(torch.relu)
            self.down = RowParallelLinear(32, 16, input_is_parallel=True)

        def forward(self, x: Tensor) -> Tensor:
            _, part = super().forward(x)
            found: Tensor = self.down(part).argmax(-1)
            return found

    agrees(Gathered, torch.randn(4, 16))
