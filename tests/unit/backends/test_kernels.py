"""Every native kernel against float64, and against itself: batches, chunks, dirty memory.

Variants that this processor lacks run emulated (`kernel_variants`). All runs but those that compare
with it go through `Poisoned`, so that nothing can lean on what memory held before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_reference import (
    Multiply,
    Reference,
    exact,
    in_int8,
    random_adapter,
    random_weights,
    rounded_pairs,
)
from kernel_variants import VARIANTS, Poisoned, library_of
from torch import Tensor

from ridgeline_backends.base import Chunk
from ridgeline_backends.cpu.kernels.library import Library, library
from ridgeline_backends.cpu.kernels.packing import pack
from ridgeline_backends.cpu.native import NativeDecoder
from ridgeline_backends.models.config import DecoderConfig
from ridgeline_backends.models.decoder import DecoderWeights
from ridgeline_backends.models.rope_config import RopeConfig

BLOCK = 16
BLOCKS = 160
THREADS = 2
TYPES = (torch.float32, torch.bfloat16, torch.int8)
# Root mean squares of errors over those of logits. Measured at most 7e-7, 2e-3 and 8e-3: float32
# sums; a key, a value or a row of bfloat16 that rounds to the other side of a tie; a whole number
# of int8 that does.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.int8: 1e-1}
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module", params=VARIANTS)
def kernels(request: pytest.FixtureRequest) -> Iterator[Library]:
    current = library()
    before = current.variant if current else ""
    yield library_of(request.param, Poisoned)
    if current:
        current.use(before)


def multiply_of(kernels: Library, dtype: torch.dtype) -> Multiply:
    if dtype is torch.int8:
        return in_int8(kernels.int8.group, narrow=bool(kernels.int8.narrow))
    return rounded_pairs if (kernels.variant, dtype) == ("avx512_bf16", torch.bfloat16) else exact


def product(
    kernels: Library, x: Tensor, w: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """[rows, n] by the kernel, padding cut off."""
    packed = pack(w, dtype, bias, int8=kernels.int8)
    wide = torch.zeros(len(x), packed.k)
    wide[:, : x.shape[1]] = x
    out = torch.empty(len(x), packed.n)
    matrix = packed.struct()
    scratch = torch.empty(
        kernels.linear_scratch_bytes(matrix, len(x), THREADS) + 64, dtype=torch.uint8
    )
    aligned = -(-scratch.data_ptr() // 64) * 64
    kernels.linear(matrix, wide.data_ptr(), out.data_ptr(), len(x), THREADS, aligned)
    return out[:, : len(w)]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@few
@given(rows=st.integers(1, 100), n=st.integers(1, 150), k=st.integers(1, 700), seed=seeds)
def test_a_product_is_that_of_float64_and_of_each_row_alone(
    kernels: Library, dtype: torch.dtype, rows: int, n: int, k: int, seed: int
):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, k, generator=draw) * 10 ** torch.randn(rows, 1, generator=draw)
    w = torch.randn(n, k, generator=draw)
    bias = torch.randn(n, generator=draw) if seed % 2 else None
    found = product(kernels, x, w, bias, dtype)
    served = w.bfloat16() if dtype is torch.bfloat16 else w
    expected = multiply_of(kernels, dtype)(x.double(), served.double())
    if bias is not None:
        expected = expected + bias
    # A sum in float32 against the sizes in it; in int8 a whole number may round to the other side.
    sizes = x.double().norm(dim=1, keepdim=True) * served.double().norm(dim=1)
    slack = 5e-6 * (1 + sizes)
    if dtype is torch.int8:
        slack = slack + x.double().abs().amax(1, keepdim=True) * w.abs().max() / 127
    assert ((found - expected).abs() <= slack).all()
    row = seed % rows
    alone = product(kernels, x[row : row + 1], w, bias, dtype)
    assert torch.equal(alone[0], found[row])


@few
@given(
    rows=st.integers(1, 14),
    sizes=st.lists(st.sampled_from([0.0, 0.2, 1.0]), min_size=192, max_size=192),
    seed=seeds,
)
def test_sums_of_bytes_do_not_overflow(kernels: Library, rows: int, sizes: list[float], seed: int):
    draw = torch.Generator().manual_seed(seed)
    size = torch.tensor(sizes)
    # Each row of weights finds an activation that has the largest number wherever it has a sign.
    w = torch.randn(16, len(size), generator=draw).sign() * size
    w[0], w[1] = size, -size
    x = torch.randn(rows, len(size), generator=draw).sign()
    x[0] = 1
    found = product(kernels, x, w, None, torch.int8)
    expected = multiply_of(kernels, torch.int8)(x.double(), w.double())
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-4)


def config_of(**changes: object) -> DecoderConfig:
    """A small decoder; `group` query heads per KV head, `windows` of its two layers."""
    plain: dict[str, object] = {
        "hidden": 40,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 12,
        "intermediate": 72,
        "vocab_size": 75,
        "context_length": 1024,
        "norm_eps": 1e-5,
        "tied_head": True,
        "eos_token_ids": frozenset[int](),
        "activation": "silu",
        "attention_scale": 0.3,
        "embedding_scale": 1.0,
        "attention_softcap": None,
        "final_softcap": None,
        "qk_norm": False,
        "sandwich_norms": False,
        "zero_centred_norms": False,
        "qkv_bias": False,
        "o_bias": False,
        "windows": (None, None),
        "ropes": (RopeConfig(theta=10000.0), RopeConfig(theta=500.0)),
        "layer_rope": (0, 1),
        "rotary_dim": 12,
    }
    return DecoderConfig(**{**plain, **changes})  # type: ignore[arg-type]


@st.composite
def configs(draw: st.DrawFn) -> DecoderConfig:
    kv_heads, group = draw(st.sampled_from([(1, 1), (3, 1), (2, 3), (1, 5), (1, 13), (2, 2)]))
    head_dim = draw(st.sampled_from([6, 16, 20, 34]))
    return config_of(
        hidden=draw(st.integers(8, 90)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rotary_dim=draw(st.sampled_from([head_dim, head_dim // 4 * 2])),
        intermediate=draw(st.integers(8, 150)),
        vocab_size=draw(st.integers(20, 150)),
        tied_head=draw(st.booleans()),
        activation=draw(st.sampled_from(["silu", "gelu_tanh"])),
        embedding_scale=draw(st.sampled_from([1.0, 6.5])),
        attention_softcap=draw(st.sampled_from([None, 5.0])),
        final_softcap=draw(st.sampled_from([None, 4.0])),
        qk_norm=draw(st.booleans()),
        sandwich_norms=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        o_bias=draw(st.booleans()),
        windows=draw(st.sampled_from([(None, None), (None, 7), (33, 20)])),
    )


def decoder(
    kernels: Library, config: DecoderConfig, weights: DecoderWeights, dtype: torch.dtype
) -> NativeDecoder:
    return NativeDecoder(
        kernels,
        config,
        weights,
        dtype=dtype,
        stored=torch.float32 if dtype is torch.float32 else torch.bfloat16,
        blocks=BLOCKS,
        block_size=BLOCK,
        max_positions=1024,
        threads=THREADS,
    )


@dataclass(frozen=True, slots=True)
class Prompt:
    tokens: tuple[int, ...]
    blocks: tuple[int, ...]
    adapter: str | None = None


def prompts(config: DecoderConfig, lengths: Sequence[int], rng: random.Random) -> list[Prompt]:
    """Random tokens in blocks of random order."""
    free = rng.sample(range(BLOCKS), BLOCKS)
    return [
        Prompt(
            tuple(rng.randrange(config.vocab_size) for _ in range(length)),
            tuple(free.pop() for _ in range(-(-length // BLOCK))),
        )
        for length in lengths
    ]


def run(program: NativeDecoder, given: Sequence[Prompt], rng: random.Random | None) -> list[Tensor]:
    """Logits of each prompt, -inf for rows that were not asked for: random chunks of random prompts
    step by step; without `rng` every prompt alone, at once, all rows."""
    width = program.forward([_chunk(given[0], 0, 1)], [0]).shape[1]
    found = [torch.full((len(prompt.tokens), width), -torch.inf) for prompt in given]
    done = [0] * len(given)
    while any(at < len(p.tokens) for at, p in zip(done, given, strict=True)):
        waiting = [i for i, p in enumerate(given) if done[i] < len(p.tokens)]
        chosen = waiting[:1] if rng is None else rng.sample(waiting, rng.randint(1, len(waiting)))
        chunks, places = [], []
        for i in chosen:
            left = len(given[i].tokens) - done[i]
            # As many decodes as prompt chunks.
            count = left if rng is None else rng.choice([1, rng.randint(1, left)])
            chunks.append(_chunk(given[i], done[i], count))
            places += [(i, done[i] + row) for row in range(count)]
            done[i] += count
        rows = [r for r in range(len(places)) if rng is None or rng.random() < 0.5]
        logits = program.forward(chunks, rows)
        for row, values in zip(rows, logits, strict=True):
            i, at = places[row]
            found[i][at] = values
    return found


def _chunk(prompt: Prompt, start: int, count: int) -> Chunk:
    return Chunk(
        sequence_id="",
        tokens=prompt.tokens[start : start + count],
        start=start,
        blocks=prompt.blocks,
        adapter=prompt.adapter,
    )


def assert_same_bits(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    """In the rows that both asked for. What is no number equals nothing."""
    for a, b in zip(one, other, strict=True):
        both = ~(a.isneginf().all(1) | b.isneginf().all(1))
        assert torch.equal(a[both], b[both])


def check(
    kernels: Library,
    config: DecoderConfig,
    dtype: torch.dtype,
    lengths: Sequence[int],
    seed: int,
    *,
    adapters: bool = False,
) -> None:
    """Whole and alone it is the reference's, and cut and mixed the same bits."""
    rng = random.Random(seed)
    weights = random_weights(config, seed)
    program = decoder(kernels, config, weights, dtype)
    given = prompts(config, lengths, rng)
    named = {}
    if adapters:
        named = {f"a{r}": random_adapter(config, f"a{r}", r, seed + r) for r in (1, 20)}
        for adapter in named.values():
            program.attach(adapter)
        names = [None, *named]
        given = [replace(p, adapter=names[i % 3]) for i, p in enumerate(given)]
    alone = [run(program, [prompt], None)[0] for prompt in given]
    stored = torch.float32 if dtype is torch.float32 else torch.bfloat16
    reference = Reference(config, weights, stored, multiply_of(kernels, dtype))
    for prompt, logits in zip(given, alone, strict=True):
        adapter = named[prompt.adapter] if prompt.adapter else None
        expected = reference.logits(prompt.tokens, adapter)
        assert (logits - expected).norm() <= TOLERANCE[dtype] * expected.norm()
    assert_same_bits(run(program, given, rng), alone)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@few
@given(config=configs(), lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), seed=seeds)
def test_a_step_is_that_of_float64_however_it_is_cut(
    kernels: Library, dtype: torch.dtype, config: DecoderConfig, lengths: list[int], seed: int
):
    check(kernels, config, dtype, lengths, seed)


@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
@pytest.mark.parametrize("windows", [(None, 300), (40, 256)], ids=str)
def test_contexts_of_several_chunks_of_keys(
    kernels: Library, dtype: torch.dtype, windows: tuple[int | None, ...]
):
    check(kernels, config_of(windows=windows), dtype, [600, 257, 256, 31], 5)


@few
@given(config=configs(), lengths=st.lists(st.integers(1, 40), min_size=2, max_size=5), seed=seeds)
def test_adapters_change_the_rows_of_their_chunks_alone(
    kernels: Library, config: DecoderConfig, lengths: list[int], seed: int
):
    check(kernels, config, torch.float32, lengths, seed, adapters=True)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_scratch_and_results_held_changes_nothing(kernels: Library, dtype: torch.dtype):
    """Against memory of zeros, as a fresh process has it."""
    config = config_of(sandwich_norms=True, qk_norm=True, heads=6, head_dim=10, rotary_dim=10)
    weights = random_weights(config, 3)
    given = prompts(config, [40, 3, 17], random.Random(3))
    clean = decoder(library_of(kernels.variant), config, weights, dtype)
    poisoned = decoder(kernels, config, weights, dtype)
    mixed = random.Random(4), random.Random(4)
    clean_rows, poisoned_rows = (
        run(p, given, r) for p, r in zip((clean, poisoned), mixed, strict=True)
    )
    assert not any(rows.isneginf().all() for rows in clean_rows)
    assert_same_bits(clean_rows, poisoned_rows)


@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
@pytest.mark.parametrize("evil", [torch.nan, torch.inf, 3e38])
def test_an_overflowing_sequence_spoils_nobody_elses_answer(
    kernels: Library, dtype: torch.dtype, evil: float
):
    """Neither beside it in a step nor in the blocks that it leaves behind."""
    config = config_of(tied_head=False)
    weights = random_weights(config, 8)
    spoilt = config.vocab_size - 1
    weights.embedding[spoilt] = evil
    rng = random.Random(8)
    bad, good = prompts(config, [48, 37], rng)
    bad = replace(bad, tokens=(spoilt,) * 48)
    good = replace(good, tokens=tuple(t % spoilt for t in good.tokens))
    alone = run(decoder(kernels, config, weights, dtype), [good], None)[0]
    assert alone.isfinite().all()
    program = decoder(kernels, config, weights, dtype)
    assert not run(program, [bad], None)[0].isfinite().all() or evil == 3e38
    assert_same_bits(run(program, [good, bad], rng)[:1], [alone])
    inherited = replace(good, blocks=bad.blocks)
    assert_same_bits(run(program, [inherited], None), [alone])


def test_a_variant_that_this_processor_lacks_is_refused():
    found = library()
    if found is None:
        pytest.skip("there is neither a C compiler nor a prebuilt library")
    before = found.variant
    for variant in {*VARIANTS, "unheard_of"} - set(found.variants):
        with pytest.raises(ValueError, match=variant):
            found.use(variant)
        assert found.variant == before
    assert found.variants[-1] == "plain"
    assert found.use("plain") == "plain"
    assert found.use("") == found.variants[0]
    found.use(before)
