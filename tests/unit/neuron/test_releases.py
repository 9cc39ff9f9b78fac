"""What a release of the SDK changes: collectives, compilers, libraries' habits, scripts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ridgeline_backends.neuron.builders.encoder import EncoderShape
from ridgeline_backends.neuron.builders.signals import build_signal_decoder, build_speech_encoder
from ridgeline_backends.neuron.builders.training import Recomputed, TrainingPlan, build_microbatch
from ridgeline_backends.neuron.calibration.quantity import Quantity
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.workloads.decode import decode_quantities, decoder_of
from ridgeline_backends.neuron.calibration.workloads.encoder import encoder_quantities
from ridgeline_backends.neuron.calibration.workloads.training import training_quantities
from ridgeline_backends.neuron.devices import instance
from ridgeline_backends.neuron.operations import AllReduce, Attention, Cast, Group, Matmul
from ridgeline_backends.neuron.program import (
    Buffer,
    BufferKind,
    ElementType,
    Form,
    Operation,
    Program,
    Section,
)
from ridgeline_backends.neuron.timing.coefficients import prior_coefficients
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.seconds import seconds
from ridgeline_backends.neuron.timing.work import Part, Work

PRIOR = prior_coefficients()


def row(category: str, **fields: object) -> Row:
    return Row({"id": "x", "cat": category, **fields})


def training_row(**fields: object) -> Row:
    given = {
        "instance": "trn1.32xlarge", "nodes": 16, "topology": "TP=8 DP=64", "microbatch": 1,
        "global_batch": 1024, "seq_len": 4096, "train_dtype": "Autocast:BF16+SR", "sdk": "2.21.0",
        "model": "Llama2-7B pre-training",
    }  # fmt: skip
    return row("training", **{**given, **fields})


def rate(given: Row) -> float:
    (found,) = training_quantities(given)
    return found.predicted(PRIOR)


def decode_row(**fields: object) -> Row:
    given = {
        "instance": "inf2.48xlarge", "framework": "Transformers NeuronX", "batch": 1, "tp": 24,
        "seq_len": 512, "input_len": 256, "output_len": 256, "sdk": "2.17.0",
        "model": "Llama-2-70b",
    }  # fmt: skip
    return row("llm_decode", **{**given, **fields})


def field(given: Row, name: str) -> float:
    found = decode_quantities(given)
    return next(one.predicted(PRIOR) for one in found if one.field == name)


@pytest.mark.parametrize("cores", [8, 24])
def test_small_sums_were_a_ring_and_three_to_seven_times_as_slow(cores: int) -> None:
    x = Buffer("x", Form((8192,), ElementType.BF16))
    operation = Operation(AllReduce(Group(cores)), (x,), (x,))
    program = Program("token_generation", (Section("one", (operation,)),), cores=cores)
    work = Work.of(program, Machine(instance("inf2.48xlarge"), 1))
    assert seconds(work.run_by(19), PRIOR) == seconds(work, PRIOR)
    ratio = seconds(work.run_by(10), PRIOR) / seconds(work.run_by(11), PRIOR)
    assert 2.5 < ratio < 7.5


def test_each_release_gains_less_than_the_one_before() -> None:
    work = decoder_of(decode_row(sdk="2.20.0")).step(1, 512)
    ages = [work.compiled_by(minor).rows[0, Part.VERSIONS] for minor in (6, 7, 18, 19)]
    assert ages[0] < ages[1] < ages[2] == 0 < ages[3]
    assert ages[1] - ages[0] > ages[3] - ages[2]


def test_before_2_18_every_core_held_all_kv_heads() -> None:
    """A step then costs more whatever the length, and more for each position; later it did not."""
    short, long = (decode_row(seq_len=length, output_len=length - 256) for length in (512, 2304))
    old = [field(one, "tpot_p50_ms") for one in (short, long)]
    new = [field(Row({**one.values, "sdk": "2.18.0"}), "tpot_p50_ms") for one in (short, long)]
    assert old[0] > 1.2 * new[0]
    assert old[1] - old[0] > 10 * (new[1] - new[0])
    whole = decode_row(model="Llama-2-13b")
    assert field(whole, "tpot_p50_ms") == pytest.approx(
        field(Row({**whole.values, "sdk": "2.18.0"}), "tpot_p50_ms"), rel=1e-3
    )


def test_the_table_of_2_13_1_gives_whole_runs() -> None:
    given = decode_row(
        model="Llama-2-13b", sdk="2.13.1", seq_len=4096, input_len=None, output_len=None
    )
    latency, speed = field(given, "lat_p50_ms"), field(given, "tok_s")
    assert latency * speed / 1e3 == pytest.approx(128)


def test_degrees_of_data_follow_from_the_cores() -> None:
    assert rate(training_row(topology="TP=8 DP=4")) == rate(training_row())


def test_scripts_of_a_library_decide_what_is_made_again() -> None:
    attention = rate(training_row(train_dtype="Autocast:BF16+FP32Optimizer"))
    assert rate(training_row()) < attention
    assert rate(training_row(sdk="2.18.0")) < rate(training_row())  # no kernel yet


@pytest.mark.parametrize(("recompute", "count"), [("none", 3), ("attention", 4), ("all", 4)])
def test_a_microbatch_makes_again_what_it_did_not_keep(recompute: Recomputed, count: int) -> None:
    plan = TrainingPlan(
        shape=EncoderShape(hidden=256, layers=2, heads=4, intermediate=512, vocab=512),
        tensor=1, data=1, pipeline=1, microbatch=1, global_batch=1, length=128, scored=128,
    )  # fmt: skip
    program = build_microbatch(replace(plan, recompute=recompute))
    operations = [one for one, _ in program.operations()]
    assert sum(isinstance(one.attributes, Attention) for one in operations) == count
    plain = build_microbatch(plan)
    more = len(operations) - len(list(plain.operations()))
    assert more == {"none": 0, "attention": 1, "all": len(plain.sections[1].operations)}[recompute]


def test_products_of_fp32_are_made_in_bf16() -> None:
    shape = EncoderShape(
        hidden=256, layers=1, heads=4, intermediate=512, vocab=512,
        dtype=ElementType.FP32, products=ElementType.BF16,
    )  # fmt: skip
    plan = TrainingPlan(
        shape=shape, tensor=1, data=1, pipeline=1, microbatch=1, global_batch=1, length=128,
        scored=128, whole_gradients=True,
    )  # fmt: skip
    operations = [one for one, _ in build_microbatch(plan).operations()]
    products = [one for one in operations if isinstance(one.attributes, Matmul)]
    assert {one.inputs[0].dtype for one in products} == {ElementType.BF16}
    cast = [one for one in operations if isinstance(one.attributes, Cast)]
    weights = [one for one in cast if one.inputs[0].kind is BufferKind.WEIGHT]
    assert weights
    assert all(one.inputs[0].dtype is ElementType.FP32 for one in weights)


def test_speech_is_labelled_frame_by_frame() -> None:
    shape = EncoderShape(hidden=1024, layers=24, heads=16, intermediate=4096)
    program = build_speech_encoder(shape, batch=2, samples=112_000)
    ((labels, _),) = program.buffers(BufferKind.OUTPUT)
    assert labels.shape == (2, 349, 2)


def test_a_denoised_signal_takes_as_long_as_its_steps() -> None:
    given = {"instance": "inf2.xlarge", "model": "ZUNA EEG diffusion", "framework": "torch-neuronx"}
    ten, fifty = (
        encoder_quantities(row("encoder", **given, note=f"1 core, {steps} steps"))[0]
        for steps in (10, 50)
    )
    assert isinstance(ten, Quantity)
    assert 4.5 < fifty.predicted(PRIOR) / ten.predicted(PRIOR) < 5
    shape = EncoderShape(
        hidden=1024, layers=16, heads=8, head_dim=64, intermediate=2816, gated=True
    )
    step = build_signal_decoder(shape, tokens=50, width=32, time=64)
    ((made, _),) = step.buffers(BufferKind.OUTPUT)
    assert made.shape == (1, 50, 32)


def test_half_of_the_requests_of_a_full_server_wait_for_two_calls() -> None:
    given = {
        "instance": "inf2.48xlarge", "model": "Qwen3-Embedding-8B", "tp": 8, "batch": 8,
        "framework": "optimum-neuron vLLM", "seq_len": 8192, "input_len": 1500,
    }  # fmt: skip
    few, many = (
        {one.field: one.predicted(PRIOR) for one in encoder_quantities(
            row("encoder", **given, concurrency=clients)
        )}
        for clients in (8, 64)
    )  # fmt: skip
    assert many["lat_p50_ms"] == pytest.approx(few["lat_p50_ms"] * 3 / 2)
    assert many["inf_s"] > few["inf_s"]


def test_nxd_trains_as_fast_before_its_kernel_for_attention() -> None:
    """Its compiler fuses attention itself from 2.15 on; what NeMo compiles does not."""
    nxd = {"train_dtype": "Autocast:BF16+FP32Optimizer"}
    assert rate(training_row(**nxd, sdk="2.16.0")) > 0.9 * rate(training_row(**nxd, sdk="2.20.0"))
    assert rate(training_row(**nxd, sdk="2.13.0")) < 0.7 * rate(training_row(**nxd, sdk="2.16.0"))
    assert rate(training_row(sdk="2.16.0")) < 0.8 * rate(training_row(sdk="2.20.0"))


def test_a_release_after_2_x_is_newer_than_all_of_them() -> None:
    newest = rate(training_row(sdk="2.99.0"))
    assert rate(training_row(sdk="3.0.0")) == newest == rate(training_row(sdk="10.1"))
    given = {"framework": "Transformers NeuronX", "tp": 8, "model": "Llama-2-13b"}
    (later, *_), (last, *_) = (
        decode_quantities(decode_row(**given, sdk=sdk)) for sdk in ("3.1.0", "2.99.0")
    )
    assert later.predicted(PRIOR) == last.predicted(PRIOR)
