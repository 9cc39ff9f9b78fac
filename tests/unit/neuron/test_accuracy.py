"""No category of the published rows may get worse by more than a point.

`accuracy.yaml` holds the mean absolute error of every category as it was committed, in percent.
Whoever makes a category better writes the new figure there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ridgeline_backends.neuron.calibration.rows import SCORED, Row, read_rows
from ridgeline_backends.neuron.calibration.score import RowPrediction, predict_row, score
from ridgeline_backends.neuron.timing.predict import calibration

DATA = Path(__file__).parents[2] / "data" / "neuron"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row for row in read_rows(DATA / "rows.yaml") if row.category in SCORED]


@pytest.fixture(scope="module")
def predictions(rows: list[Row]) -> list[RowPrediction]:
    return [predict_row(row, calibration()) for row in rows]


def test_no_category_got_worse(predictions: list[RowPrediction]) -> None:
    committed = yaml.safe_load((DATA / "accuracy.yaml").read_text())
    found = {one.category: 100 * one.mape for one in score(predictions)}
    assert set(found) == set(committed)
    worse = {name: mape for name, mape in found.items() if mape > committed[name] + 1}
    assert worse == {}


ANSWERS = re.compile(
    r"_(ms|us|mfu|mbu|hfu)$|tok_s|seq_per_s|inf_s|req_s|exec_s|e2e_s|inflight|gib_s"
)


def test_no_answer_is_an_input(rows: list[Row]) -> None:
    """Nor what was computed from answers, such as `inflight_batches`: a rate times a latency."""
    known = calibration()
    for row in rows[::4]:
        twisted = {
            name: value * 1.37
            if isinstance(value, float | int) and ANSWERS.search(name) and name != "rate_req_s"
            else value
            for name, value in row.values.items()
        }
        other = predict_row(replace(row, values=twisted), known)
        assert other.prediction == predict_row(row, known).prediction, row.id


def test_few_rows_are_refused(predictions: list[RowPrediction]) -> None:
    for one in score(predictions):
        if one.category != "memory":
            assert one.refused <= 0.05 * (one.predicted + one.refused), one.category


def test_intervals_hold_the_value_and_most_rows(predictions: list[RowPrediction]) -> None:
    for one in predictions:
        for field, value in one.prediction.items():
            assert one.low[field] <= value <= one.high[field]
    for category in score(predictions):
        if category.category != "memory":
            assert category.coverage >= 0.85, category.category


def test_nothing_that_did_not_fit_is_said_to_fit(predictions: list[RowPrediction]) -> None:
    wrong = [
        one.row.id
        for one in predictions
        if one.prediction.get("fits") is True and one.row.values.get("fits") is False
    ]
    assert wrong == []
