"""From programs to seconds, and from rows to predictions."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.builders.build import build_decoder
from ridgeline_backends.neuron.builders.site import Phase
from ridgeline_backends.neuron.calibration.evaluate import residuals
from ridgeline_backends.neuron.calibration.fit import fit, observations
from ridgeline_backends.neuron.calibration.rows import Row, newest, read_rows
from ridgeline_backends.neuron.calibration.score import predict_row, score
from ridgeline_backends.neuron.catalogue import aliases, entries, find
from ridgeline_backends.neuron.collectives import algorithm, cost
from ridgeline_backends.neuron.config import NeuronConfig
from ridgeline_backends.neuron.datafile import InvalidDataFile
from ridgeline_backends.neuron.devices import instance
from ridgeline_backends.neuron.instructions import Exchange
from ridgeline_backends.neuron.timing.coefficients import (
    DATA,
    NAMES,
    load_priors,
    prior_coefficients,
    priors,
)
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import calibration, load_calibration, predict
from ridgeline_backends.neuron.timing.seconds import seconds
from ridgeline_backends.neuron.timing.work import Work

INF2 = Machine(instance("inf2.48xlarge"), 1)


def step(batch: int = 1, tp: int = 8, length: int = 2048) -> Work:
    config = NeuronConfig(tp_degree=tp, batch_size=batch, seq_len=length, fused_qkv=True)
    program = build_decoder(
        find("llama-3-8b", "decoders").config,
        config,
        phase=Phase.TOKEN_GENERATION,
        bucket=length,
    )
    return Work.of(program, INF2)


def decode_row(**fields: object) -> Row:
    return Row(
        {
            "id": "LD1",
            "cat": "llm_decode",
            "kind": "measured",
            "model": "Llama-3-8B",
            "instance": "inf2.48xlarge",
            "framework": "Transformers NeuronX",
            "tp": 24,
            "batch": 1,
            "seq_len": 4096,
            "input_len": 128,
            "output_len": 3968,
            "sdk": "2.18.0",
            **fields,
        }
    )


def test_there_are_at_most_twelve_coefficients_within_their_bounds() -> None:
    assert len(NAMES) <= 12
    fitted = calibration().coefficients
    for name, prior in priors().items():
        assert prior.low <= getattr(fitted, name) <= prior.high
        assert prior.source


def test_a_coefficient_out_of_its_bounds_is_an_error_with_its_line(tmp_path: Path) -> None:
    text = (DATA / "fitted.yaml").read_text()
    line = next(one for one in text.splitlines() if "weight_bandwidth" in one)
    path = tmp_path / "fitted.yaml"
    path.write_text(text.replace(line, "  weight_bandwidth: 1.5"))
    with pytest.raises(InvalidDataFile, match=r"fitted\.yaml:\d+: .*within its bounds"):
        load_calibration(path)
    broken = tmp_path / "coefficients.yaml"
    broken.write_text((DATA / "coefficients.yaml").read_text().replace("unit:", "units:", 1))
    with pytest.raises(InvalidDataFile, match="lacks the field 'unit'"):
        load_priors(broken)


def test_more_of_anything_takes_longer() -> None:
    c = prior_coefficients()
    assert seconds(step(), c) < seconds(step(batch=8), c)
    assert seconds(step(), c) < seconds(step(length=8192), c)
    assert seconds(step(tp=8), c) < seconds(step(tp=2), c)
    assert seconds(step() * 3, c) == pytest.approx(3 * seconds(step(), c))


def test_a_decode_step_is_no_faster_than_its_bytes() -> None:
    program_bytes = 8.03e9 * 2 / 8
    assert seconds(step(), calibration().coefficients) > program_bytes / 410e9


def test_collectives_by_size_and_distance() -> None:
    small, large = (Exchange("all_reduce", size, 8, 1) for size in (1 << 12, 1 << 28))
    assert (algorithm(small), algorithm(large)) == ("mesh", "ring")
    assert algorithm(Exchange("all_gather", 1 << 20, 8, 1)) == "rdh"
    assert cost(large, INF2).link_s > cost(small, INF2).link_s
    two_nodes = Machine(instance("trn1.32xlarge"), 1, nodes=2)
    across = Exchange("all_reduce", 1 << 20, 64, 1)
    assert cost(across, two_nodes).network_s > 0
    assert cost(Exchange("all_reduce", 1 << 20, 32, 1), two_nodes).network_s == 0


def test_a_prediction_has_an_interval_and_a_label() -> None:
    config = NeuronConfig(tp_degree=8, seq_len=2048)
    program = build_decoder(
        find("llama-3-8b", "decoders").config,
        config,
        phase=Phase.TOKEN_GENERATION,
        bucket=2048,
    )
    found = predict(program, INF2)
    assert found.low < found.seconds < found.high
    assert found.label == "calibrated"
    assert predict(program, Machine(instance("trn2.48xlarge"), 2)).label == "extrapolated"
    assert predict(program, Machine(instance("trn3.3xlarge"), 2)).label == "prior-only"


def test_a_row_is_predicted_in_its_own_words() -> None:
    found = predict_row(decode_row(), calibration())
    assert set(found.prediction) >= {"ttft_p50_ms", "tpot_p50_ms", "tok_s"}
    assert found.low["tpot_p50_ms"] < found.prediction["tpot_p50_ms"] < found.high["tpot_p50_ms"]
    # Published: 6.42 ms with 8-bit weights.
    assert found.prediction["tpot_p50_ms"] == pytest.approx(6.6, rel=0.2)


def test_a_run_is_long_enough_for_answers_of_a_full_batch() -> None:
    values: dict[str, object] = {
        "id": "x", "cat": "serving", "kind": "measured", "model": "Qwen3-30B-A3B",
        "instance": "inf2.48xlarge", "framework": "optimum-neuron vLLM", "tp": 8, "batch": 32,
        "seq_len": 4096, "input_len": 1500, "output_len": 250, "mode": "throughput",
        "concurrency": 32, "workload": "guidellm",
    }  # fmt: skip
    found = predict_row(Row(values), calibration()).prediction
    assert found["tok_s"] > 0


def test_a_row_may_bring_its_config_along() -> None:
    config = dict(find("llama-3-8b", "decoders").config)
    named = predict_row(decode_row(), calibration()).prediction
    assert predict_row(decode_row(model="?", config=config), calibration()).prediction == named
    half = {**config, "num_hidden_layers": 16}
    smaller = predict_row(decode_row(model="?", config=half), calibration()).prediction
    assert smaller["tpot_p50_ms"] < named["tpot_p50_ms"]


def test_unknown_models_are_guessed_by_size_or_refused() -> None:
    guessed = predict_row(decode_row(model="Nobodys-8B"), calibration())
    assert guessed.label == "prior-only"
    refused = predict_row(decode_row(model="Nobodys"), calibration())
    assert "not known" in refused.refused
    assert refused.as_json() == {"id": "LD1", "refused": refused.refused}


def test_a_count_of_nothing_is_refused_and_nothing_breaks() -> None:
    for fields in ({"batch": 0}, {"seq_len": 0}, {"tp": 0}):
        assert "no count" in predict_row(decode_row(**fields), calibration()).refused


def test_an_encoder_decoder_is_predicted_and_longer_sources_take_longer() -> None:
    def latency(source: int) -> float:
        row = decode_row(
            cat="llm_encdec", model="google/flan-t5-xl", tp=8, input_len=source, output_len=84
        )
        return predict_row(row, calibration()).prediction["tok_lat_p50_ms"]

    # Published: 8.3 to 8.9 ms for 128 tokens in and 84 out.
    assert latency(128) == pytest.approx(8.6, rel=0.4)
    assert latency(128) < latency(1024)


def test_rings_between_instances_wait_for_every_core() -> None:
    """64 cores of two trn1 take 1.3 ms for 1 MB, host included, and a few thousand times the bytes
    come at 52 GB/s each (nccom-test)."""
    machine = Machine(instance("trn1.32xlarge"), 1, nodes=2)
    small, large = (
        cost(Exchange("all_reduce", size, 64, 1), machine) for size in (1 << 20, 1 << 30)
    )
    assert small.waits_s == large.waits_s == pytest.approx(126 * 6.7e-6)
    assert large.link_s == pytest.approx(2 * 31 / 32 * (1 << 30) / 68e9, rel=0.01)


def test_small_exchanges_between_instances_have_no_cliff() -> None:
    """64 cores of two trn1 take 553 us for 128 B, 881 for 2 KiB, 1,315 for 64 KiB (nccom-test)."""
    machine = Machine(instance("trn1.32xlarge"), 1, nodes=2)
    waits = [
        1e6 * cost(Exchange("all_reduce", 1 << power, 64, 1), machine).waits_s
        for power in range(5, 21)
    ]
    assert waits == sorted(waits)
    steps = [later - earlier for earlier, later in pairwise(waits)]
    assert max(steps) < 0.15 * (waits[-1] - waits[0])


def test_every_alias_means_a_model_of_the_catalogue() -> None:
    known = {name for kind in ("decoders", "encoders", "vision") for name in entries(kind)}
    assert {name for name, target in aliases().items() if target not in known} == set()
    assert find("meta-llama/Llama-3.1-8B-Instruct", "decoders").name == "llama-3-8b"
    assert find("bert-large-uncased", "encoders").name == "bert-large"


def test_refusals_count_in_the_score() -> None:
    rows = [decode_row(tpot_p50_ms=6.4), decode_row(id="LD2", model="Nobodys", tpot_p50_ms=6.4)]
    found = score([predict_row(row, calibration()) for row in rows])[0]
    assert (found.predicted, found.refused) == (1, 1)
    assert found.mape > 0.5


def test_the_newest_row_of_a_configuration_stands_for_it() -> None:
    rows = [decode_row(cfg=1, sdk="2.9.0"), decode_row(id="LD2", cfg=1, sdk="2.18.1")]
    assert [row.id for row in newest(rows)] == ["LD2"]


def test_a_fit_recovers_what_made_the_rows() -> None:
    """Rows that take a fifth longer than predicted move the fit there, the same way each time."""
    rows = [
        decode_row(id=f"LD{batch}{length}{tp}", batch=batch, seq_len=length, tp=tp, tpot_p50_ms=1.0)
        for batch in (1, 8)
        for length in (2048, 8192)
        for tp in (8, 24)
    ]
    c = prior_coefficients()
    seen = observations(rows)
    made = [
        decode_row(**{**one.row.values, "tpot_p50_ms": 1.2 * made_by.predicted})
        for one, made_by in zip(seen, residuals(seen, c), strict=True)
    ]
    fitted = fit(observations(made))
    assert fitted == fit(observations(made))
    ratios = [one.ratio for one in residuals(observations(made), fitted)]
    assert all(0.9 < ratio < 1.1 for ratio in ratios)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text("rows: {}")
    with pytest.raises(InvalidInput, match="holds no rows"):
        read_rows(path)
    path.write_text("- 5")
    with pytest.raises(InvalidInput, match="holds no rows"):
        read_rows(path)


def test_timing_needs_no_torch() -> None:
    code = (
        "import sys; import ridgeline_backends.neuron.calibration.score, "
        "ridgeline_backends.neuron.calibration.evaluate; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
