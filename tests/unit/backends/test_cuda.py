"""The CUDA backend with the processor in the place of a GPU: all of it but the device."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_devices import GIB, NEW, OLD, HostDevices
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ridgeline_backends.base import Artifact, Chunk, Dtype, LoadSpec, Step
from ridgeline_backends.conformance import CHECKS, Request, Subject, generate
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cuda.attention import PagedKV, Rule, choose_attention, flash, plain
from ridgeline_backends.cuda.backend import CudaBackend
from ridgeline_backends.cuda.batch import Shape, numbers, view
from ridgeline_backends.cuda.devices import CudaDevices
from ridgeline_backends.cuda.graphs import Repeated, Work, buckets
from ridgeline_backends.cuda.linear import fixed_rows
from ridgeline_backends.cuda.runner import CudaRunner
from ridgeline_backends.engine import LLMEngine, SamplingParams
from ridgeline_backends.errors import BackendUnusable, DoesNotFit
from ridgeline_backends.models.config import decoder_config
from ridgeline_backends.models.reader import read_json


def artifact_of(backend: CudaBackend | CpuBackend, model_dir: Path, **spec: object) -> Artifact:
    wanted = LoadSpec(**{"dtype": "fp32", "max_model_len": 192, "max_num_seqs": 8, **spec})  # type: ignore[arg-type]
    plan = backend.plan(read_json(model_dir / "config.json"), wanted)
    return backend.compile(model_dir, plan)


def draw(length: int, seed: int) -> tuple[int, ...]:
    chance = random.Random(seed)
    return tuple(chance.randrange(3, 199) for _ in range(length))


class Counting(Repeated):
    """Counts what is recorded and what is played."""

    def __init__(self) -> None:
        self.recorded = 0
        self.played = 0

    def record(self, work: Work) -> Work:
        self.recorded += 1

        def play() -> Tensor:
            self.played += 1
            return work()

        return play


class TestProbe:
    def test_no_gpu_here_is_said_and_never_raised(self):
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        report = CudaBackend().probe()
        assert not report.usable
        expected = "without CUDA" if torch.version.cuda is None else "no GPU"
        assert expected in report.reason

    def test_a_gpu_is_told_by_name_memory_and_driver(self):
        report = CudaBackend(HostDevices((NEW, NEW))).probe()
        assert report.usable
        assert report.device == "New (compute capability 9.0), New (compute capability 9.0)"
        assert report.memory_bytes == 48 * GIB
        assert "driver 570.1" in report.notes

    def test_a_plan_without_a_gpu_is_refused_with_the_reason(self, make_llama):  # type: ignore[no-untyped-def]
        backend = CudaBackend(HostDevices((), reason="there is none"))
        with pytest.raises(BackendUnusable, match="there is none"):
            artifact_of(backend, make_llama())

    def test_devices_are_numbered(self):
        assert CudaDevices().device(3) == torch.device("cuda:3")


class TestPlan:
    def plan(self, model_dir: Path, *gpus, **spec: object):  # type: ignore[no-untyped-def]
        config = read_json(model_dir / "config.json")
        return CudaBackend(HostDevices(gpus or (NEW,))).plan(config, LoadSpec(**spec))  # type: ignore[arg-type]

    def test_bf16_with_torchs_attention_takes_large_blocks(self, make_llama):  # type: ignore[no-untyped-def]
        plan = self.plan(make_llama())
        assert plan.fits
        assert plan.dtype is Dtype.BF16
        assert plan.spec.block_size == 256
        assert plan.notes == ()

    def test_an_old_gpu_computes_in_float32_and_the_plan_says_so(self, make_llama):  # type: ignore[no-untyped-def]
        plan = self.plan(make_llama(), OLD)
        assert plan.dtype is Dtype.FP32
        assert plan.spec.block_size == 16
        assert "compute capability 7.5" in plan.notes[0]

    def test_why_attention_is_plain(self, make_llama):  # type: ignore[no-untyped-def]
        assert "float32" in self.plan(make_llama(), dtype="fp32").notes[0]
        assert "heads of 260" in self.plan(make_llama(head_dim=260)).notes[0]

    def test_kv_memory_is_what_the_sequences_need_within_what_is_free(self, make_llama):  # type: ignore[no-untyped-def]
        folder = make_llama()
        roomy = self.plan(folder, max_num_seqs=32, max_model_len=512)
        assert roomy.kv_blocks == 32 * 2
        small = replace(NEW, free_bytes=roomy.memory.total)
        scarce = self.plan(folder, small, max_num_seqs=32, max_model_len=512)
        assert scarce.fits
        assert 2 <= scarce.kv_blocks < 64
        assert scarce.memory.total <= scarce.available_bytes
        tiny = replace(NEW, free_bytes=1 << 20)
        refused = self.plan(folder, tiny)
        assert "bytes of memory on each GPU" in refused.refusals[0]
        with pytest.raises(DoesNotFit):
            CudaBackend(HostDevices((tiny,))).compile(folder, refused)

    def test_several_gpus(self, make_llama):  # type: ignore[no-untyped-def]
        folder = make_llama()
        alone, shared = self.plan(folder), self.plan(folder, NEW, NEW, tensor_parallel=None)
        assert (alone.spec.tensor_parallel, shared.spec.tensor_parallel) == (1, 2)
        assert shared.memory.weights < alone.memory.weights * 0.8
        assert shared.memory.kv == alone.memory.kv // 2
        [few] = self.plan(folder, tensor_parallel=2).refusals
        assert "needs as many GPUs; there are 1" in few
        [odd] = self.plan(folder, NEW, NEW, NEW, tensor_parallel=3).refusals
        assert "does not divide 2 KV heads" in odd
        [lora] = self.plan(folder, NEW, NEW, tensor_parallel=2, max_adapters=1).refusals
        assert "LoRA" in lora

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ({"quantize": "int8"}, "quantize 'int8'"),
            ({"max_model_len": 1024}, "context length 512"),
            ({"max_tokens_per_step": 8}, "below max_num_seqs 32"),
            ({"kv_cache_bytes": 1}, "holds less than one sequence"),
        ],
    )
    def test_refusals(self, spec: dict[str, object], expected: str, make_llama):  # type: ignore[no-untyped-def]
        [refusal] = self.plan(make_llama(), **spec).refusals
        assert expected in refusal

    def test_an_encoder_runs_on_the_processor(self):
        config = {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": 99,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
        }
        plan = CudaBackend(HostDevices()).plan(config, LoadSpec())
        assert plan.backend == "cpu"
        assert "BertModel" in plan.notes[0]


class TestLinear:
    @settings(max_examples=30, deadline=None)
    @given(rows=st.integers(1, 300), seed=st.integers(0, 99))
    def test_a_row_has_the_same_bits_in_any_company(self, rows: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(24, 40, generator=generator)
        x = torch.randn(rows, 40, generator=generator)
        linear = fixed_rows(weight)
        whole = linear(x)
        assert whole.shape == (rows, 24)
        assert torch.allclose(whole, x @ weight.T, atol=1e-5)
        place = seed % rows
        assert torch.equal(linear(x[place : place + 1])[0], whole[place])


@st.composite
def steps(draw_: st.DrawFn) -> tuple[int, tuple[Chunk, ...]]:
    """A block size, and chunks whose sequences have blocks of their own."""
    size = draw_(st.sampled_from([4, 16, 100]))
    count = draw_(st.integers(1, 4))
    chunks = []
    free = list(range(4 * -(-150 // size)))
    draw_(st.randoms(use_true_random=False)).shuffle(free)
    for index in range(count):
        start = draw_(st.integers(0, 100))
        tokens = draw_(st.integers(1, 40))
        blocks = tuple(free.pop() for _ in range(-(-(start + tokens) // size)))
        chunks.append(
            Chunk(sequence_id=str(index), tokens=(7,) * tokens, start=start, blocks=blocks)
        )
    return size, tuple(chunks)


def documented_kernel(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    bounds: Tensor,
    key_bounds: Tensor,
    longest_chunk: int,
    longest: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor,
    block_table: Tensor,
    num_splits: int,
) -> Tensor:
    """What `varlen_attn` is documented to do, in float64."""
    assert enable_gqa
    assert num_splits == 1
    assert window_size[1] == 0
    assert {t.dtype for t in (bounds, key_bounds, seqused_k, block_table)} == {torch.int32}
    assert key_bounds.diff().tolist() == seqused_k.tolist()
    out = torch.empty_like(q)
    for n, used in enumerate(seqused_k.tolist()):
        begin, end = bounds[n : n + 2].tolist()
        assert end - begin <= longest_chunk
        assert used <= longest
        table = block_table[n].tolist()[: -(-used // keys.shape[1])]
        k = keys[table].flatten(0, 1)[:used].double()
        v = values[table].flatten(0, 1)[:used].double()
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q[begin:end].double(), k) * scale
        places = torch.arange(used - (end - begin), used)[:, None]
        seen = torch.arange(used) <= places
        if window_size[0] >= 0:
            seen &= torch.arange(used) >= places - window_size[0]
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out[begin:end] = torch.einsum("hqk,khd->qhd", weights, v).to(q.dtype)
    return out


class TestAttention:
    @settings(max_examples=40, deadline=None)
    @given(step=steps(), window=st.sampled_from([None, 5, 70]), seed=st.integers(0, 99))
    def test_both_forms_are_attention(self, step, window, seed: int):  # type: ignore[no-untyped-def]
        size, chunks = step
        rows = sum(len(chunk.tokens) for chunk in chunks)
        longest = max(chunk.start + len(chunk.tokens) for chunk in chunks)
        shape = Shape(rows, len(chunks), -(-longest // size))
        blocks = 4 * -(-150 // size)
        batch = view(
            torch.tensor(numbers(chunks, shape, size, spare=blocks)),
            shape,
            longest_chunk=max(len(chunk.tokens) for chunk in chunks),
            longest=longest,
        )
        config = replace(decoder_config(CONFIG), windows=(window, window))
        generator = torch.Generator().manual_seed(seed)
        q = torch.randn(rows, 6, 8, generator=generator)
        k, v = torch.randn(2, rows, 2, 8, generator=generator)
        found = []
        for form in (plain, flash):
            cache = PagedKV(
                config, blocks=blocks, block_size=size, dtype=torch.float32, device=q.device
            )
            for kept in cache.of(1):
                kept.copy_(torch.randn(kept.shape, generator=torch.Generator().manual_seed(3)))
            extra = {"kernel": documented_kernel} if form is flash else {}
            found.append(form(cache, Rule.of(config), batch, **extra)(1, q, k, v))
        assert torch.allclose(found[0], found[1], atol=1e-5)

    def test_torchs_kernels_are_tried_and_left_where_they_refuse(self):
        assert choose_attention(decoder_config(CONFIG), 256, torch.bfloat16, CPU) is plain

    @pytest.mark.parametrize(("error", "expected"), [(0.0, flash), (0.3, plain)])
    def test_torchs_kernels_are_taken_where_they_compute_the_same(
        self,
        error: float,
        expected: object,
        monkeypatch: pytest.MonkeyPatch,
    ):
        def kernel(*arguments: object, **named: object) -> Tensor:
            return documented_kernel(*arguments, **named) + error  # type: ignore[arg-type]

        monkeypatch.setattr(flash, "__defaults__", (kernel,))
        chosen = choose_attention(decoder_config(CONFIG), 256, torch.bfloat16, CPU)
        assert chosen is expected


CPU = torch.device("cpu")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 199,
    "max_position_embeddings": 512,
}


class TestRunner:
    def test_it_answers_as_the_cpu_backend_does(self, make_llama):  # type: ignore[no-untyped-def]
        folder = make_llama()
        params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
        requests = [Request(str(n), draw(n, n), params) for n in (1, 16, 70)]
        texts = []
        for backend in (CpuBackend(), CudaBackend(HostDevices())):
            runner = backend.load(artifact_of(backend, folder))
            answers = generate(LLMEngine(runner), requests)  # type: ignore[arg-type]
            texts.append([answers[request.id].tokens for request in requests])
        assert texts[0] == texts[1]

    def test_steps_of_decodes_are_recorded_once_for_each_bucket(self, make_llama):  # type: ignore[no-untyped-def]
        backend, recorder = CudaBackend(HostDevices()), Counting()
        artifact = artifact_of(backend, make_llama())
        params = SamplingParams(max_tokens=10, temperature=0, ignore_eos=True)
        requests = [Request(str(n), draw(5 + n, n), params) for n in range(3)]
        expected = generate(LLMEngine(CudaRunner(artifact, HostDevices())), requests)
        runner = CudaRunner(artifact, HostDevices(), recorder=recorder)
        for _ in range(2):
            answers = generate(LLMEngine(runner), requests)
            assert [a.tokens for a in answers.values()] == [a.tokens for a in expected.values()]
        # Batches of three go into the bucket of four; prompts are not recorded.
        assert recorder.recorded == 1
        assert recorder.played >= 16

    def test_buckets_end_with_the_largest_batch(self):
        assert buckets(1) == (1,)
        assert buckets(20) == (1, 2, 4, 8, 16, 20)
        assert buckets(32) == (1, 2, 4, 8, 16, 24, 32)

    def test_no_block_of_a_sequence_is_touched_by_what_fills_a_batch_up(self, make_llama):  # type: ignore[no-untyped-def]
        backend = CudaBackend(HostDevices())
        runner = CudaRunner(artifact_of(backend, make_llama()), HostDevices())
        tokens = draw(33, 1)
        whole = runner.logits(
            Step((Chunk(sequence_id="a", tokens=tokens, start=0, blocks=(0, 1, 2)),))
        )
        runner.logits(Step((Chunk(sequence_id="a", tokens=tokens[:30], start=0, blocks=(0, 1)),)))
        for place in (30, 31, 32):
            others = [
                Chunk(sequence_id=f"{n}", tokens=(5,), start=0, blocks=(10 + n,)) for n in range(2)
            ]
            own = Chunk(
                sequence_id="a", tokens=tokens[place : place + 1], start=place, blocks=(0, 1, 2)
            )
            assert torch.equal(runner.logits(Step((own, *others)))[0], whole[place])


@pytest.fixture(scope="module")
def subject(make_llama) -> Subject:  # type: ignore[no-untyped-def]
    return Subject(CudaBackend(HostDevices()), make_llama(), "fp32", new_tokens=10)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_output_depends_on_the_sequence_alone(check: Callable[[Subject], None], subject: Subject):
    check(subject)
