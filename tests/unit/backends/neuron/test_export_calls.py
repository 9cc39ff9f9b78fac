"""A compiled module is called as the module is, and gives what the module gives: arguments by
place and by name, nests of tensors, values that are compiled in; no weight's name is in the way."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from torch import Tensor, nn
from torch.utils import _pytree as nests
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from ridgeline_backends.neuron.export import CompiledModule, InvalidInput, compile_module

Point = namedtuple("Point", "x y")
X = torch.tensor([1.0, 2.0, 3.0])


def compiled(
    forward: Callable[..., Any], *example: object, **example_kwargs: object
) -> CompiledModule:
    class Module(nn.Module):
        pass

    Module.forward = lambda self, *args, **kwargs: forward(*args, **kwargs)  # type: ignore[method-assign]
    return compile_module(Module, example, example_kwargs=example_kwargs, weights={})


def same(ours: object, theirs: object) -> None:
    """In nest, values and classes."""
    leaves, spec = nests.tree_flatten(ours)
    expected, expected_spec = nests.tree_flatten(theirs)
    assert spec == expected_spec
    for one, other in zip(leaves, expected, strict=True):
        if isinstance(other, Tensor):
            assert torch.allclose(one, other, atol=1e-5)
        else:
            assert one == other


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x + 1,
        lambda x: (x + 1,),
        lambda x: (x + 1, None, 3, "a", [2.5, torch.ones(2)]),
        lambda x: {"sum": x.sum(), "rest": [x[1:], {"last": (x[-1], x)}]},
        lambda x: Point(x, {"y": -x}),
        lambda x: None,
        lambda x: ("output.0", x, ".input"),
    ],
)
def test_results_come_in_the_modules_own_nest(forward: Callable[[Tensor], Any]) -> None:
    same(compiled(forward, X)(X), forward(X))


def test_arguments_come_by_place_by_name_and_nested() -> None:
    def forward(pair: Any, scale: Any = None, *, rest: Mapping[str, Tensor], flip: bool) -> Any:
        first, (second, third) = pair
        total = first + second * 2 + third * 3 + rest["a"] * 5 + rest["b"] * 7
        return total.flip(0) if flip else total * scale

    def given(seed: int) -> tuple[Any, dict[str, Any]]:
        draw = torch.Generator().manual_seed(seed)
        one = [torch.randn(3, generator=draw) for _ in range(5)]
        return (one[0], [one[1], one[2]]), {"rest": {"a": one[3], "b": one[4]}, "flip": True}

    pair, names = given(0)
    found = compiled(forward, pair, 2.0, **names)
    pair, names = given(1)
    same(found(pair, 2.0, **dict(reversed(names.items()))), forward(pair, 2.0, **names))


def test_a_tensor_that_the_example_has_twice_is_two_inputs() -> None:
    found = compiled(lambda x, y, z: x - 2 * y + z, X, X, z=X)
    same(found(X, 3 * X, z=5 * X), X - 6 * X + 5 * X)


def test_dicts_may_have_another_order_and_nan_is_nan() -> None:
    def forward(
        pair: Mapping[str, Tensor], fill: float, rest: list[Mapping[str, Tensor]]
    ) -> Tensor:
        return (pair["a"] - pair["b"] + rest[0]["c"] * rest[0]["d"]).nan_to_num(fill)

    found = compiled(forward, {"a": X, "b": X}, float("nan"), [{"c": X, "d": X}])
    pair, rest = {"b": 2 * X, "a": X}, [{"d": X, "c": 3 * X}]
    same(found(pair, float("nan"), rest), forward(pair, float("nan"), rest))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {"flag": True}, "0 arguments by place and flag by name.*1 argument by place and flag"),
        (([X, X],), {}, "1 argument by place, and .* 1 argument by place and flag by name"),
        (([X, X],), {"flags": True}, "flags by name"),
        (([X],), {"flag": True}, "nested otherwise"),
        (((X, X),), {"flag": True}, "nested otherwise"),
        (([X, X],), {"flag": False}, "False, and the module was compiled for True"),
        (([X, X],), {"flag": 1}, "1, and the module was compiled for True"),
        (([X, X],), {"flag": X}, r"a tensor \[3\], and the module was compiled for True"),
        (([X, X[:2]],), {"flag": True}, r"\[2\], and the module was compiled for fp32 \[3\]"),
        (([X, 3.0],), {"flag": True}, "type float, not a tensor"),
    ],
)
def test_a_call_of_another_signature_is_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    found = compiled(lambda pair, flag: pair[0] + pair[1] if flag else pair[0], [X, X], flag=True)
    same(found([X, X], flag=True), 2 * X)
    with pytest.raises(InvalidInput, match=message):
        found(*args, **kwargs)


def test_an_example_names_the_argument_that_no_program_takes() -> None:
    with pytest.raises(InvalidInput, match=r"example_kwargs\['pair'\]\[1\] is of type object"):
        compiled(lambda pair: pair[0], pair=(X, object()))


def test_weights_are_not_taken_for_inputs_outputs_or_constants_of_their_name() -> None:
    """Each of these names was one of the program's own."""

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.full((3,), 5.0))
            self.output = nn.ParameterList([torch.full((3,), 7.0)])
            self.add = nn.ParameterList([torch.full((3,), float(one)) for one in range(4)])
            self.constant = nn.ParameterList([torch.full((3,), 11.0)])
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: Tensor, rank: Tensor, total: Tensor) -> Any:
            self.total.add_(total)
            first = x + self.x + torch.tensor([1.0, 2.0, 4.0])
            return first * self.output[0] + self.add[1] * self.constant[0], rank * 2, self.total

    whole = Module()
    found = compile_module(Module, (X, X, X), weights=whole.state_dict())
    for _ in range(2):
        same(found(X, X, X), whole(X, X, X))


def test_a_model_of_transformers_gives_its_output_class() -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    whole = BertModel(config).eval()
    inputs = {
        "input_ids": torch.randint(0, 50, (2, 7)),
        "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
    }
    weights = whole.state_dict()
    found = compile_module(lambda: BertModel(config), (), example_kwargs=inputs, weights=weights)
    with torch.inference_mode():
        expected = whole(**inputs)
    ours = found(**inputs)
    assert isinstance(ours, BaseModelOutputWithPoolingAndCrossAttentions)
    assert torch.allclose(ours.last_hidden_state, expected.last_hidden_state, atol=1e-4)
    assert torch.allclose(ours.pooler_output, expected.pooler_output, atol=1e-4)
