"""Rows that nobody has seen: what they say is predicted or refused, and nothing else happens."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.errors import InvalidInput
from ridgeline_backends.neuron.calibration import score
from ridgeline_backends.neuron.calibration.rows import Row, read_rows
from ridgeline_backends.neuron.calibration.score import INTERNAL, predict_row
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.timing.predict import calibration

ROWS = yaml.safe_load((Path(__file__).parents[2] / "data" / "neuron" / "rows.yaml").read_text())[
    "rows"
]
VALUES = {
    name: [row[name] for row in ROWS if name in row]
    for name in sorted({name for row in ROWS for name in row} - {"id", "cat"})
}
ODD = st.sampled_from([None, 0, -1, 2.5, True, "weird", [], {}])


@st.composite
def altered(draw: st.DrawFn) -> dict[str, object]:
    """A published row with fields lost, odd, or of another row."""
    row = dict(draw(st.sampled_from(ROWS)))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(row.keys() - {"id", "cat"})))
        match draw(st.sampled_from(("lost", "another's", "odd"))):
            case "lost":
                del row[name]
            case "another's":
                row[name] = draw(st.sampled_from(VALUES[name]))
            case _:
                row[name] = draw(ODD)
    return row


@given(row=altered())
@settings(max_examples=100, deadline=None)
def test_any_row_is_predicted_or_refused(
    row: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.yaml"
    file.write_text(yaml.safe_dump({"rows": [row]}))
    try:
        found = read_rows(file)
    except InvalidInput:
        return
    for one in found:
        predicted = predict_row(one, calibration())
        assert predicted.refused or predicted.prediction
        assert not predicted.refused.startswith(INTERNAL), predicted.refused
        if one.category == "memory":
            continue
        for field, value in predicted.prediction.items():
            low, high = predicted.low[field], predicted.high[field]
            assert 0 < low <= value <= high < math.inf


def test_no_published_row_is_refused_but_by_its_category() -> None:
    """A fault of ours would be a refusal too."""
    for one in ROWS[:: len(ROWS) // 60]:
        predicted = predict_row(Row(one), calibration())
        assert bool(predicted.refused) == ("are not predicted" in predicted.refused)


def test_a_fault_of_ours_costs_one_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(row: Row) -> object:
        if row.id == "B":
            raise ZeroDivisionError("division by zero")
        return quantities(row)

    monkeypatch.setattr(score, "quantities", failing)
    row = next(one for one in ROWS if one["cat"] == "collective")
    file = tmp_path / "rows.yaml"
    file.write_text(yaml.safe_dump({"rows": [{**row, "id": one} for one in "ABC"]}))
    found = [predict_row(one, calibration()) for one in read_rows(file)]
    assert [one.refused for one in found] == [
        "",
        f"{INTERNAL}ZeroDivisionError: division by zero",
        "",
    ]
    assert [one.predicted for one in score.score(found)] == [2]
    (logged,) = caplog.records
    assert "row B" in logged.getMessage()
    assert logged.exc_info


def test_training_of_a_model_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    row = {"id": "T1", "cat": "training", "model": "nobody's", "instance": "trn1.32xlarge"}
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 0}
    file = tmp_path / "rows.yaml"
    file.write_text(yaml.safe_dump({"rows": [{**row, "global_batch": 64, "config": sizes}]}))
    (one,) = read_rows(file)
    assert "vocab_size above 0" in predict_row(one, calibration()).refused
