"""Modules traced by torch.export: what cores compute together is what PyTorch computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ridgeline_backends.models.config import DecoderConfig, decoder_config
from ridgeline_backends.neuron.builders.architecture import dense
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.export import (
    ColumnParallelLinear,
    CompileError,
    DynamicShape,
    NotSharded,
    ParallelEmbedding,
    RowParallelLinear,
    UnsupportedOperator,
    compile_module,
    get_tensor_model_parallel_size,
    trace_module,
)
from ridgeline_backends.neuron.export.functions import rope
from ridgeline_backends.neuron.partition import KVRule, plan_heads, round_up
from ridgeline_backends.neuron.program import ElementType, Program

DEGREES = (1, 2, 4, 8)


def agrees(make: Callable[[], nn.Module], *inputs: Tensor, degrees: tuple[int, ...] = (1,)) -> None:
    """Compile what `make` makes for every degree, and compare with the module itself."""
    whole = make().eval()
    with torch.inference_mode():
        expected = whole(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for degree in degrees:
        compiled = compile_module(make, inputs, weights=whole.state_dict(), tensor_parallel=degree)
        assert compiled.program.cores == degree
        found = compiled(*inputs)
        found = found if isinstance(found, tuple) else (found,)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4), f"degree {degree}"


@dataclass(frozen=True)
class Shape:
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    layers: int
    norm: str
    activation: str
    gated: bool
    bias: bool
    causal: bool
    tied_columns: bool


class Block(nn.Module):
    """A transformer layer that shards itself, as a user of NxD writes it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        cores = get_tensor_model_parallel_size()
        self.shape = shape
        self.heads, self.kv_heads = shape.heads // cores, shape.kv_heads // cores
        hidden = shape.heads * shape.head_dim
        kv = shape.kv_heads * shape.head_dim

        def column(size: int) -> ColumnParallelLinear:
            return ColumnParallelLinear(hidden, size, bias=shape.bias, gather_output=False)

        def row(size: int) -> RowParallelLinear:
            return RowParallelLinear(size, hidden, bias=shape.bias, input_is_parallel=True)

        self.q, self.k, self.v, self.o = column(hidden), column(kv), column(kv), row(hidden)
        self.up, self.down = column(shape.inner), row(shape.inner)
        self.gate = column(shape.inner) if shape.gated else None
        norm = nn.RMSNorm if shape.norm == "rms" else nn.LayerNorm
        self.before, self.after = norm(hidden, eps=1e-5), norm(hidden, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        dim = self.shape.head_dim
        normed = self.before(x)
        q, k, v = (
            layer(normed).view(batch, length, heads, dim).transpose(1, 2)
            for layer, heads in (
                (self.q, self.heads),
                (self.k, self.kv_heads),
                (self.v, self.kv_heads),
            )
        )
        attended = F.scaled_dot_product_attention(
            q, k, v, is_causal=self.shape.causal, enable_gqa=True
        )
        x = x + self.o(attended.transpose(1, 2).reshape(batch, length, -1))
        normed = self.after(x)
        activation = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu}[self.shape.activation]
        inner = self.up(normed)
        inner = activation(inner) if self.gate is None else activation(self.gate(normed)) * inner
        return x + self.down(inner)


class Transformer(nn.Module):
    def __init__(self, shape: Shape, vocabulary: int) -> None:
        super().__init__()
        hidden = shape.heads * shape.head_dim
        self.embedding = ParallelEmbedding(
            vocabulary, hidden, shard_across_embedding=shape.tied_columns
        )
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.head = ColumnParallelLinear(hidden, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_random_transformer_is_what_pytorch_computes_at_every_allowed_degree(
    data: st.DataObject,
) -> None:
    kv_heads = data.draw(st.sampled_from([1, 2, 4, 8]))
    shape = Shape(
        heads=kv_heads * data.draw(st.sampled_from([1, 2])),
        kv_heads=kv_heads,
        head_dim=data.draw(st.sampled_from([4, 8])),
        inner=8 * data.draw(st.integers(1, 5)),
        layers=data.draw(st.integers(1, 2)),
        norm=data.draw(st.sampled_from(["rms", "layer"])),
        activation=data.draw(st.sampled_from(["silu", "gelu", "relu"])),
        gated=data.draw(st.booleans()),
        bias=data.draw(st.booleans()),
        causal=data.draw(st.booleans()),
        tied_columns=data.draw(st.booleans()),
    )
    vocabulary = 8 * data.draw(st.integers(1, 8))
    size = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 70)))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    allowed = tuple(one for one in DEGREES if shape.kv_heads % one == 0)
    agrees(
        lambda: Transformer(shape, vocabulary),
        torch.randint(0, vocabulary, size),
        degrees=allowed,
    )


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_random_mlp_is_what_pytorch_computes_at_every_degree(data: st.DataObject) -> None:
    sizes = [8 * size for size in data.draw(st.lists(st.integers(1, 6), min_size=3, max_size=5))]
    kinds = data.draw(
        st.lists(
            st.sampled_from(["column", "row", "plain"]),
            min_size=len(sizes) - 1,
            max_size=len(sizes) - 1,
        )
    )
    activations = [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.Identity()]
    chosen = [data.draw(st.sampled_from(activations)) for _ in kinds]

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for kind, a, b, activation in zip(kinds, sizes, sizes[1:], chosen, strict=False):
            layers += [
                {
                    "column": ColumnParallelLinear,
                    "row": RowParallelLinear,
                    "plain": nn.Linear,
                }[kind](a, b),
                activation,
            ]
        return nn.Sequential(*layers)

    torch.manual_seed(data.draw(st.integers(0, 99)))
    degrees = DEGREES if set(kinds) - {"plain"} else (1,)
    agrees(make, torch.randn(data.draw(st.integers(1, 9)), sizes[0]), degrees=degrees)


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.q = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.max_pool2d(F.silu(self.norm(self.conv(x))), 2)
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.q(tokens).chunk(3, -1)
        length = tokens.shape[1]
        hidden = torch.tril(torch.ones(length, length, dtype=torch.bool)).logical_not()
        scores = (q @ k.transpose(-1, -2) * 0.5).masked_fill(hidden, float("-inf"))
        mixed = torch.cat([scores.softmax(-1) @ v, tokens - 1], -1)
        values, places = mixed.topk(3)
        return (
            mixed.mean(1),
            values,
            places,
            mixed[:, 0].unsqueeze(1).expand(-1, 2, -1) / 3,
            tokens.to(torch.bfloat16).float().argmax(-1),
            (2 - tokens).exp(),
        )


def test_a_module_of_plain_operators_compiles_for_one_core() -> None:
    torch.manual_seed(0)
    agrees(Everything, torch.randn(2, 3, 16, 16))


def test_an_unsupported_operator_names_the_line_of_the_model() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            return torch.fft.fft(y).real

    with pytest.raises(UnsupportedOperator, match="NCC_EUOC002") as caught:
        compile_module(Model, (torch.randn(4),), weights={})
    assert "torch.fft.fft(y).real" in caught.value.message
    assert "test_export.py:" in caught.value.message


def test_a_shape_that_depends_on_values_is_refused_before_its_operators() -> None:
    class Chosen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0]

    with pytest.raises(DynamicShape, match=r"NCC_EMOD025.*test_export.py:\d+: return x\[x > 0\]"):
        trace_module(Chosen, (torch.randn(2, 8),))


def test_a_shape_that_depends_on_data_names_the_line_of_the_model() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(DynamicShape, match="NCC_EMOD025") as caught:
        compile_module(Model, (torch.randn(4),), weights={})
    assert "if x.sum() > 0" in caught.value.message


def test_more_than_one_core_needs_layers_that_shard_themselves() -> None:
    with pytest.raises(NotSharded, match="Nothing in Linear is cut"):
        compile_module(lambda: nn.Linear(4, 4), (torch.randn(1, 4),), weights={}, tensor_parallel=2)


def test_what_does_not_divide_is_refused_by_its_size() -> None:
    with pytest.raises(CompileError, match="output_size 6 does not divide into 4"):
        compile_module(
            lambda: ColumnParallelLinear(4, 6), (torch.randn(1, 4),), weights={}, tensor_parallel=4
        )


def test_padding_makes_it_divide() -> None:
    torch.manual_seed(0)
    agrees(lambda: ColumnParallelLinear(4, 6, pad=True), torch.randn(3, 4), degrees=(1, 4))


class Decoder(nn.Module):
    """A prompt through a Llama of parallel layers, as the builder writes it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        cores = get_tensor_model_parallel_size()
        self.config = config
        self.heads = plan_heads(config.heads, config.kv_heads, cores, KVRule.REPLICATE_TO_TP_DEGREE)
        hidden, dim = config.hidden, config.head_dim
        self.sizes = [
            self.heads.queries_per_core * dim,
            self.heads.keys_per_core * dim,
            self.heads.keys_per_core * dim,
        ]

        def column(own: int, *, bias: bool = False) -> ColumnParallelLinear:
            return ColumnParallelLinear(hidden, own * cores, bias=bias, gather_output=False)

        def row(own: int, *, bias: bool = False) -> RowParallelLinear:
            return RowParallelLinear(own * cores, hidden, bias=bias, input_is_parallel=True)

        inner = round_up(config.intermediate, cores) // cores
        self.embedding = ParallelEmbedding(config.vocab_size, hidden, shard_across_embedding=True)
        self.layers = nn.ModuleList()
        for _ in range(config.layers):
            layer = nn.Module()
            layer.before = nn.RMSNorm(hidden, config.norm_eps)
            layer.qkv = column(sum(self.sizes), bias=config.qkv_bias)
            layer.q_norm = nn.RMSNorm(dim, config.norm_eps) if config.qk_norm else None
            layer.k_norm = nn.RMSNorm(dim, config.norm_eps) if config.qk_norm else None
            layer.o = row(self.sizes[0], bias=config.o_bias)
            layer.after = nn.RMSNorm(hidden, config.norm_eps)
            layer.gate_up, layer.down = column(2 * inner), row(inner)
            self.layers.append(layer)
        self.norm = nn.RMSNorm(hidden, config.norm_eps)
        self.head = ColumnParallelLinear(
            hidden, round_up(config.vocab_size, cores), bias=False, gather_output=False
        )

    def forward(self, ids: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.embedding(ids)
        lead = ids.shape
        for layer in self.layers:
            parts = layer.qkv(layer.before(x)).split(self.sizes, -1)
            q, k, v = (part.reshape(*lead, -1, self.config.head_dim) for part in parts)
            if layer.q_norm is not None:
                q, k = layer.q_norm(q), layer.k_norm(k)
            q, k = rope(q, positions, cos, sin), rope(k, positions, cos, sin)
            attended = F.scaled_dot_product_attention(
                *(one.transpose(1, 2) for one in (q, k, v)), is_causal=True, enable_gqa=True
            )
            x = x + layer.o(attended.transpose(1, 2).reshape(*lead, -1))
            gate, up = layer.gate_up(layer.after(x)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        return self.head(self.norm(x))


BUILT_ALONE = ("kv_write",)
"""What a builder's list has beside: a module that takes a prompt keeps nothing."""


@pytest.mark.parametrize("degree", [1, 4])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("LlamaForCausalLM", {}),
        ("LlamaForCausalLM", {"attention_bias": True}),
        ("Qwen2ForCausalLM", {}),
        ("Qwen3ForCausalLM", {"attention_bias": False}),
        ("MistralForCausalLM", {"sliding_window": None}),
    ],
)
def test_both_front_ends_write_the_same_list(
    family: str, changes: dict[str, object], degree: int
) -> None:
    """Kind by kind: as many operations, FLOPs, bytes read and written; collectives too."""
    config = decoder_config(
        {
            "architectures": [family],
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 80,
            "vocab_size": 200,
            "max_position_embeddings": 64,
            "tie_word_embeddings": False,
            **changes,
        }
    )
    neuron = NeuronConfig(
        tp_degree=degree, seq_len=64, torch_dtype=ElementType.FP32, fused_qkv=True
    )
    built = decoder_program(
        dense(config), neuron, phase=Phase.PROMPT_SCORING, bucket=32, rules=NXDI
    )
    tables = torch.zeros(64, config.rotary_dim), torch.zeros(64, config.rotary_dim)
    ids = torch.zeros(1, 32, dtype=torch.int32)
    traced = trace_module(lambda: Decoder(config), (ids, ids, *tables), tensor_parallel=degree)

    def counted(program: Program) -> Counter[tuple[str, int, int, int]]:
        return Counter(
            {
                place: times
                for place, times in _totals(program).items()
                if place[0] not in BUILT_ALONE
            }
        )

    assert counted(traced) == counted(built)


def _totals(program: Program) -> Counter[tuple[str, int, int, int]]:
    found: Counter[tuple[str, int, int, int]] = Counter()
    for one, times in program.operations():
        if one.attributes.moves_data:
            found[one.kind, one.flops, sum(one.read_bytes), one.written_bytes] += times
    return found
