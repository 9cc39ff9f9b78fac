"""What all cores compute in one call is what each would alone, and what torch computes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_variants import VARIANTS, library_of
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import Library, library
from ridgeline_backends.models.arithmetic import gelu_tanh, silu
from ridgeline_backends.models.rope import rotate
from ridgeline_backends.neuron import operations as ops
from ridgeline_backends.neuron.execute.linear import Matrices, Scratch, prepare
from ridgeline_backends.neuron.execute.native_kinds import Site, emit
from ridgeline_backends.neuron.execute.run_builder import RunBuilder
from ridgeline_backends.neuron.execute.values import Value
from ridgeline_backends.neuron.program import ElementType, Form, OperationKind

few = settings(max_examples=8, deadline=None)
BF16, FP32 = ElementType.BF16, ElementType.FP32


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest) -> Iterator[Library]:
    current = library()
    before = current.variant if current else ""
    yield library_of(request.param)
    if current:
        current.use(before)


class Poisoned(Scratch):
    """Full of no-numbers before every call: nothing may depend on what was there."""

    def address(self, size: int) -> int:
        address = super().address(size)
        ctypes.memset(address, 0xFF, size)
        return address


class Program:
    """Operations by the kernels, for `cores` cores."""

    def __init__(self, kernels: Library, cores: int = 1) -> None:
        self._kernels = kernels
        self._builder = RunBuilder(cores)

    def add(
        self,
        kind: OperationKind,
        *inputs: Value | Tensor,
        dtype: ElementType = FP32,
        shape: tuple[int, ...] | None = None,
        matrices: Matrices | None = None,
    ) -> Value:
        """A tensor is the same on all cores. `shape`: the output's, if not the first input's."""
        values = [
            one if isinstance(one, Value) else Value.resident(one, spread=False) for one in inputs
        ]
        form = Form(values[0].shape if shape is None else shape, dtype)
        outputs = emit(kind, values, Site(self._builder, (form,), matrices))
        assert outputs is not None, "torch would compute it"
        return outputs[0]

    def run(self, *wanted: Value) -> tuple[Tensor, ...]:
        return self._builder.finish(self._kernels, Poisoned(), wanted)([])


def spread(tensor: Tensor) -> Value:
    """What differs between cores: [cores, ...]."""
    return Value.resident(tensor, spread=True)


def rounded(x: Tensor, dtype: ElementType) -> Tensor:
    return x.bfloat16().float() if dtype is BF16 else x


@few
@given(
    cores=st.integers(2, 4),
    rows=st.integers(1, 9),
    out=st.integers(1, 70),
    size=st.integers(1, 130),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_products_of_all_cores_are_those_of_each_alone(
    cores: int, rows: int, out: int, size: int, dtype: torch.dtype
) -> None:
    draw = torch.Generator().manual_seed(rows * out + size)
    parts = [torch.randn(out, size, generator=draw).to(dtype) for _ in range(cores)]
    x = torch.randn(cores, rows, size, generator=draw)
    together = prepare(parts, Scratch(), exact=False)
    alone = [prepare([part], Scratch(), exact=False) for part in parts]
    apart = together.multiply(x, spread=True)
    same = together.multiply(x[0], spread=False)
    for core in range(cores):
        assert torch.equal(apart[core], alone[core].multiply(x[core], spread=False))
        assert torch.equal(same[core], alone[core].multiply(x[0], spread=False))
        exact = x[core].bfloat16().double() if dtype is torch.bfloat16 else x[core].double()
        expected = exact @ parts[core].double().T
        assert torch.allclose(apart[core].double(), expected, rtol=0.02, atol=0.3)


@few
@given(
    cores=st.integers(2, 3),
    rows=st.sampled_from([1, 3, 49, 60]),
    out=st.integers(1, 70),
    size=st.integers(1, 130),
    kept=st.sampled_from([torch.float32, torch.bfloat16]),
    dtype=st.sampled_from([FP32, BF16]),
    alike=st.booleans(),
)
def test_a_product_is_scaled_then_biased_then_rounded(
    kernels: Library,
    cores: int,
    rows: int,
    out: int,
    size: int,
    kept: torch.dtype,
    dtype: ElementType,
    alike: bool,
) -> None:
    draw = torch.Generator().manual_seed(rows * out + size)
    parts = [torch.randn(out, size, generator=draw).to(kept) for _ in range(cores)]
    x = torch.randn(cores, rows, size, generator=draw).bfloat16().float()
    bias, scale = torch.randn(cores, out, generator=draw), torch.randn(out, generator=draw)
    program = Program(kernels, cores)
    found = program.add(
        ops.Matmul(biased=True, scaled=True),
        x[0] if alike else spread(x),
        torch.empty(0),
        spread(bias),
        scale,
        dtype=dtype,
        shape=(rows, out),
        matrices=prepare(parts, Scratch(), exact=False),
    )
    (result,) = program.run(found)
    for core in range(cores):
        own = x[0 if alike else core].double()
        exact = own @ parts[core].double().T * scale + bias[core]
        within = 0.01 if dtype is BF16 else 1e-5
        assert torch.allclose(result[core].double(), exact, rtol=within, atol=1e-4)
        assert torch.equal(result[core], rounded(result[core], dtype))


def exact_attention(
    q: Tensor, k: Tensor, v: Tensor, position: int, window: int | None, cap: float | None
) -> Tensor:
    """One query [heads, dim] in float64 over keys and values [KV heads, entries, dim or width]."""
    first = 0 if window is None else max(0, position + 1 - window)
    group = len(q) // len(k)
    keys = k[:, first : position + 1].double().repeat_interleave(group, 0)
    values = v[:, first : position + 1].double().repeat_interleave(group, 0)
    scores = 0.5 * (keys @ q.double()[..., None])[..., 0]
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    return (scores.softmax(-1)[:, None] @ values)[:, 0]


@few
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    dim=st.sampled_from([4, 8, 20, 64]),
    width=st.sampled_from([4, 33, 64]),
    window=st.sampled_from([None, 5]),
    cap=st.sampled_from([None, 2.0]),
    kept=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_attention_is_exact_and_the_same_in_any_company(
    kernels: Library,
    kv_heads: int,
    group: int,
    dim: int,
    width: int,
    window: int | None,
    cap: float | None,
    kept: torch.dtype,
) -> None:
    """On two cores, whose caches differ."""
    draw = torch.Generator().manual_seed(dim * width + group)
    entries, slots = 70, 3
    k = torch.randn(2, slots, kv_heads, entries, dim, generator=draw).to(kept)
    v = torch.randn(2, slots, kv_heads, entries, width, generator=draw).to(kept)
    places = torch.tensor([[0], [69], [-1], [33], [8]])
    owners = torch.tensor([2, 0, 1, 0, 1])
    q = torch.randn(2, 5, 1, kv_heads * group, dim, generator=draw)

    def attend(rows: list[int], dtype: ElementType = FP32) -> Tensor:
        program = Program(kernels, 2)
        kind = ops.CachedAttention(0.5, entries, window, cap)
        own = spread(q[:, rows].contiguous()), spread(k), spread(v)
        shape = (len(rows), 1, kv_heads * group, width)
        found = program.add(kind, *own, places[rows], owners[rows], dtype=dtype, shape=shape)
        return program.run(found)[0]

    found = attend([0, 1, 2, 3, 4])
    rounding = attend([0, 1, 2, 3, 4], BF16)
    for row in range(5):
        assert torch.equal(attend([row])[:, 0], found[:, row])
        position, slot = int(places[row]), owners[row]
        for core in range(2):
            if position < 0:
                assert not found[core, row].any()
                continue
            own = k[core, slot], v[core, slot]
            expected = exact_attention(q[core, row, 0], *own, position, window, cap)
            assert torch.allclose(found[core, row, 0].double(), expected, atol=1e-4)
            assert torch.allclose(rounding[core, row, 0].double(), expected, atol=0.05)
    assert torch.equal(rounding, rounded(rounding, BF16))
    shares_too = rounded(found, BF16)
    assert not torch.equal(rounding, shares_too), "shares were not rounded"


@few
@given(
    rows=st.integers(1, 5),
    heads=st.integers(1, 3),
    half=st.integers(1, 33),
    rest=st.integers(0, 5),
    kept=st.sampled_from([torch.float32, torch.bfloat16]),
    dtype=st.sampled_from([FP32, BF16]),
)
def test_rows_are_normed_turned_and_kept_as_torch_does_it(
    kernels: Library,
    rows: int,
    heads: int,
    half: int,
    rest: int,
    kept: torch.dtype,
    dtype: ElementType,
) -> None:
    draw = torch.Generator().manual_seed(rows * half + rest)
    dim = 2 * half + rest
    x = torch.randn(2, rows, heads, dim, generator=draw)
    weight = torch.randn(dim, generator=draw)
    positions = torch.randint(-1, 9, (2, rows), generator=draw)
    slots, cache = torch.tensor([2, 0]), torch.zeros(3, heads, 9, dim, dtype=kept)
    cos, sin = (torch.randn(9, 2 * half, generator=draw) for _ in range(2))
    program = Program(kernels)
    normed = program.add(ops.RMSNorm(1e-5), x, weight, dtype=dtype)
    turned = program.add(ops.Rope(), normed, positions, cos, sin, dtype=dtype)
    program.add(ops.KVWrite(), cache, turned, positions, slots)
    norms, turns = program.run(normed, turned)
    exact = torch.nn.functional.rms_norm(x, (dim,), weight, 1e-5)
    assert torch.allclose(
        norms, rounded(exact, dtype), atol=1e-5, rtol=0.01 if dtype is BF16 else 0
    )
    seen = positions.clamp(min=0)
    expected = rotate(norms, cos[seen][:, :, None], sin[seen][:, :, None])
    assert torch.equal(turns, rounded(expected, dtype))
    by_hand = torch.zeros_like(cache)
    for batch in range(2):
        for row in range(rows):
            if positions[batch, row] >= 0:
                by_hand[slots[batch], :, positions[batch, row]] = turns[batch, row].to(kept)
    assert torch.equal(cache, by_hand)


def test_what_is_kept_is_finite(kernels: Library) -> None:
    """Else it would reach the next holder of the slot: zero times infinity is no number."""
    cache = torch.ones(1, 1, 1, 3, dtype=torch.bfloat16)
    new = torch.tensor([torch.nan, torch.inf, -torch.inf]).view(1, 1, 1, 3)
    program = Program(kernels)
    program.add(ops.KVWrite(), cache, new, torch.zeros(1, 1).long(), torch.zeros(1).long())
    program.run()
    assert torch.equal(
        cache.flatten(), new.flatten().nan_to_num().clamp(-3.3895e38, 3.3895e38).bfloat16()
    )


@few
@given(
    cores=st.integers(2, 4),
    rows=st.integers(1, 4),
    size=st.integers(1, 37),
    function=st.sampled_from(["silu", "gelu_tanh"]),
    dtype=st.sampled_from([FP32, BF16]),
)
def test_a_chain_of_rows_gives_what_torch_gives(
    kernels: Library, cores: int, rows: int, size: int, function: Any, dtype: ElementType
) -> None:
    """Each of these reads what the one before has written, in one phase."""
    draw = torch.Generator().manual_seed(rows * size)
    x = torch.randn(cores, rows, 2 * size, generator=draw)
    bias, weight = torch.randn(size, generator=draw), torch.randn(size, generator=draw)
    x[0, 0, 0] = 100.0
    program = Program(kernels, cores)
    gated = program.add(ops.Gated(function), spread(x), dtype=dtype, shape=(rows, size))
    summed = program.add(ops.AllReduce(ops.Group(cores)), gated, dtype=dtype)
    added = program.add(ops.Binary("add"), summed, bias, dtype=dtype)
    normed = program.add(ops.RMSNorm(1e-5), added, weight, dtype=dtype)
    gates, sums, plus, norms = program.run(gated, summed, added, normed)
    gate, up = x.double().chunk(2, -1)
    exact = (silu if function == "silu" else gelu_tanh)(gate) * up
    within = 0.01 if dtype is BF16 else 1e-5
    assert torch.allclose(gates.double(), exact, rtol=within, atol=1e-6)
    total = gates[0]
    for part in gates[1:]:
        total = total + part
    assert torch.equal(sums, rounded(total, dtype))
    assert torch.equal(plus, rounded(sums + bias, dtype))
    expected = torch.nn.functional.rms_norm(plus, (size,), weight, 1e-5)
    assert torch.allclose(norms, expected, rtol=within, atol=1e-5)
    (alone,) = program.run(normed)
    assert torch.equal(alone, norms), "its inputs' memory was given away too early"


def test_numbers_are_rounded_as_torch_rounds_them(kernels: Library) -> None:
    """Ties, the smallest, the largest, and what is none."""
    words = torch.tensor(
        [0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0x7F7F_FFFF, 1, 0x7F80_0001, 0x7F80_0000]
    )
    x = words.int().view(torch.float32)
    x = torch.cat([x, -x])
    program = Program(kernels)
    (found,) = program.run(program.add(ops.Binary("add"), x, torch.zeros_like(x), dtype=BF16))
    assert torch.equal(found.nan_to_num(7.0), x.bfloat16().float().nan_to_num(7.0))


@few
@given(rows=st.integers(1, 9), data=st.data())
def test_memory_is_shared_by_what_does_not_live_at_once_alone(
    rows: int, data: st.DataObject
) -> None:
    """Sums of sums, some of them long before they are read."""
    kernels = library_of("plain")
    draw = torch.Generator().manual_seed(rows)
    first = torch.randn(rows, 33, generator=draw)
    program = Program(kernels)
    made: list[Value | Tensor] = [first]
    expected = [first]
    for _ in range(data.draw(st.integers(1, 12))):
        left, right = (data.draw(st.integers(0, len(made) - 1)) for _ in range(2))
        if data.draw(st.booleans()):
            matrices = prepare([torch.eye(33)], Scratch(), exact=False)
            made.append(program.add(ops.Matmul(), made[left], torch.empty(0), matrices=matrices))
            expected.append(expected[left])
        else:
            made.append(program.add(ops.Binary("add"), made[left], made[right]))
            expected.append(expected[left] + expected[right])
    last = made[-1]
    assert isinstance(last, Value)
    assert torch.equal(program.run(last)[0], expected[-1])
