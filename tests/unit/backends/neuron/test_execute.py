"""What all cores compute in one call is what each would alone, and what torch computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_variants import VARIANTS, library_of
from torch import Tensor

from ridgeline_backends.cpu.kernels.library import Library, library
from ridgeline_backends.models.rope import rotate
from ridgeline_backends.neuron.execute.linear import Scratch, prepare
from ridgeline_backends.neuron.execute.native_attention import attend_native
from ridgeline_backends.neuron.execute.native_rows import norm_native, put_native, turn_native
from ridgeline_backends.neuron.program import ElementType

few = settings(max_examples=8, deadline=None)


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest) -> Iterator[Library]:
    current = library()
    before = current.variant if current else ""
    yield library_of(request.param)
    if current:
        current.use(before)


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
    together = prepare(parts, Scratch())
    alone = [prepare([part], Scratch()) for part in parts]
    spread = together.multiply(x, spread=True)
    same = together.multiply(x[0], spread=False)
    for core in range(cores):
        assert torch.equal(spread[core], alone[core].multiply(x[core], spread=False))
        assert torch.equal(same[core], alone[core].multiply(x[0], spread=False))
        exact = x[core].bfloat16().double() if dtype is torch.bfloat16 else x[core].double()
        expected = exact @ parts[core].double().T
        assert torch.allclose(spread[core].double(), expected, rtol=0.02, atol=0.3)


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
    draw = torch.Generator().manual_seed(dim * width + group)
    entries, slots = 70, 3
    k = torch.randn(slots, kv_heads, entries, dim, generator=draw).to(kept)
    v = torch.randn(slots, kv_heads, entries, width, generator=draw).to(kept)
    places = torch.tensor([[0], [69], [-1], [33], [8]])
    owners = torch.tensor([2, 0, 1, 0, 1])
    q = torch.randn(5, 1, kv_heads * group, dim, generator=draw)

    def attend(rows: list[int], dtype: ElementType = ElementType.FP32) -> Tensor:
        return attend_native(
            kernels, q[rows], k, v, places[rows], owners[rows], Scratch(),
            scale=0.5, cap=cap, window=window, dtype=dtype,
        )  # fmt: skip

    found = attend([0, 1, 2, 3, 4])
    rounding = attend([0, 1, 2, 3, 4], ElementType.BF16)
    for row in range(5):
        assert torch.equal(attend([row])[0], found[row])
        position = int(places[row])
        if position < 0:
            assert not found[row].any()
            continue
        slot = owners[row]
        expected = exact_attention(q[row, 0], k[slot], v[slot], position, window, cap)
        assert torch.allclose(found[row, 0].double(), expected, atol=1e-4)
        assert torch.allclose(rounding[row, 0].double(), expected, atol=0.05)
    assert not torch.equal(rounding, found), "shares were not rounded"


@few
@given(
    rows=st.integers(1, 5),
    heads=st.integers(1, 3),
    half=st.integers(1, 33),
    rest=st.integers(0, 5),
    kept=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_rows_are_normed_turned_and_kept_as_torch_does_it(
    kernels: Library, rows: int, heads: int, half: int, rest: int, kept: torch.dtype
) -> None:
    draw = torch.Generator().manual_seed(rows * half + rest)
    dim = 2 * half + rest
    x = torch.randn(2, rows, heads, dim, generator=draw)
    weight = torch.randn(dim, generator=draw)
    normed = norm_native(kernels, x, weight, 1e-5)
    assert torch.allclose(normed, torch.nn.functional.rms_norm(x, (dim,), weight, 1e-5), atol=1e-5)
    assert torch.equal(norm_native(kernels, x[1:, :1], weight, 1e-5), normed[1:, :1])
    positions = torch.randint(-1, 9, (2, rows), generator=draw)
    cos, sin = (torch.randn(9, 2 * half, generator=draw) for _ in range(2))
    turned = turn_native(kernels, x, positions, cos, sin)
    seen = positions.clamp(min=0)
    expected = rotate(x, cos[seen][:, :, None], sin[seen][:, :, None])
    assert torch.equal(turned, expected)
    cache, slots = torch.zeros(3, heads, 9, dim, dtype=kept), torch.tensor([2, 0])
    x[0, 0, 0, 0] = torch.nan
    put_native(kernels, cache, x, positions, slots)
    by_hand = torch.zeros_like(cache)
    for batch in range(2):
        for row in range(rows):
            if positions[batch, row] >= 0:
                place = by_hand[slots[batch], :, positions[batch, row]]
                place.copy_(x[batch, row].nan_to_num())
    assert torch.equal(cache, by_hand)
