"""`ridgeline neuron score` and `fit`: what is compared, what is not, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from ridgeline.errors import InvalidInput, RidgelineError
from ridgeline_backends.neuron.calibration.fit import NothingToFit
from ridgeline_backends.neuron.commands import app
from ridgeline_backends.neuron.datafile import read_plain

ROW: Mapping[str, object] = {
    "id": "LD1",
    "cat": "llm_decode",
    "model": "Llama-3-8B",
    "instance": "inf2.48xlarge",
    "framework": "Transformers NeuronX",
    "tp": 24,
    "batch": 1,
    "seq_len": 4096,
    "input_len": 128,
    "output_len": 3968,
    "sdk": "2.18.0",
}


def invoked(folder: Path, command: str, *rows: Mapping[str, object]) -> Result:
    file = folder / "rows.yaml"
    file.write_text(yaml.safe_dump({"rows": [{**ROW, **one} for one in rows]}))
    command, *options = command.split()
    return CliRunner().invoke(app, [command, str(file), *options])


def scored(folder: Path, *rows: Mapping[str, object]) -> tuple[dict[str, str], str]:
    """The cells of the one category, by column, and what is said beside the table."""
    done = invoked(folder, "score", *rows)
    assert done.exit_code == 0, done.output
    columns, line = (one.split() for one in done.stdout.replace("WITHIN 20%", "NEAR").splitlines())
    return dict(zip(columns, line, strict=True)), done.stderr


def refusal(done: Result) -> RidgelineError:
    assert isinstance(done.exception, RidgelineError), done.output
    return done.exception


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**400, -9.0, 0, "fast", True, [6.4]]
)
def test_a_field_that_is_no_measurement_is_not_compared_and_said(
    tmp_path: Path, value: object
) -> None:
    cells, said = scored(tmp_path, {"tpot_p50_ms": value})
    assert (cells["PREDICTED"], cells["COMPARED"], cells["REFUSED"]) == ("1", "0", "0")
    assert {cells[name] for name in ("MAPE", "MEDIAN", "P90", "BIAS", "NEAR", "COVERED")} == {"-"}
    assert "Not compared: LD1: tpot_p50_ms is no number above 0" in said


def test_a_misspelt_field_is_said_with_the_one_that_is_meant(tmp_path: Path) -> None:
    cells, said = scored(tmp_path, {"tpot_p50": 6.4})
    assert cells["COMPARED"] == "0"
    assert "Not compared: LD1: tpot_p50 is not predicted, is tpot_p50_ms meant?" in said


def test_a_row_that_measures_nothing_is_said_and_others_are_compared(tmp_path: Path) -> None:
    without = [{"id": f"LD{place}"} for place in range(2, 8)]
    cells, said = scored(tmp_path, {"tpot_p50_ms": 6.4, "ttft_p50_ms": "soon"}, *without)
    assert (cells["PREDICTED"], cells["COMPARED"]) == ("7", "1")
    assert cells["MAPE"].endswith("%")
    assert "LD2, LD3, LD4 and 3 more: none of ttft_p50_ms, tpot_p50_ms" in said
    assert "Not compared: LD1: ttft_p50_ms is no number above 0" in said


def test_a_category_that_is_not_predicted_has_no_errors(tmp_path: Path) -> None:
    cells, said = scored(tmp_path, {"cat": "vlm", "tpot_p50_ms": 6.4})
    assert (cells["PREDICTED"], cells["REFUSED"]) == ("0", "1")
    assert (cells["MAPE"], cells["BIAS"]) == ("-", "-")
    assert "Refused: LD1: rows of category 'vlm' are not predicted" in said


@pytest.mark.parametrize("value", ["many", True, [1], float("nan"), float("inf"), 10**400])
def test_a_setting_of_a_wrong_type_is_refused_with_its_value(tmp_path: Path, value: object) -> None:
    done = invoked(tmp_path, "score --json", {"batch": value, "tpot_p50_ms": 6.4})
    (answer,) = map(json.loads, done.stdout.splitlines())
    assert set(answer) == {"id", "refused"}
    assert f"batch must be a number, not {value!r}" in answer["refused"]


def test_a_setting_that_is_absent_or_null_has_its_default(tmp_path: Path) -> None:
    def predicted(row: dict[str, object]) -> Any:
        return json.loads(invoked(tmp_path, "score --json", row).stdout)["prediction"]

    assert predicted({"batch": None}) == predicted({"batch": 1})


@pytest.mark.parametrize("command", ["score", "fit"])
def test_an_empty_list_of_rows_is_refused(tmp_path: Path, command: str) -> None:
    error = refusal(invoked(tmp_path, command))
    assert isinstance(error, InvalidInput)
    assert "holds no rows" in error.message
    assert "empty" in error.hint


@pytest.mark.parametrize("lacks", ["id", "cat"])
def test_a_row_without_a_name_or_a_category_is_one_refusal(tmp_path: Path, lacks: str) -> None:
    rows = [{"tpot_p50_ms": 6.4}, {"id": "LD2", "tpot_p50_ms": 6.5, lacks: None}]
    first, second = map(json.loads, invoked(tmp_path, "score --json", *rows).stdout.splitlines())
    assert first["prediction"]
    assert f"lacks `{lacks}`. Give each row an `id` of its own" in second["refused"]
    assert "row 2" in second["id"]
    done = invoked(tmp_path, "score", *rows)
    assert done.exit_code == 0
    assert f"lacks `{lacks}`" in done.stderr


def test_an_id_that_is_there_twice_is_one_refusal_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.yaml"
    file.write_text("# Mine.\nrows:\n- {id: A, cat: vision}\n- {id: B, cat: vision}\n"
                    "- id: A\n  cat: encoder\n")  # fmt: skip
    done = CliRunner().invoke(app, ["score", str(file), "--json"])
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["id"] for one in answers] == ["A", "B", "A (row 3)"]
    assert "'A' is there twice: lines 3 and 5" in answers[2]["refused"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"rows: [\xff\xfe]", "is no UTF-8 text"),
        (b"rows: [{id: \x07}]", "no YAML"),
        (b"rows: [{id: A, cat: vision, date: 2024-13-45}]", "no YAML"),
        (b"rows: [}", "no YAML"),
    ],
)
def test_a_file_that_is_no_text_or_no_yaml_is_refused(
    tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "rows.yaml"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        read_plain(file)


@pytest.mark.parametrize(
    "rows",
    [
        [{"tpot_p50_ms": -9.0}],
        [{"tpot_p50_ms": 6.4, "model": "Nobodys"}],
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    error = refusal(invoked(tmp_path, f"fit --output {tmp_path / 'fitted.yaml'}", *rows))
    assert isinstance(error, NothingToFit)
    assert "No row can be fitted" in error.message
    assert "two architectures" in error.hint


def test_rows_of_one_architecture_are_not_enough_for_a_fit(tmp_path: Path) -> None:
    rows = [{"tpot_p50_ms": 6.4}, {"id": "LD2", "tpot_p50_ms": 6.5}]
    error = refusal(invoked(tmp_path, f"fit --output {tmp_path / 'fitted.yaml'}", *rows))
    assert isinstance(error, NothingToFit)
    assert "one architecture" in error.message
    assert not (tmp_path / "fitted.yaml").exists()


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_a_fit_says_before_it_begins_that_it_cannot_write(tmp_path: Path, option: str) -> None:
    error = refusal(invoked(tmp_path, f"fit {option} {tmp_path / 'nowhere' / 'x'}", {}))
    assert isinstance(error, InvalidInput)
    assert "nowhere" in error.message


def test_a_fit_says_how_far_it_is(tmp_path: Path) -> None:
    rows = [
        {"id": "LD1", "tpot_p50_ms": 6.4},
        {"id": "LD2", "tpot_p50_ms": 12.0, "model": "Llama-2-13b"},
        {"id": "LD3", "tpot_p50_ms": 40.0, "model": "Llama-2-70b"},
    ]
    done = invoked(tmp_path, f"fit --output {tmp_path / 'fitted.yaml'}", *rows)
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    assert lines[:2] == ["reading 3 rows: building what they ran", "[1/4] fit to all 3 fields"]
    places, models = zip(*(line.split(" fit without ") for line in lines[2:]), strict=True)
    assert places == ("[2/4]", "[3/4]", "[4/4]")
    assert set(models) == {"Llama-3-8B", "Llama-2-13b", "Llama-2-70b"}
    assert (tmp_path / "fitted.yaml").exists()
