"""What `score` says of a single row: `given`, with some `fields` of it changed."""

from __future__ import annotations

from collections.abc import Mapping

from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.calibration.score import RowPrediction, predict_row
from ridgeline_backends.neuron.timing.predict import calibration


def predicted(given: Mapping[str, object], **fields: object) -> RowPrediction:
    return predict_row(Row({"id": "X", **given, **fields}), calibration())


def value(given: Mapping[str, object], field: str, **fields: object) -> float:
    found = predicted(given, **fields)
    assert not found.refused, found.refused
    return float(found.prediction[field])


def refusal(given: Mapping[str, object], **fields: object) -> str:
    found = predicted(given, **fields)
    assert found.refused, found.prediction
    return found.refused
