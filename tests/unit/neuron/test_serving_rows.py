"""Rows of servers: the load that made them, and what follows from a rate."""

from __future__ import annotations

import pytest

from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.calibration.quantity import Simulated
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.calibration.workloads.widening import widened
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.devices import instance
from ridgeline_backends.neuron.serving.load import Load
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import calibration
from ridgeline_backends.neuron.timing.seconds import seconds
from ridgeline_backends.neuron.timing.work import Part, Work

COEFFICIENTS = calibration().coefficients


def served(**fields: object) -> dict[str, Simulated]:
    row = Row(
        {
            "id": "SV1",
            "cat": "serving",
            "model": "Llama-3.1-8B-Instruct",
            "instance": "inf2.48xlarge",
            "framework": "optimum-neuron vLLM",
            "workload": "guidellm prompts 1500+-150, outputs 250+-20",
            "input_len": 1500,
            "output_len": 250,
            "seq_len": 4096,
            "tp": 8,
            "dp": 1,
            "batch": 32,
            "date": "2026-03-03",
            **fields,
        }
    )
    return {one.field: one for one in quantities(row) if isinstance(one, Simulated)}


def load(**fields: object) -> Load:
    return served(mode="throughput", **fields)["tok_s"].run.load


def test_a_client_keeps_one_request_less_than_its_limit_and_opens_a_hundred_at_most() -> None:
    assert load(concurrency=32).clients == 31
    assert load(concurrency=128).clients == 100
    # The oldest files print the script's default whatever ran.
    assert load(concurrency=128, date="2025-09-16").clients == 32
    assert load(concurrency=128, dp=3).clients == 33


@pytest.mark.parametrize("rate", [1.2, 1.9, 2.6])
def test_a_sweeps_rate_is_one_that_the_server_carries(rate: float) -> None:
    found = served(mode="asynchronous", rate_req_s=rate)
    prompt = seconds(found["tok_s"].run.prefill, COEFFICIENTS)
    # Steps are as much shorter as the rate is higher: nobody waits for long.
    assert found["ttft_mean_ms"].predicted(COEFFICIENTS) < 1e3 * prompt * 4 / rate
    outcome = found["tok_s"].run.outcome(COEFFICIENTS)
    # What is under way when the two minutes are over does not count.
    assert outcome.requests_s == pytest.approx(rate, rel=0.2)


def test_a_rate_far_from_what_the_server_carries_changes_no_step() -> None:
    found = served(mode="asynchronous", rate_req_s=0.05)
    prompt = seconds(found["tok_s"].run.prefill, COEFFICIENTS)
    assert found["ttft_mean_ms"].predicted(COEFFICIENTS) == pytest.approx(1e3 * prompt, rel=0.01)


def test_a_rate_without_a_sweep_changes_no_step() -> None:
    plain = served(rate_req_s=2.6, concurrency=32)["tok_s"].run
    assert plain.swept is None


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_rate_at_which_nobody_comes_is_refused(rate: float) -> None:
    with pytest.raises(UnpredictableRow, match="SV1: rate_req_s"):
        served(mode="asynchronous", rate_req_s=rate)


def experts() -> DecoderArchitecture:
    return decoder_architecture(find("qwen3-30b-a3b", "decoders").config)


def test_the_compiler_alone_widens_experts_in_more_passes_than_a_kernel() -> None:
    config = NeuronConfig(tp_degree=64, batch_size=1, seq_len=512, fused_qkv=True)
    program = decoder_program(
        experts(), config, phase=Phase.TOKEN_GENERATION, bucket=512, rules=NXDI
    )
    machine = Machine(instance("trn2.48xlarge"), 2)
    fused, alone = (
        seconds(widened(program, machine, fused=one), COEFFICIENTS) for one in (True, False)
    )
    assert 0 < 1.5 * fused < alone


def test_two_cores_of_one_hand_each_other_their_halves() -> None:
    config = NeuronConfig(tp_degree=8, batch_size=1, seq_len=512, fused_qkv=True)
    program = decoder_program(
        experts(), config, phase=Phase.TOKEN_GENERATION, bucket=512, rules=NXDI
    )
    trn2 = instance("trn2.48xlarge")
    one, two = (Work.of(program, Machine(trn2, lnc)).rows for lnc in (1, 2))
    steps = [float((rows[:, Part.STEPS] * rows[:, Part.REPEATS]).sum()) for rows in (one, two)]
    # Queries with keys and values, attention, output, router, two products of experts; the head;
    # each sum over cores three times.
    assert steps[1] - steps[0] == 2 * (48 * (6 + 2 * 3) + 1 + 3)
