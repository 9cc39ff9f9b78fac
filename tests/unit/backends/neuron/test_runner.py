"""The neuron backend as any other: conformance at every degree, and the processor's own answers."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from random_models import save_random
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ridgeline.errors import InvalidInput
from ridgeline_backends.base import (
    Backend,
    Chunk,
    LoadSpec,
    Plan,
    SampleRequest,
    Step,
)
from ridgeline_backends.conformance import CHECKS, CONTEXT, Subject, generate
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.cpu.runner import CpuRunner
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.errors import DoesNotFit
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.neuron.backend import NeuronBackend
from ridgeline_backends.neuron.faults import NeuronRuntimeError
from ridgeline_backends.neuron.plan import NeuronPlan
from ridgeline_backends.neuron.runner import NeuronRunner

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}


def backend(tp: int, **settings: Any) -> NeuronBackend:
    return NeuronBackend("inf2.48xlarge", {"tp_degree": tp, **settings})


@pytest.mark.parametrize(("tp", "dtype"), [(1, "bf16"), (2, "fp32"), (4, "bf16"), (8, "fp32")])
def test_conformance(make_llama: Any, dtype: Any, tp: int) -> None:
    """One layer: what the checks vary is the batch, and layers multiply their time alone."""
    model = make_llama(num_hidden_layers=1)
    subject = Subject(backend(tp), model, dtype, new_tokens=8)
    for check in CHECKS:
        check(subject)


def answers(device: Backend, model: Path, dtype: Any) -> dict[str, list[int]]:
    subject = Subject(device, model, dtype)
    greedy = [one for one in subject.requests if one.params.temperature == 0]
    return {name: one.tokens for name, one in generate(subject.engine(), greedy).items()}


FAMILIES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel], dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2, biased": (Qwen2Config, Qwen2ForCausalLM, {}),
    "gemma3, norms everywhere and windows": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"num_hidden_layers": 3, "sliding_window": 40, "sliding_window_pattern": 2},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_in_fp32_every_degree_answers_as_the_processor_does(tmp_path: Path, family: str) -> None:
    config, kind, changes = FAMILIES[family]
    sizes = {
        "vocab_size": 131,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 8,
        "max_position_embeddings": CONTEXT,
    }
    save_random(kind, config(**{**sizes, **changes}), tmp_path)
    expected = answers(CpuBackend(), tmp_path, "fp32")
    for tp in (1, 2, 4, 8):
        assert answers(backend(tp), tmp_path, "fp32") == expected, f"at degree {tp}"


def logits(device: Backend, model: Path, dtype: Any, tokens: tuple[int, ...]) -> torch.Tensor:
    spec = LoadSpec(dtype=dtype, max_model_len=CONTEXT, max_num_seqs=1)
    plan = device.plan(read_json(model / "config.json"), spec)
    runner = device.load(device.compile(model, plan))
    assert isinstance(runner, CpuRunner | NeuronRunner)
    blocks = tuple(range(CONTEXT // 16)) if isinstance(runner, CpuRunner) else (0,)
    return runner.logits(Step((Chunk(sequence_id="a", tokens=tokens, start=0, blocks=blocks),)))


@pytest.mark.parametrize("settings", [{}, {"vocab_parallel": True}, {"fused_qkv": False}])
@pytest.mark.parametrize("tp", [1, 2, 8])
def test_logits_in_bf16_are_within_the_rounding_of_the_exact_ones(
    make_llama: Any, tp: int, settings: dict[str, Any]
) -> None:
    """bf16 keeps 8 bits, and two layers round some ten times: 3% of the spread of the logits."""
    model = make_llama()
    tokens = tuple(range(5, 60))
    exact = logits(CpuBackend(), model, "fp32", tokens)
    found = logits(backend(tp, **settings), model, "bf16", tokens)
    assert found.shape == exact.shape
    assert (found - exact).abs().max() < 0.03 * (exact.max() - exact.min())
    assert not torch.equal(found, exact), "nothing was rounded"


@pytest.mark.parametrize(("dtype", "within"), [("int8", 0.05), ("f8e4m3", 0.15)])
def test_quantised_weights_give_logits_near_the_exact_ones(
    make_llama: Any, dtype: str, within: float
) -> None:
    model = make_llama()
    tokens = tuple(range(5, 60))
    exact = logits(CpuBackend(), model, "fp32", tokens)
    settings = {"quantized": True, "quantization_dtype": dtype}
    found = {tp: logits(backend(tp, **settings), model, "fp32", tokens) for tp in (1, 4)}
    assert (found[1] - exact).abs().max() < within * (exact.max() - exact.min())
    # Cores share the scales of the whole matrix, so the degree changes the order of sums alone.
    assert torch.allclose(found[1], found[4], atol=1e-3)


def test_a_core_holds_its_own_shards_alone(make_llama: Any) -> None:
    device = backend(4)
    spec = LoadSpec(dtype="fp32", max_model_len=CONTEXT, max_num_seqs=2)
    model = make_llama()
    plan = device.plan(read_json(model / "config.json"), spec)
    assert isinstance(plan, NeuronPlan)
    whole = backend(1).plan(read_json(model / "config.json"), spec)
    assert isinstance(whole, NeuronPlan)
    assert plan.need.weights < whole.need.weights / 2
    # Two KV heads for four cores: each has a copy.
    assert plan.need.kv * 2 == whole.need.kv


def test_a_step_takes_what_the_compiled_bucket_takes(make_llama: Any) -> None:
    """Padding costs time: a prompt of 129 tokens takes what one of 192 does."""
    device = backend(2)
    spec = LoadSpec(max_model_len=CONTEXT, max_num_seqs=2)
    model = make_llama()
    plan = device.plan(read_json(model / "config.json"), spec)
    runner = device.load(device.compile(model, plan))

    def taken(length: int) -> float:
        request = SampleRequest(seed=0, index=0, temperature=0)
        chunk = Chunk(sequence_id="a", tokens=(7,) * length, start=0, blocks=(0,), sample=request)
        return runner.execute(Step((chunk,))).device_time.seconds

    assert taken(3) == taken(128) < taken(129) == taken(192)


@pytest.mark.parametrize(
    ("device", "spec", "said"),
    [
        (NeuronBackend("inf2.xlarge", {"tp_degree": 4}), {}, "tp_degree 4 .* Choose one of: 1, 2"),
        (NeuronBackend("inf2.xlarge"), {"max_model_len": 4096}, "context length 512"),
        (NeuronBackend("inf2.xlarge"), {"kv_cache_bytes": 100}, "holds less than one sequence"),
        (
            NeuronBackend("inf2.24xlarge", {"tp_degree": 8}),
            {"data_parallel": 2},
            "2 copies of 8 cores .* 12 cores of inf2.24xlarge .* at most 1",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_change(
    make_llama: Any, device: NeuronBackend, spec: dict[str, Any], said: str
) -> None:
    config = read_json(make_llama() / "config.json")
    plan = device.plan(config, LoadSpec(**spec))
    assert re.search(said, " ".join(plan.refusals))
    with pytest.raises(DoesNotFit):
        device.compile(make_llama(), plan)


def test_two_physical_cores_make_one_where_the_chip_lets_choose(make_llama: Any) -> None:
    config = read_json(make_llama() / "config.json")

    def placed(instance: str, lnc: int | None) -> tuple[int, int]:
        plan = NeuronBackend(instance).plan(
            config, LoadSpec(tensor_parallel=None, logical_nc_config=lnc)
        )
        assert isinstance(plan, NeuronPlan)
        return plan.placement.lnc, plan.placement.cores

    assert placed("trn2.3xlarge", None) == placed("trn2.3xlarge", 2) == (2, 4)
    assert placed("trn2.3xlarge", 1) == (1, 8)
    with pytest.raises(InvalidInput, match="no logical NeuronCore configuration 2"):
        placed("inf2.xlarge", 2)


def test_fewer_sequences_than_asked_for_are_told(make_llama: Any) -> None:
    config = {**LLAMA, "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16}
    config |= {"num_key_value_heads": 16, "head_dim": 64, "intermediate_size": 1024}

    def planned(**spec: Any) -> tuple[int, str]:
        plan = NeuronBackend("inf2.48xlarge", {"tp_degree": 1}).plan(
            config, LoadSpec(max_model_len=4096, **spec)
        )
        assert plan.spec.max_num_seqs == plan.kv_blocks
        return plan.kv_blocks, " ".join(plan.notes)

    assert planned(max_num_seqs=8)[0] == 8
    # A copy's batch does not depend on how many there are.
    assert planned(max_num_seqs=8, data_parallel=24)[0] == 8
    few, said = planned(max_num_seqs=9)
    assert few == 8
    assert "8 sequences at once, not 9" in said
    assert planned(max_num_seqs=9, kv_cache_bytes=2 << 30) == (9, planned(max_num_seqs=8)[1])


def test_sequences_that_were_asked_for_are_compiled_or_refused(make_llama: Any) -> None:
    """KV of a simulated device takes no memory here before it is used."""
    config = {**LLAMA, "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16}
    config |= {"num_key_value_heads": 16, "head_dim": 64, "intermediate_size": 1024}

    def planned(count: int) -> Plan:
        spec = LoadSpec(max_model_len=4096, max_num_seqs=count, exact_num_seqs=True)
        return NeuronBackend("inf2.xlarge", {"tp_degree": 1}).plan(config, spec)

    assert planned(32).fits
    assert planned(32).kv_blocks == planned(32).spec.max_num_seqs == 32
    refused = planned(500)
    assert refused.kv_blocks == 500
    assert "Allocation Failure" in " ".join(refused.refusals)
    assert "a tp_degree of 2" not in " ".join(planned(2000).refusals)
    assert not refused.hint


def test_weights_are_counted_as_this_machine_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """8-bit ones as the numbers that it multiplies them with."""
    config = {**LLAMA, "hidden_size": 2048, "num_hidden_layers": 8, "intermediate_size": 8192}
    config |= {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128}

    def refusals(dtype: Any, quantize: Any) -> str:
        spec = LoadSpec(max_model_len=512, max_num_seqs=1, dtype=dtype, quantize=quantize)
        return " ".join(NeuronBackend("inf2.xlarge", {"tp_degree": 1}).plan(config, spec).refusals)

    # 537 million numbers in matrices: 1.1 GB in bf16, 2.1 GB in fp32, and embeddings.
    monkeypatch.setattr("ridgeline_backends.neuron.plan.machine_memory", lambda: 1_600_000_000)
    assert not refusals("bf16", None)
    assert not refusals("bf16", "int8")
    assert "weights take" in refusals("fp32", None)
    assert "weights take" in refusals("fp32", "int8")


def test_out_of_memory_says_what_fills_a_core() -> None:
    config = {**LLAMA, "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64}
    config |= {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 28672}
    plan = NeuronBackend("inf2.xlarge", {"tp_degree": 2}).plan(config, LoadSpec(max_model_len=128))
    refusal = " ".join(plan.refusals)
    assert "Allocation Failure" in refusal
    for kind in ("model constants", "tensors", "shared scratchpad", "model code", "dma rings"):
        assert f"MB {kind}" in refusal


def copies_of(model: Path, count: int, **options: Any) -> list[NeuronRunner]:
    device = backend(2)
    spec = LoadSpec(max_model_len=CONTEXT, max_num_seqs=2, data_parallel=count, paced=True)
    plan = device.plan(read_json(model / "config.json"), spec)
    runner = NeuronRunner(
        device.compile(model, plan),
        lambda program: DeviceTime(seconds=5.0, low=4.0, high=6.0),
        **options,
    )
    found = [one for one in runner.copies if isinstance(one, NeuronRunner)]
    assert len(found) == count
    return found


def decoded(runners: list[NeuronRunner], prompts: list[int]) -> list[list[int]]:
    """Greedy tokens of a prompt on each runner, step by step in turns, all in the same slot."""
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(8):
        for runner, prompt, tokens in zip(runners, prompts, found, strict=True):
            given = (prompt,) * 4 if start == 0 else (tokens[-1],)
            request = SampleRequest(seed=0, index=start, temperature=0)
            place = 0 if start == 0 else 3 + start
            chunk = Chunk(sequence_id="a", tokens=given, start=place, blocks=(0,), sample=request)
            [token] = runner.execute(Step((chunk,))).tokens
            tokens.append(token.token_id)
    return found


def test_copies_share_weights_and_no_kv(make_llama: Any) -> None:
    model = make_llama()
    [alone] = copies_of(model, 1, sleep=lambda seconds: None)
    three = copies_of(model, 3, sleep=lambda seconds: None)
    prompts = [7, 8, 9]
    one_by_one = [decoded([alone], [prompt])[0] for prompt in prompts]
    assert decoded(three, prompts) == one_by_one
    first, second, _ = three
    names = [name for name, _ in first._memory._tensors.items()]
    own = [name for name in names if first._memory.tensor(name) is not second._memory.tensor(name)]
    assert own == list(first._memory._kv)
    assert first._memory._matrices is second._memory._matrices
    assert (first.simulates.cores, first.simulates.copies) == (2, 3)
    assert first.executions.total == 3 * 8


def test_a_copy_computes_while_another_is_kept_to_its_pace(make_llama: Any) -> None:
    beside: list[threading.Thread] = []

    def sleep(seconds: float) -> None:
        if not beside:
            beside.append(threading.Thread(target=decoded, args=([second], [8]), daemon=True))
            beside[0].start()
            beside[0].join(20)
            assert not beside[0].is_alive()

    first, second = copies_of(make_llama(), 2, sleep=sleep)
    assert decoded([first], [7])


def test_a_fault_breaks_the_runtime_of_all_copies(make_llama: Any) -> None:
    first, second = copies_of(make_llama(), 2, sleep=lambda seconds: None)
    first.break_down("hbm-error")
    with pytest.raises(NeuronRuntimeError, match="HBM"):
        decoded([second], [7])
    with pytest.raises(NeuronRuntimeError, match="restart the process"):
        decoded([first], [7])
    assert sum(second.executions.failed.values()) == 2
    first.break_down("")
    assert decoded([second], [7])


def test_pace_lets_a_client_meet_the_latency_of_the_device(make_llama: Any) -> None:
    model = make_llama()
    device = backend(2)
    plan = device.plan(
        read_json(model / "config.json"), LoadSpec(max_model_len=CONTEXT, paced=True)
    )
    slept: list[float] = []
    runner = NeuronRunner(
        device.compile(model, plan),
        lambda program: DeviceTime(seconds=5.0, low=4.0, high=6.0),
        clock=iter([10.0, 11.5]).__next__,
        sleep=slept.append,
    )
    request = SampleRequest(seed=0, index=0, temperature=0)
    chunk = Chunk(sequence_id="a", tokens=(7, 8), start=0, blocks=(0,), sample=request)
    taken = runner.execute(Step((chunk,))).device_time
    assert (taken.seconds, taken.low, taken.high) == (5.0, 4.0, 6.0)
    assert slept == [3.5]
