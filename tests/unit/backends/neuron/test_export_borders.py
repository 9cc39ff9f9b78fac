"""What a compiled module keeps between calls, what it refuses, and by which name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ridgeline_backends.errors import BackendError
from ridgeline_backends.neuron.execute.indexing_kernels import PlaceOutOfRange
from ridgeline_backends.neuron.export import (
    ColumnParallelLinear,
    CompileError,
    DynamicShape,
    IntegerProduct,
    InvalidInput,
    InvalidWeights,
    ParallelEmbedding,
    RowParallelLinear,
    UnsupportedOperator,
    compile_module,
)


def module(forward: Callable[..., Any]) -> Callable[[], nn.Module]:
    class Module(nn.Module):
        def forward(self, *args: Tensor) -> Any:
            return forward(*args)

    return Module


def compiled(forward: Callable[..., Any], *example: Tensor) -> Any:
    return compile_module(module(forward), example, weights={})


@pytest.mark.parametrize("degree", [1, 2, 4])
@pytest.mark.parametrize("head_first", [False, True])
@pytest.mark.parametrize("names", [("e", "h"), ("h", "e")])
def test_a_tied_embedding_and_head_are_cut_under_either_name(
    degree: int, head_first: bool, names: Sequence[str]
) -> None:
    torch.manual_seed(0)

    def make() -> nn.Module:
        made = nn.Module()
        table, head = ParallelEmbedding(128, 16), ColumnParallelLinear(16, 128, bias=False)
        for name in names:
            made.add_module(name, table if name == "e" else head)
        if head_first:
            table.weight = head.weight
        else:
            head.weight = table.weight
        made.forward = lambda ids: head(table(ids))  # type: ignore[method-assign]
        return made

    whole, ids = make(), torch.randint(0, 128, (2, 5))
    found = compile_module(make, (ids,), weights=whole.state_dict(), tensor_parallel=degree)
    assert torch.allclose(found(ids), whole(ids), atol=1e-5)
    one_name = {"e.weight": whole.state_dict()["e.weight"]}
    found = compile_module(make, (ids,), weights=one_name, tensor_parallel=degree)
    assert torch.allclose(found(ids), whole(ids), atol=1e-5)
    two = {**whole.state_dict(), "e.weight": torch.zeros(128, 16)}
    with pytest.raises(
        InvalidWeights, match=r"'e.weight' and 'h.weight'|'h.weight' and 'e.weight'"
    ):
        compile_module(make, (ids,), weights=two, tensor_parallel=degree)


class Counting(nn.Module):
    """Buffers that are written: added to, filled in places, changed for each other."""

    total: Tensor
    cache: Tensor
    left: Tensor
    right: Tensor
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.up = ColumnParallelLinear(4, 8, gather_output=False)
        self.down = RowParallelLinear(8, 4, input_is_parallel=True)
        self.register_buffer("total", torch.zeros(4))
        self.register_buffer("cache", torch.zeros(2, 5, 4))
        self.register_buffer("left", torch.ones(3))
        self.register_buffer("right", torch.full((3,), 2.0), persistent=False)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor, place: Tensor) -> list[Tensor]:
        before = self.total.clone()
        self.total.add_(x.sum((0, 1)))
        self.cache[:, place] = self.down(self.up(x))
        kept = self.left.clone()
        self.left.copy_(self.right)
        self.right.copy_(kept)
        self.calls += 1
        return [before, x + self.total, self.cache, self.left, self.right * 1, self.calls]


@pytest.mark.parametrize("degree", [1, 2])
def test_what_a_module_writes_into_its_buffers_stays_for_the_next_call(degree: int) -> None:
    torch.manual_seed(0)
    whole = Counting().eval()
    example = torch.ones(2, 1, 4), torch.tensor([0])
    ours = compile_module(Counting, example, weights=whole.state_dict(), tensor_parallel=degree)
    results = []
    for place in (0, 3, 1):
        inputs = torch.randn(2, 1, 4), torch.tensor([place])
        with torch.inference_mode():
            expected = [one.clone() for one in whole(*inputs)]
        results.append((ours(*inputs), expected))
    for found, expected in results:
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    other = compile_module(Counting, example, weights=whole.state_dict(), tensor_parallel=degree)
    assert int(other(*example)[-1]) == 4, "it begins with what the weights say"


def test_results_of_a_call_are_not_overwritten_by_the_next() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, 8))
    found = compile_module(lambda: whole, (torch.zeros(3, 8),), weights=whole.state_dict())
    first = found(torch.ones(3, 8))
    kept = first.clone()
    found(torch.randn(3, 8))
    assert torch.equal(first, kept)


def test_a_module_that_writes_into_its_input_is_refused() -> None:
    with pytest.raises(CompileError, match="writes into its input"):
        compiled(lambda x: x.add_(1) * 2, torch.zeros(3))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = ColumnParallelLinear(64, 256, gather_output=False)
        self.down = RowParallelLinear(256, 64, input_is_parallel=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.up(x))
        return found


WHOLE = {name: one.detach() for name, one in Plain().state_dict().items()}


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"up.weight": torch.zeros(200, 64)}, r"'up.weight' is \[200, 64\].*needs \[256, 64\]"),
        ({"up.weight": torch.zeros(255, 64)}, r"'up.weight' is \[255, 64\].*needs \[256, 64\]"),
        ({"up.weight": torch.zeros(256)}, r"'up.weight' is \[256\].*needs \[256, 64\]"),
        ({"down.weight": torch.zeros(64, 128)}, r"'down.weight' is \[64, 128\].*\[64, 256\]"),
        ({"down.bias": torch.zeros(1)}, r"'down.bias' is \[1\].*needs \[64\]"),
        ({"up.bias": None}, "Missing weights: 'up.bias'"),
        ({"other": torch.zeros(1)}, "Unexpected weights: 'other'"),
    ],
)
def test_weights_that_are_not_the_modules_are_refused_by_name(
    degree: int, changes: dict[str, Tensor | None], message: str
) -> None:
    weights = {name: one for name, one in {**WHOLE, **changes}.items() if one is not None}
    with pytest.raises(InvalidWeights, match=message):
        compile_module(Plain, (torch.zeros(4, 64),), weights=weights, tensor_parallel=degree)


@pytest.mark.parametrize("degree", [0, -1, 1.5, "2", True])
def test_a_degree_is_a_whole_number_from_1(degree: Any) -> None:
    with pytest.raises(CompileError, match="tensor_parallel is"):
        compile_module(Plain, (torch.zeros(4, 64),), weights=WHOLE, tensor_parallel=degree)


@pytest.mark.parametrize(
    "example",
    [torch.zeros(2, 2), {"x": torch.zeros(2)}, (object(),), ([len],), None, "x"],
)
def test_an_example_is_a_sequence_of_what_programs_take(example: Any) -> None:
    with pytest.raises(InvalidInput):
        compile_module(module(lambda *x: x[0]), example, weights={})


def test_inputs_of_a_type_that_no_core_has_are_refused_with_name_and_line() -> None:
    with pytest.raises(InvalidInput, match=r"torch.uint8.*test_export_borders.py:\d+"):
        compiled(lambda x: x.float() / 255, torch.zeros(4, dtype=torch.uint8))


@pytest.mark.parametrize(
    "given",
    [
        (),
        (torch.zeros(4, 64), torch.zeros(1)),
        (torch.zeros(5, 64),),
        (torch.zeros(4, 64).long(),),
        ([1, 2],),
        (None,),
    ],
)
def test_a_call_takes_what_it_was_compiled_for(given: Any) -> None:
    found = compile_module(Plain, (torch.zeros(4, 64),), weights=WHOLE)
    with pytest.raises(InvalidInput):
        found(*given)


def test_inputs_of_another_precision_are_rounded_to_that_of_the_example() -> None:
    found = compiled(lambda x: x, torch.zeros(2, dtype=torch.bfloat16))
    given = torch.tensor([1.001, 3.14159])
    assert torch.equal(found(given), given.bfloat16().float())


def test_whole_numbers_of_32_bits_begin_anew_beyond_the_last() -> None:
    """As a table's hashed ids do; 64-bit ones are computed as they are."""

    def hashed(x: Tensor) -> list[Tensor]:
        places = torch.zeros_like(x).long()
        return [
            *(x * x, x + 2147483647, (x << 17) - x, x.cumsum(0), -(x * 40000), x * x % 1009),
            *((x - 2147483643).abs(), torch.div(x - 2147483643, -1, rounding_mode="floor")),
            *(x.scatter_add(0, places, x), x.index_add(0, places, x)),
            x.index_put((places,), x, accumulate=True),
        ]

    for dtype in (torch.int32, torch.int64):
        given = torch.tensor([70000, -5, 2147483640 % 2**31], dtype=dtype)
        for ours, theirs in zip(compiled(hashed, given)(given), hashed(given), strict=True):
            assert torch.equal(ours, theirs.long()), dtype


def test_8_bit_floats_beyond_those_of_a_core_are_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self, most: float) -> None:
            super().__init__()
            values = torch.tensor([[most, -1.5], [300.0 * most / 448, 1.0]])
            self.register_buffer("table", values.to(torch.float8_e4m3fn))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.table.to(torch.float32)

    x = torch.ones(1, 2)
    fits, beyond = Scaled(240.0), Scaled(448.0)
    found = compile_module(lambda: Scaled(240.0), (x,), weights=fits.state_dict())
    assert torch.allclose(found(x), fits(x))
    with pytest.raises(InvalidWeights, match=r"'table' has numbers up to 448.* end at 240"):
        compile_module(lambda: Scaled(448.0), (x,), weights=beyond.state_dict())
    given = torch.tensor([448.0, 1.0]).to(torch.float8_e4m3fn)
    doubled = compiled(lambda y: y.float() * 2, torch.zeros(2).to(torch.float8_e4m3fn))
    with pytest.raises(InvalidInput, match="numbers up to 448"):
        doubled(given)


@pytest.mark.parametrize(
    ("ids", "message"), [([1, 10], "Index 10 .*0 to 9"), ([-1, 2], "Index -1 .*0 to 9")]
)
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_ids_that_a_table_does_not_have_are_refused_as_in_torch(
    ids: list[int], message: str, degree: int
) -> None:
    def make() -> nn.Module:
        return ParallelEmbedding(10, 4, pad=True)

    weights = make().state_dict()
    found = compile_module(make, (torch.tensor([1, 2]),), weights=weights, tensor_parallel=degree)
    assert torch.equal(found(torch.tensor([9, 0])), weights["weight"][[9, 0]])
    with pytest.raises(PlaceOutOfRange, match=message):
        found(torch.tensor(ids))


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, i: x[i],
        lambda x, i: x.gather(0, i),
        lambda x, i: x.scatter(0, i, 1.0),
        lambda x, i: x.index_select(0, i),
        lambda x, i: x.index_add(0, i, x[:1]),
        lambda x, i: F.embedding(i, x[:, None]),
        lambda x, i: F.one_hot(i, 4),
    ],
)
def test_places_beyond_a_tensor_are_refused(forward: Callable[..., Tensor]) -> None:
    found = compiled(forward, torch.zeros(4), torch.tensor([1]))
    found(torch.zeros(4), torch.tensor([3]))
    with pytest.raises(PlaceOutOfRange, match="Index 4 is out of range"):
        found(torch.zeros(4), torch.tensor([4]))


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: F.dropout(x, 0.5, training=True),
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
        lambda x: x + torch.rand(4),
        lambda x: x + torch.randn_like(x),
        lambda x: torch.bernoulli(x),
        lambda x: F.batch_norm(x, x[0, 0], x[0, 0].abs(), training=True),
        lambda x: F.rrelu(x, training=True),
        lambda x: F.alpha_dropout(x, 0.5, True),
    ],
)
def test_what_is_for_training_or_left_to_chance_is_refused(
    forward: Callable[..., Tensor],
) -> None:
    with pytest.raises(BackendError) as caught:
        compiled(forward, torch.rand(1, 2, 4, 4)[0])
    assert re.search(r"test_export_borders.py:\d+", caught.value.message)
    assert caught.value.hint


def test_no_share_is_dropped_of_a_module_in_training() -> None:
    """A module is compiled as it is after eval()."""
    whole = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)).train()
    found = compile_module(lambda: whole, (torch.ones(2, 4),), weights=whole.state_dict())
    x = torch.randn(2, 4)
    assert torch.allclose(found(x), whole.eval()(x), atol=1e-6)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x @ x.T,
        lambda x: F.linear(x, x),
        lambda x: torch.einsum("ij,kj->ik", x, x),
        lambda x: torch.addmm(x[:, 0], x, x.T),
    ],
)
def test_products_of_whole_numbers_are_refused(forward: Callable[..., Tensor]) -> None:
    with pytest.raises(IntegerProduct, match="NCC_EVRF035") as caught:
        compiled(forward, torch.arange(6).view(2, 3))
    assert re.search(r"test_export_borders.py:\d+", caught.value.message)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x * x.sum().item(),
        lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)),
        lambda x: x.nonzero(),
        lambda x: F.one_hot(x.long()),
    ],
)
def test_what_depends_on_data_is_refused(forward: Callable[..., Any]) -> None:
    with pytest.raises(DynamicShape, match="NCC_EMOD025"):
        compiled(forward, torch.ones(4))


def test_an_unsupported_operator_says_where_the_list_is() -> None:
    with pytest.raises(UnsupportedOperator) as caught:
        compiled(lambda x: torch.fft.rfft(x).abs(), torch.ones(4))
    assert "docs/neuron.md" in caught.value.hint
    assert "supported_operators()" in caught.value.hint


def test_a_module_that_does_not_run_says_why() -> None:
    with pytest.raises(CompileError, match="does not run on the example inputs"):
        compile_module(
            lambda: nn.Linear(4, 4), (torch.ones(3),), weights=nn.Linear(4, 4).state_dict()
        )
