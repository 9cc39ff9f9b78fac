"""The CPU backend: plans that add up, linear layers and attention that ignore their neighbours."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_backends.base import Chunk, LoadSpec
from ridgeline_backends.cpu.attention import AttentionRule, KVCache, StepAttention
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cpu.linear import _candidates, _fixed, _row_independent, choose_form
from ridgeline_backends.errors import DoesNotFit, UnsupportedModel
from ridgeline_backends.models.reader import read_json

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def test_a_plan_counts_weights_and_kv():
    plan = CpuBackend().plan(SMOLLM2, LoadSpec(dtype="fp32", max_model_len=1024, max_num_seqs=4))
    assert plan.fits
    # 134.5M parameters and the rope tables: a tied embedding is there once.
    assert plan.memory.weights == (134_515_008 + 2 * 1024 * 64) * 4
    assert plan.memory.kv == 4 * 1024 * 46_080
    assert plan.kv_blocks == 4 * 1024 // 16
    half = CpuBackend().plan(SMOLLM2, LoadSpec(dtype="bf16", max_model_len=1024, max_num_seqs=4))
    assert half.memory.kv == 4 * 1024 * 23_040
    spec = LoadSpec(dtype="bf16", max_model_len=1024, max_num_seqs=4, quantize="int8")
    eighth = CpuBackend().plan(SMOLLM2, spec)
    # A table of 2 bytes a number beside matrices of 1.
    assert half.memory.weights - eighth.memory.weights == 134_479_872 - 2 * 49152 * 576


def test_without_kernels_the_plan_counts_more_and_says_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
):
    native = CpuBackend().plan(SMOLLM2, LoadSpec(max_model_len=1024))
    monkeypatch.setattr("ridgeline_backends.cpu.backend.library", lambda: None)
    plain = CpuBackend().plan(SMOLLM2, LoadSpec(max_model_len=1024))
    assert plain.fits
    assert plain.memory.weights > native.memory.weights
    assert "install gcc" in plain.notes[0]
    refused = CpuBackend().plan(SMOLLM2, LoadSpec(max_model_len=1024, quantize="int8"))
    assert "native kernels" in refused.refusals[0]


def test_what_does_not_fit_is_refused_with_reasons(monkeypatch: pytest.MonkeyPatch):
    backend = CpuBackend()
    long = backend.plan(SMOLLM2, LoadSpec(max_model_len=9000))
    assert "9000" in long.refusals[0]
    assert "8192" in long.refusals[0]
    tight = backend.plan(SMOLLM2, LoadSpec(kv_cache_bytes=1_000_000))
    assert "KV memory" in tight.refusals[0]
    monkeypatch.setattr("ridgeline_backends.cpu.backend.machine_memory", lambda: 10**8)
    small = backend.plan(SMOLLM2, LoadSpec(max_model_len=256))
    assert not small.fits
    assert "100000000" in small.refusals[-1]


def test_a_refused_plan_is_not_compiled(make_llama):  # type: ignore[no-untyped-def]
    model_dir = make_llama()
    backend = CpuBackend()
    plan = backend.plan(read_json(model_dir / "config.json"), LoadSpec(max_model_len=100_000))
    with pytest.raises(DoesNotFit, match="100000"):
        backend.compile(model_dir, plan)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UnsupportedModel, match="fp16"):
        CpuBackend().plan(SMOLLM2, LoadSpec(dtype="fp16"))  # type: ignore[arg-type]


def test_the_default_kv_memory_has_room_for_one_whole_context():
    plan = CpuBackend().plan(SMOLLM2, LoadSpec(max_num_seqs=64))
    assert plan.kv_blocks * 16 >= 8192
    assert plan.memory.kv <= 1 << 30


def test_the_default_kv_memory_is_as_large_as_the_weights():
    plan = CpuBackend().plan(SMOLLM2, LoadSpec(dtype="bf16", max_model_len=1024))
    assert 0 <= 134_515_008 * 2 - plan.memory.kv < plan.memory.kv // plan.kv_blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_chosen_linear_form_ignores_other_rows(dtype: torch.dtype):
    shapes = [(96, 48), (200, 576), (48, 80)]
    _, form = choose_form(shapes, dtype)
    draw = random.Random(0)
    for shape in shapes:
        weight = torch.randn(*shape)
        linear, x = form(weight), torch.randn(200, shape[1])
        whole = linear(x)
        error = (whole - x.to(dtype).float() @ weight.to(dtype).float().T).abs().max()
        assert error < (1e-3 if dtype is torch.float32 else 0.3)
        for _ in range(40):
            start = draw.randrange(199)
            end = draw.randrange(start + 1, 201)
            assert torch.equal(linear(x[start:end]), whole[start:end])


def test_the_last_resort_computes_the_same():
    weight, x = torch.randn(40, 24), torch.randn(71, 24)
    linear = _fixed(torch.float32)(weight)
    assert torch.allclose(linear(x), x @ weight.T, atol=1e-4)
    assert torch.equal(linear(x)[5:9], linear(x[5:9]))


def test_a_form_that_looks_at_other_rows_is_caught():
    def peeping(weight: torch.Tensor):  # type: ignore[no-untyped-def]
        return lambda x: x @ weight.T + (1e-6 if len(x) < 3 else 0)

    assert not _row_independent(peeping, (64, 64), torch.float32)
    assert any(
        _row_independent(form, (64, 64), torch.float32) for _, form in _candidates(torch.float32)
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_attention_is_exact_and_the_same_in_any_company(data: st.DataObject):
    """One sequence whole and alone, against the same cut into chunks among strangers."""
    heads, kv_heads = data.draw(st.sampled_from([(1, 1), (3, 1), (6, 2), (8, 8), (9, 3)]))
    dim = data.draw(st.sampled_from([8, 16, 64]))
    block_size = data.draw(st.sampled_from([4, 16, 48]))
    length = data.draw(st.integers(1, 300))
    window = data.draw(st.sampled_from([None, 1, 5, 64, 65, 100]))
    cap = data.draw(st.sampled_from([None, 2.0]))
    rule = AttentionRule(dim**-0.5, (window,), cap)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))

    def rows(count: int, width: int) -> torch.Tensor:
        return torch.randn(count, width, dim, generator=generator)

    q, k, v = rows(length, heads), rows(length, kv_heads), rows(length, kv_heads)

    def attend(cuts: list[int], strangers: list[int]) -> torch.Tensor:
        blocks_each = 400 // block_size + 1
        total = blocks_each * (1 + len(strangers))
        order = list(range(total))
        random.Random(len(cuts)).shuffle(order)
        cache = KVCache(1, kv_heads, dim, total, block_size, torch.float32)
        out = []
        tables = [
            tuple(order[i * blocks_each : (i + 1) * blocks_each]) for i in range(1 + len(strangers))
        ]
        for begin, end in zip([0, *cuts], [*cuts, length], strict=True):
            chunks = [
                Chunk(sequence_id="us", tokens=(0,) * (end - begin), start=begin, blocks=tables[0])
            ]
            for i, start in enumerate(strangers):
                chunk = Chunk(sequence_id=str(i), tokens=(0,), start=start, blocks=tables[i + 1])
                chunks.insert(i % 2 * len(chunks), chunk)
            first = sum(
                len(c.tokens) for c in chunks[: [c.sequence_id for c in chunks].index("us")]
            )
            used = sum(len(chunk.tokens) for chunk in chunks)
            batch = [rows(used, heads), rows(used, kv_heads), rows(used, kv_heads)]
            for tensor, own in zip(batch, (q, k, v), strict=True):
                tensor[first : first + end - begin] = own[begin:end]
            step = StepAttention(cache, tuple(chunks), rule)
            out.append(step(0, *batch)[first : first + end - begin])
        return torch.cat(out)

    alone = attend([], [])
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, length - 1)), max_size=5)))
    cuts = [cut for cut in cuts if cut < length]
    strangers = data.draw(st.lists(st.integers(0, 250), max_size=5))
    assert torch.equal(alone, attend(cuts, strangers))

    group = heads // kv_heads
    keys, values = (t.repeat_interleave(group, 1).double() for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), keys) * dim**-0.5
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    behind = torch.arange(length)[:, None] - torch.arange(length)
    scores.masked_fill_((behind < 0) | (behind >= (window or length)), -torch.inf)
    reference = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
    assert torch.allclose(alone.double(), reference, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_overflowed_do_not_reach_the_next_holder_of_a_block(dtype: torch.dtype):
    rule = AttentionRule(8**-0.5, (None,))

    def attend(poisoned: bool) -> torch.Tensor:
        cache = KVCache(1, 1, 8, 4, 16, dtype)
        ones = torch.ones(16, 1, 8)
        if poisoned:
            bad = Chunk(sequence_id="bad", tokens=(0,) * 16, start=0, blocks=(0,))
            nonsense = torch.full((16, 1, 8), torch.inf)
            nonsense[::2] = torch.nan
            StepAttention(cache, (bad,), rule)(0, ones, nonsense, nonsense)
        good = Chunk(sequence_id="good", tokens=(0,) * 3, start=0, blocks=(0,))
        return StepAttention(cache, (good,), rule)(0, ones[:3], ones[:3], ones[:3])

    assert torch.equal(attend(poisoned=True), attend(poisoned=False))


def test_a_limit_on_the_process_bounds_what_is_planned() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30)); "
        "from ridgeline_backends.cpu.memory import machine_memory; print(machine_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 0 < int(done.stdout) < 2**30
