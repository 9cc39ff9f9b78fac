"""What a rows file holds is read as it is meant: JSON numbers, dates, sweeps, counts of cores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest
from single_rows import predicted, refusal, value

from ridgeline_backends.neuron.calibration.dates import read_date
from ridgeline_backends.neuron.calibration.rows import Row, newest, read_rows, releases
from ridgeline_backends.neuron.calibration.score import predict_row
from ridgeline_backends.neuron.datafile import read_plain
from ridgeline_backends.neuron.timing.predict import calibration

LLAMA: Mapping[str, object] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 8192,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "rms_norm_eps": 1e-05, "initializer_range": 2e-2,
}  # fmt: skip
DECODE: Mapping[str, object] = {
    "cat": "llm_decode", "config": LLAMA, "instance": "trn2.48xlarge", "tp": 16, "batch": 1,
    "seq_len": 4096, "input_len": 1024, "framework": "NxD Inference",
}  # fmt: skip
ENCODER: Mapping[str, object] = {
    "cat": "encoder", "model": "bert-base-cased", "instance": "inf2.xlarge", "batch": 8,
    "seq_len": 128, "run_mode": "Data Parallel",
}  # fmt: skip
INFERENTIA1: Mapping[str, object] = {
    **ENCODER, "model": "BERT base", "instance": "inf1.xlarge", "batch": 4, "app": "Batch",
}  # fmt: skip
IMAGES: Mapping[str, object] = {
    "cat": "vision", "model": "resnet50", "instance": "inf2.xlarge", "batch": 8, "app": "Batch",
    "run_mode": "Data Parallel",
}  # fmt: skip


def read(folder: Path, *rows: Mapping[str, object]) -> list[Row]:
    """Rows written as JSON, a line each: what YAML calls a flow mapping."""
    file = folder / "rows.yaml"
    lines = [f"- {json.dumps({'id': f'R{place}', **row})}" for place, row in enumerate(rows)]
    file.write_text("\n".join(["rows:", *lines]))
    return read_rows(file)


def test_a_config_that_is_written_as_json_is_read(tmp_path: Path) -> None:
    assert "1e-05" in json.dumps(LLAMA)
    (row,) = read(tmp_path, DECODE)
    found = predict_row(row, calibration())
    assert not found.refused
    assert found.prediction == predicted(DECODE).prediction


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-05", 1e-5), ("1E5", 1e5), ("1e+3", 1e3), ("-2.5e-3", -2.5e-3), (".5e1", 5.0),
     ("1.e2", 100.0), ("2.20", 2.2), ("7", 7)],
)  # fmt: skip
def test_numbers_are_those_of_json(tmp_path: Path, written: str, number: float) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(f"a: {written}")
    assert read_plain(file) == {"a": number}


@pytest.mark.parametrize("written", ["'1e-05'", "1e-05b", "e5", "S1e5", "2026-03-1e"])
def test_what_is_no_number_stays_a_text(tmp_path: Path, written: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(f"a: {written}")
    assert read_plain(file) == {"a": written.strip("'")}


def test_numbers_of_a_config_may_be_texts() -> None:
    texts = {name: str(one) if isinstance(one, int) else one for name, one in LLAMA.items()}
    texts["rms_norm_eps"] = "1e-05"
    assert value(DECODE, "tpot_p50_ms", config=texts) == value(DECODE, "tpot_p50_ms")
    many = {**LLAMA, "num_hidden_layers": "many"}
    assert "num_hidden_layers in config.json must be" in refusal(DECODE, config=many)


def test_a_sweep_is_known_in_any_letters(tmp_path: Path) -> None:
    base = {"cat": "serving", "model": "Llama-3.1-8B", "instance": "inf2.48xlarge", "tp": 8}
    full = {**base, "mode": "Throughput"}
    rate = {**base, "mode": " Asynchronous", "rate_req_s": 1.9, "tp": "8", "model": "llama-3.1-8b"}
    assert [row.swept for row in read(tmp_path, full, rate)] == [False, True]
    assert [row.swept for row in read(tmp_path, full, {**rate, "tp": 4})] == [False, False]


@pytest.mark.parametrize(
    ("written", "day"),
    [("2026-03-17", date(2026, 3, 17)), ("2026/3/5", date(2026, 3, 5)),
     ("2026-03-17 14:11:21", date(2026, 3, 17)), ("2026-03-17T14:11Z", date(2026, 3, 17)),
     ("2025-10", date(2025, 10, 1)), ("2022", date(2022, 1, 1)),
     ("October 2025", date(2025, 10, 1)), ("5 Oct. 2025", date(2025, 10, 5)),
     ("Sept 3rd, 2025", date(2025, 9, 3)), ("unknown", None), ("", None)],
)  # fmt: skip
def test_a_date_is_read_in_any_spelling(written: str, day: date | None) -> None:
    assert read_date(written) == day


@pytest.mark.parametrize("written", ["soon", "2026-13-01", "03/04/2026", "Octember 2025", "2026 3"])
def test_what_is_no_date_is_refused(written: str) -> None:
    said = refusal(DECODE, date=written)
    assert f"X: date {written!r} is no date" in said
    assert "Write it as 2026-03-17" in said
    # The rows beside it are still put in order.
    assert len(newest([Row({"id": "A", "date": written}), Row({"id": "B"})])) == 2


def test_the_newest_row_is_that_of_the_latest_day() -> None:
    days = ["October 2025", "2026/01/05", "2025-12-30"]
    rows = [Row({"id": one, "cfg": 1, "cat": "encoder", "date": one}) for one in days]
    assert [one.id for one in newest(rows)] == ["2026/01/05"]


def test_releases_are_in_order_and_each_is_there_once() -> None:
    sdks = ["2.20.0", "2.9.0", "2.12.0", "2.12.1", None]
    rows = [Row({"id": str(sdk), "cat": "encoder", "sdk": sdk}) for sdk in sdks]
    assert [one.id for one in releases(rows)] == ["2.9.0", "2.12.1", "2.20.0"]


def test_calls_of_inferentia1_are_one_per_core_where_its_tables_leave_threads_out() -> None:
    found, printed = predicted(INFERENTIA1), predicted(INFERENTIA1, threads=4, cores=4)
    assert found.as_json() == printed.as_json()
    twice = value(INFERENTIA1, "lat_p50_ms", threads=8, cores=4)
    assert value(INFERENTIA1, "lat_p50_ms") == pytest.approx(twice / 2)


@pytest.mark.parametrize("row", [IMAGES, INFERENTIA1])
def test_a_run_of_batches_is_one_in_any_letters(row: Mapping[str, object]) -> None:
    found = predicted(row).as_json()
    assert found != predicted(row, app="Real Time").as_json()
    for written in ("batch", "BATCH", " Batch ", "batched"):
        assert predicted(row, app=written).as_json() == found


@pytest.mark.parametrize(
    "written", ["sequence classification", "SEQUENCE CLASSIFICATION", "text-classification"]
)
def test_a_classifier_is_one_in_any_letters(written: str) -> None:
    long = {**ENCODER, "batch": 64, "seq_len": 512}
    wanted = value(long, "lat_p50_ms", task="Sequence Classification")
    assert value(long, "lat_p50_ms", task=written) == wanted
    # Two numbers are read back, not hidden states.
    assert wanted < value(long, "lat_p50_ms")


def test_a_task_of_the_tables_is_one_in_any_letters() -> None:
    row = {**ENCODER, "model": "xlm-roberta-base"}
    wanted = predicted(row, task="Raw Output (AutoModel)").as_json()
    assert predicted(row, task="raw output (automodel)").as_json() == wanted
    assert predicted(row, task="another").as_json() != wanted


@pytest.mark.parametrize("row", [ENCODER, IMAGES])
def test_cores_that_a_machine_does_not_have_are_refused(row: Mapping[str, object]) -> None:
    assert "X: cores 12 are more than the 2 cores of inf2.xlarge" in refusal(row, cores=12)
    assert value(row, "inf_s", cores=2) > value(row, "inf_s", cores=1)
