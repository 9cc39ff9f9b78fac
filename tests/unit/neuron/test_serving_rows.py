"""Rows of servers: the load that made them, and what follows from a rate."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from single_rows import predicted

from ridgeline_backends.neuron.builders.architecture import DecoderArchitecture
from ridgeline_backends.neuron.builders.configs import decoder_architecture
from ridgeline_backends.neuron.builders.decoder import decoder_program
from ridgeline_backends.neuron.builders.rules import NXDI
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.calibration.quantity import NobodyAnswered, Simulated
from ridgeline_backends.neuron.calibration.rows import Row, UnpredictableRow, read_rows
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.calibration.workloads.decode import SAMPLING_S
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


def served(*, swept: bool = False, **fields: object) -> dict[str, Simulated]:
    """`swept`: its rate is what a run beside it came to."""
    row = Row(
        swept=swept,
        values={
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
        },
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


def prompt_work(**fields: object) -> Work:
    return served(mode="throughput", concurrency=32, **fields)["tok_s"].run.prefill


def test_a_client_waits_as_long_as_openais_does() -> None:
    assert load(concurrency=32).timeout_s == 600


@pytest.mark.parametrize(
    ("scheduler", "date", "parts"),
    [
        ("", "2026-03-03", False),
        ("", "2026-03-17", True),
        ("standard, on-device sampling", "2026-03-17", False),
        ("chunked prefill, CPU sampling", "2026-03-03", True),
        ("Chunked_Prefill", "", True),
        ("no chunked prefill", "2026-03-17", False),
        ("non-chunked", "2026-03-17", False),
        ("chunked prefill: off", "2026-03-17", False),
        ("unchunked, CPU sampling", "2026-03-17", False),
        ("Standard CE", "2026-03-17", False),
        # Others say nothing of it.
        ("default", "2026-03-17", True),
        ("V1", "2026/03/17", True),
        ("on-device sampling", "2026-03-17", True),
        ("default", "October 2025", False),
        ("", "2026/01/05", False),
        ("", "March 18, 2026", True),
    ],
)
def test_a_prompt_goes_in_parts_where_the_row_or_its_date_says_so(
    scheduler: str, date: str, parts: bool
) -> None:
    def rows(length: int) -> float:
        work = prompt_work(scheduler=scheduler, date=date, input_len=length)
        return float((work.rows[:, Part.TENSOR] * work.rows[:, Part.REPEATS]).sum())

    # As a whole it takes the longest prompt's time; in parts, as many times as there are parts.
    assert rows(2000) == pytest.approx(rows(1500))
    assert rows(3000) == pytest.approx(rows(1500) * (1.5 if parts else 1))


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(UnpredictableRow, match="SV1: date 'soon' is no date"):
        served(mode="throughput", date="soon")


@pytest.mark.parametrize(
    ("scheduler", "chosen"),
    [
        ("standard, on-device sampling", 0),
        ("standard, CPU sampling", 1),
        ("standard, host_sampling", 1),
        ("standard, no CPU sampling", 0),
        # Whoever chooses the other tokens: prompts in parts leave the first to the host.
        ("chunked prefill, on-device sampling", 1),
        ("chunked prefill, CPU sampling", 1),
    ],
)
def test_the_host_chooses_a_first_token_once(scheduler: str, chosen: int) -> None:
    work = prompt_work(scheduler=scheduler)
    fixed = work.rows[:, Part.FIXED] * work.rows[:, Part.REPEATS]
    # What starting collectives takes comes on top.
    assert float(fixed.sum()) == pytest.approx(chosen * SAMPLING_S, abs=0.1 * SAMPLING_S)


def test_a_short_sequence_is_encoded_as_a_whole() -> None:
    old = prompt_work(seq_len=1024, input_len=700, date="2025-09-16")
    assert prompt_work(seq_len=1024, input_len=700, date="2026-03-17").rows.tolist() == (
        old.rows.tolist()
    )


@pytest.mark.parametrize(("slots", "turned"), [(4, True), (32, False), (64, True)])
def test_experts_are_turned_back_where_steps_fetch_them_by_number(slots: int, turned: bool) -> None:
    model = {"model": "Qwen3-30B-A3B-Instruct-2507", "date": "2026-03-18"}
    taken = seconds(prompt_work(batch=slots, **model), COEFFICIENTS)
    least = seconds(prompt_work(batch=32, **model), COEFFICIENTS)
    numbers = 48 * 128 * 3 * 2048 * 768 / 8
    # Two parts; DMA takes as long for two bytes as for some four hundred.
    assert taken - least == pytest.approx(2 * numbers * 411e-9 / 272 if turned else 0, rel=0.06)


MIXTURE = {
    "cat": "serving", "model": "Qwen3-30B-A3B-Instruct-2507", "instance": "inf2.48xlarge", "tp": 8,
    "framework": "optimum-neuron vLLM", "input_len": 1500, "output_len": 250, "seq_len": 4096,
    "batch": 4, "date": "2026-03-18",
}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "rate"),
    [("synchronous", "tok_s"), ("throughput", "tok_s"), ("synchronous", "max_tok_s")],
)
def test_what_one_sweep_shows_is_within_an_interval_that_reaches_a_prompt_without_it(
    mode: str, rate: str
) -> None:
    found = predicted(MIXTURE, mode=mode)
    plain = predicted(MIXTURE, mode=mode, scheduler="chunked prefill", batch=32)
    # At 32 sequences steps fetch no expert by number.
    assert plain.low["ttft_mean_ms"] > 0.5 * plain.prediction["ttft_mean_ms"]
    assert found.low["ttft_mean_ms"] < 0.4 * found.prediction["ttft_mean_ms"]
    assert found.high[rate] > 2 * found.prediction[rate]
    assert found.label == "extrapolated"


def test_no_later_core_is_said_to_turn_experts_back() -> None:
    later = {"instance": "trn2.48xlarge", "batch": 4, "model": MIXTURE["model"]}
    assert served(mode="throughput", date="2026-03-18", **later)["tok_s"].run.surely is None
    earlier = {**later, "instance": "trn1.32xlarge"}
    assert served(mode="throughput", date="2026-03-18", **earlier)["tok_s"].run.surely is not None


@pytest.mark.parametrize("rate", [1.2, 1.9, 2.6])
def test_a_sweeps_rate_is_one_that_the_server_carries(rate: float) -> None:
    found = served(mode="asynchronous", rate_req_s=rate, swept=True)
    prompt = seconds(found["tok_s"].run.prefill, COEFFICIENTS)
    # Steps are as much shorter as the rate is higher: nobody waits for long.
    assert found["ttft_mean_ms"].predicted(COEFFICIENTS) < 1e3 * prompt * 4 / rate
    outcome = found["tok_s"].run.outcome(COEFFICIENTS)
    # What is under way when the two minutes are over does not count.
    assert outcome.requests_s == pytest.approx(rate, rel=0.2)


def test_a_rate_far_from_what_the_server_carries_changes_no_step() -> None:
    found = served(mode="asynchronous", rate_req_s=0.05, swept=True)
    prompt = seconds(found["tok_s"].run.prefill, COEFFICIENTS)
    assert found["ttft_mean_ms"].predicted(COEFFICIENTS) == pytest.approx(1e3 * prompt, rel=0.01)


@pytest.mark.parametrize("mode", ["asynchronous", None])
def test_more_load_makes_no_answer_sooner(mode: str | None) -> None:
    rates = [0.1, 0.5, 1, 1.4, 1.8, 2, 2.4, 3, 5, 50, 1e6]
    found = [served(mode=mode, rate_req_s=rate) for rate in rates]
    for field in ("ttft_mean_ms", "ttft_p50_ms", "tpot_mean_ms", "tok_s"):
        seen = [one[field].predicted(COEFFICIENTS) for one in found]
        # A request meets steps at other moments, and waits for as much as a hundredth less.
        assert all(a < 1.02 * b for a, b in pairwise(seen)), (field, seen)
    queue = found[-1]["ttft_mean_ms"].predicted(COEFFICIENTS)
    assert queue > 100 * found[0]["ttft_mean_ms"].predicted(COEFFICIENTS)


def test_a_rate_is_load_whatever_the_mode() -> None:
    plain, named = (
        served(mode=mode, rate_req_s=1.0)["tok_s"].run for mode in (None, "asynchronous")
    )
    assert plain.load == named.load
    assert plain.load.rate == 1.0
    assert not plain.swept


def test_a_sweep_is_known_by_the_runs_beside_it(tmp_path: Path) -> None:
    base = {"cat": "serving", "model": "Llama-3.1-8B", "instance": "inf2.48xlarge", "tp": 8}
    full, rate = {"mode": "throughput"}, {"mode": "asynchronous", "rate_req_s": 1.9}

    def swept(*rows: dict[str, object]) -> list[bool]:
        file = tmp_path / "rows.yaml"
        listed = [{**base, **row, "id": f"S{place}"} for place, row in enumerate(rows)]
        file.write_text(yaml.safe_dump({"rows": listed}))
        return [row.swept for row in read_rows(file)]

    assert swept(full, rate) == [False, True]
    assert swept(full, rate, {**rate, "rate_req_s": 1.95}) == [False, True, True]
    assert swept(rate) == [False]
    assert swept({**full, "tp": 4}, rate) == [False, False]
    # Rates side by side were chosen.
    assert not any(swept(full, rate, {**rate, "rate_req_s": 3}))


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_a_rate_at_which_nobody_comes_is_refused(rate: float) -> None:
    with pytest.raises(UnpredictableRow, match="SV1: rate_req_s"):
        served(mode="asynchronous", rate_req_s=rate)


@pytest.mark.parametrize("seq_len", [1 << 20, 10**12])
def test_prompts_that_take_longer_than_clients_wait_are_refused(seq_len: int) -> None:
    found = served(mode="throughput", seq_len=seq_len, rate_req_s=None)
    with pytest.raises(NobodyAnswered, match="No request is answered"):
        found["tok_s"].predicted(COEFFICIENTS)


def test_more_sequences_than_a_server_keeps_are_refused() -> None:
    with pytest.raises(UnpredictableRow, match="SV1: no server is compiled for 1000000"):
        served(mode="throughput", batch=10**6)
    with pytest.raises(UnpredictableRow, match="SV1: tp 8 times dp 4 is more than the 24 cores"):
        served(mode="throughput", dp=4)


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
