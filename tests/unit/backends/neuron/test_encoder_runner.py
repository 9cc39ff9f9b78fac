"""Text encoders on simulated cores: the processor's own vectors and scores, at every degree."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch
from encoder_families import FAMILIES, SENTENCES, SHAPE
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import save_random
from transformers import BertConfig, BertModel

from ridgeline_backends.base import Backend, LoadSpec
from ridgeline_backends.cpu.backend import CpuBackend
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.encoding import EmbeddingRunner, RerankRunner, TokenPair
from ridgeline_backends.errors import DoesNotFit, InvalidSampling, PromptTooLong
from ridgeline_backends.models.encoder_config import encoder_config
from ridgeline_backends.models.reader import read_json
from ridgeline_backends.models.sentence_files import Pooling, read_pooling
from ridgeline_backends.neuron.backend import NeuronBackend
from ridgeline_backends.neuron.encoder_plan import encoder_programs
from ridgeline_backends.neuron.encoder_runner import NeuronEmbeddingRunner
from ridgeline_backends.neuron.faults import NeuronRuntimeError
from ridgeline_backends.neuron.plan import NeuronPlan

EXACT = 2e-5
"""In fp32 cores sum their parts in another order."""

ROUNDED = 0.02
"""In bf16, which keeps 8 bits: how far a vector of length 1 may be off, by the length of the
difference. Two layers round some ten times."""


def device(tp: int, **changes: Any) -> NeuronBackend:
    return NeuronBackend("inf2.48xlarge", {"tp_degree": tp, **changes})


def load(backend: Backend, model: Path, **spec: Any) -> object:
    plan = backend.plan(read_json(model / "config.json"), LoadSpec(**{"dtype": "fp32", **spec}))
    assert plan.fits, plan.refusals
    return backend.load(backend.compile(model, plan))


def embedder(backend: Backend, model: Path, **spec: Any) -> EmbeddingRunner:
    runner = load(backend, model, **spec)
    assert isinstance(runner, EmbeddingRunner)
    return runner


def simulated(model: Path, tp: int = 2, **spec: Any) -> NeuronEmbeddingRunner:
    runner = load(device(tp), model, **spec)
    assert isinstance(runner, NeuronEmbeddingRunner)
    return runner


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save_random(BertModel, BertConfig(**SHAPE), folder)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_vectors_are_those_of_the_processor(name: str, tmp_path: Path) -> None:
    """Four heads and 60 columns: at degree 8 cores are filled up with zeros."""
    kind, _, config = FAMILIES[name]
    save_random(kind, config, tmp_path)
    expected = torch.tensor(embedder(CpuBackend(), tmp_path).embed(SENTENCES))
    for tp in (1, 2, 4, 8):
        exact = torch.tensor(embedder(device(tp), tmp_path).embed(SENTENCES))
        assert (exact - expected).norm(dim=-1).max() < EXACT, f"at degree {tp}"
    for tp in (1, 2):
        rounded = torch.tensor(embedder(device(tp), tmp_path, dtype="bf16").embed(SENTENCES))
        away = (rounded - expected).norm(dim=-1).max()
        assert EXACT < away < ROUNDED, f"{away} at degree {tp}"


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_of_pairs_are_those_of_the_processor(name: str, tmp_path: Path) -> None:
    _, kind, config = FAMILIES[name]
    save_random(kind, type(config)(**{**config.to_dict(), "num_labels": 1}), tmp_path)
    pairs = [TokenPair(ids, [0] + [1] * (len(ids) - 1)) for ids in SENTENCES]
    runner = load(CpuBackend(), tmp_path)
    assert isinstance(runner, RerankRunner)
    expected = runner.score(pairs)
    for tp, dtype, within in ((1, "fp32", EXACT), (2, "fp32", EXACT), (2, "bf16", ROUNDED)):
        own = load(device(tp), tmp_path, dtype=dtype)
        assert isinstance(own, RerankRunner)
        assert own.score(pairs) == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(("mean", "normalised"), [(False, True), (True, False), (False, False)])
def test_pooling_is_as_the_models_files_say(tmp_path: Path, mean: bool, normalised: bool) -> None:
    save_random(BertModel, BertConfig(**SHAPE), tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": not mean}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalised else [])]
    listed = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    assert read_pooling(tmp_path) == Pooling(mean=mean, normalised=normalised)
    expected = torch.tensor(embedder(CpuBackend(), tmp_path).embed(SENTENCES))
    found = torch.tensor(simulated(tmp_path).embed(SENTENCES))
    assert torch.allclose(found, expected, atol=5 * EXACT)


@pytest.fixture(scope="module")
def runner(bert: Path) -> NeuronEmbeddingRunner:
    return simulated(bert, dtype="bf16")


texts = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=80), max_size=20)


@settings(max_examples=12, deadline=None)
@given(texts)
def test_a_text_gets_the_same_bits_in_any_company(
    runner: NeuronEmbeddingRunner, texts: list[list[int]]
) -> None:
    assert runner.embed(texts) == [runner.embed([one])[0] for one in texts]


def test_a_call_takes_what_its_compiled_program_takes(runner: NeuronEmbeddingRunner) -> None:
    """Padding costs time, to the bucket and to the batch."""
    calls = {(one.batch, one.bucket): one.time.seconds for one in runner.simulates.calls}
    assert sorted(calls) == [(1, 128), (1, 200), (16, 128), (16, 200)]

    def taken(*lengths: int) -> float:
        before = runner.spent
        runner.embed([[7] * length for length in lengths])
        spent = runner.spent - before
        assert 0 < (spent.low or 0) < spent.seconds < (spent.high or 0)
        return spent.seconds

    assert taken(3) == pytest.approx(calls[1, 128])
    assert taken(128) == pytest.approx(calls[1, 128])
    assert taken(129) == pytest.approx(calls[1, 200])
    assert calls[1, 128] < calls[1, 200]
    assert calls[16, 128] < 16 * calls[1, 128]
    assert taken(*[5] * 16) == pytest.approx(calls[16, 128])
    assert taken(*[5] * 2) == pytest.approx(min(2 * calls[1, 128], calls[16, 128]))
    assert taken(*[5] * 17, 150) == pytest.approx(calls[16, 128] + calls[1, 128] + calls[1, 200])


def test_padding_costs_memory_and_cores_share_the_weights(bert: Path) -> None:
    def need(tp: int, **spec: Any) -> Any:
        plan = device(tp).plan(read_json(bert / "config.json"), LoadSpec(**spec))
        assert isinstance(plan, NeuronPlan)
        return plan.need

    assert need(1, max_num_seqs=1).scratch < need(1, max_num_seqs=16).scratch
    assert need(1, max_model_len=128).scratch < need(1, max_model_len=200).scratch
    assert need(2).weights < need(1).weights
    assert need(2).collectives > need(1).collectives == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_programs_are_whole(name: str) -> None:
    for kind in FAMILIES[name][:2]:
        config = {**FAMILIES[name][2].to_dict(), "num_labels": 1, "architectures": [kind.__name__]}
        plan = device(2).plan(config, LoadSpec())
        assert isinstance(plan, NeuronPlan)
        model = encoder_config(config, kind.__name__)
        for program in encoder_programs(model, plan.neuron, Pooling()):
            program.check()


@pytest.mark.parametrize(
    ("backend", "spec", "said"),
    [
        (NeuronBackend("inf2.xlarge", {"tp_degree": 4}), {}, "tp_degree 4 .* Choose one of: 1, 2"),
        (NeuronBackend("inf2.xlarge"), {"max_model_len": 201}, "context length 200"),
        (NeuronBackend("inf2.xlarge"), {"quantize": "int8"}, "not quantised"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_change(
    bert: Path, backend: NeuronBackend, spec: dict[str, Any], said: str
) -> None:
    plan = backend.plan(read_json(bert / "config.json"), LoadSpec(**spec))
    assert re.search(said, " ".join(plan.refusals))
    with pytest.raises(DoesNotFit):
        backend.compile(bert, plan)


def test_out_of_memory_says_what_fills_a_core() -> None:
    config = BertConfig(
        hidden_size=8192, num_hidden_layers=40, num_attention_heads=64, intermediate_size=32768
    ).to_dict()
    plan = NeuronBackend("inf2.xlarge", {"tp_degree": 2}).plan(
        {**config, "architectures": ["BertModel"]}, LoadSpec()
    )
    refusal = " ".join(plan.refusals)
    assert "Allocation Failure" in refusal
    assert "MB model constants" in refusal


def test_bad_input_is_refused(runner: NeuronEmbeddingRunner) -> None:
    with pytest.raises(PromptTooLong, match="201"):
        runner.embed([[1] * 201])
    with pytest.raises(InvalidSampling, match="at least one"):
        runner.embed([[1], []])
    with pytest.raises(InvalidSampling, match="below 100"):
        runner.embed([[100]])
    assert runner.embed([]) == []


def test_the_hardware_fails_on_demand(bert: Path) -> None:
    runner = simulated(bert)
    runner.break_down("hbm-error", after=1)
    runner.embed([[1]])
    with pytest.raises(NeuronRuntimeError, match="status=1201"):
        runner.embed([[1]])
    with pytest.raises(NeuronRuntimeError, match="status=101"):
        runner.embed([[1]])
    runner.break_down("")
    assert len(runner.embed([[1]])) == 1
    assert runner.executions.total == 2
    failed = {"NRT_EXEC_HW_ERR_HBM_UE": 1, "NRT_EXEC_UNIT_UNRECOVERABLE": 1}
    assert runner.executions.failed == failed
    assert (runner.encoded.texts, runner.encoded.tokens) == (2, 2)


def test_pace_lets_a_client_meet_the_latency_of_the_device(bert: Path) -> None:
    backend = device(2)
    plan = backend.plan(read_json(bert / "config.json"), LoadSpec(paced=True))
    slept: list[float] = []
    runner = NeuronEmbeddingRunner(
        backend.compile(bert, plan),
        lambda program: DeviceTime(seconds=5.0, low=4.0, high=6.0),
        clock=iter([10.0, 11.5]).__next__,
        sleep=slept.append,
    )
    runner.embed([[7, 8]])
    assert (runner.spent.seconds, runner.spent.low, runner.spent.high) == (5.0, 4.0, 6.0)
    assert slept == [3.5]


def test_copies_are_used_at_once_and_each_counts_its_own(bert: Path) -> None:
    alone, first = simulated(bert), simulated(bert, data_parallel=3)
    expected = [alone.embed([SENTENCES[place]]) for place in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda place: first.copies[place].embed([SENTENCES[place]]), range(3))
        assert list(found) == expected
    assert [one.encoded.texts for one in first.copies] == [1, 1, 1]
    assert first.encoded_by_all == alone.encoded
    assert first.spent_by_all.seconds == pytest.approx(alone.spent.seconds)
    assert (first.executions.total, first.simulates.copies) == (3, 3)
