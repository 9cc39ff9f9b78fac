"""Scoring predictions of rows: what is predicted of each, and how far off each category is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from statistics import mean, median

from ridgeline.errors import RidgelineError
from ridgeline_backends.neuron.calibration.memory import memory_prediction
from ridgeline_backends.neuron.calibration.quantity import (
    NobodyAnswered,
    Quantity,
    Simulated,
    reaching,
)
from ridgeline_backends.neuron.calibration.rows import SCORED, Row, newest
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.calibration.workloads.decode import is_library_known
from ridgeline_backends.neuron.calibration.workloads.topologies import is_topology_read
from ridgeline_backends.neuron.calibration.workloads.training import are_sizes_known
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.timing.predict import Calibration, Label

_ORDER: tuple[Label, ...] = ("calibrated", "extrapolated", "prior-only")
_LOG = logging.getLogger(__name__)

INTERNAL = "internal error: "
"""How the refusal of a row begins that is our fault."""

_MISSPELT = 0.8
_GUESSED = 1.5
"""The interval of a row of which something is guessed is wider by this factor."""


@dataclass(frozen=True, slots=True)
class RowPrediction:
    """`prediction`, `low`, `high` by the row's own field names; or why there is none."""

    row: Row
    label: Label | None
    prediction: Mapping[str, float | bool]
    low: Mapping[str, float | bool]
    high: Mapping[str, float | bool]
    refused: str = ""

    def as_json(self) -> dict[str, object]:
        if self.refused:
            return {"id": self.row.id, "refused": self.refused}
        return {
            "id": self.row.id,
            "label": self.label,
            "prediction": dict(self.prediction),
            "low": dict(self.low),
            "high": dict(self.high),
        }


@dataclass(frozen=True, slots=True)
class Error:
    """One field of one row, predicted and measured."""

    row: Row
    field: str
    predicted: float
    measured: float
    low: float
    high: float

    @property
    def relative(self) -> float:
        """Signed. A bound that is kept is no error."""
        if self.row.one_sided and self.predicted <= self.measured:
            return 0.0
        return self.predicted / self.measured - 1

    @property
    def covered(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """Errors of one category, over the fields of rows whose sources are not in doubt. `compared`:
    how many fields; the errors are None where there is none."""

    category: str
    predicted: int
    compared: int
    refused: int
    mape: float | None = None
    median: float | None = None
    p90: float | None = None
    bias: float | None = None
    within_20: float | None = None
    coverage: float | None = None


def predict_row(row: Row, known: Calibration) -> RowPrediction:
    """All fields of a row that can be predicted, whether or not the row has them. A fault of ours
    costs that row alone: it is refused, and the traceback logged."""
    try:
        return _predicted(row, known)
    except RidgelineError as error:
        reason = f"{error.message} {error.hint}".rstrip()
    except Exception as error:  # noqa: BLE001  whatever it is, the other rows are predicted
        _LOG.exception("no prediction of row %s", row.id)
        reason = f"{INTERNAL}{type(error).__name__}: {error}"
    return RowPrediction(row, None, {}, {}, {}, refused=reason)


def _predicted(row: Row, known: Calibration) -> RowPrediction:
    row.check()
    if row.category == "memory":
        fits, label = memory_prediction(row)
        answer = {"fits": fits}
        return RowPrediction(row, label, answer, answer, answer)
    found = quantities(row)
    wider = 1.0 if _known(row) else _GUESSED
    value, low, high = {}, {}, {}
    labels: set[Label] = set()
    unanswered = None
    for one in found:
        try:
            interval = _interval(one, known, wider)
        except NobodyAnswered as error:
            unanswered = error
            continue
        if not all(0 < end <= sys.float_info.max for end in interval):
            raise ArithmeticError(f"{one.field} came out as {interval[0]}")
        value[one.field], low[one.field], high[one.field] = interval
        labels.add(known.spread(one.domain).label)
    if unanswered is not None and not value:
        raise unanswered
    label = max(labels, key=_ORDER.index)
    return RowPrediction(row, label if wider == 1.0 else "prior-only", value, low, high)


def errors(predictions: Sequence[RowPrediction]) -> list[Error]:
    """Of every field that a row measured and that was predicted: the newest row per configuration,
    none whose source is in doubt."""
    found = []
    for one in _counted(predictions):
        for field, value in one.prediction.items():
            measured = one.row.positive(field)
            if measured is not None:
                low, high = one.low[field], one.high[field]
                found.append(Error(one.row, field, value, measured, low, high))
    return found


def not_compared(predictions: Sequence[RowPrediction]) -> list[tuple[str, str]]:
    """The id of each row that was predicted and that nothing, or not all, can be compared with; and
    why."""
    found = []
    for one in _counted(predictions):
        row = one.row
        if row.category == "memory":
            if one.prediction and not isinstance(row.values.get("fits"), bool):
                found.append((row.id, "fits is neither true nor false"))
            continue
        given = [field for field in one.prediction if row.values.get(field) is not None]
        wrong = [field for field in given if row.positive(field) is None]
        found += [(row.id, f"{field} is no number above 0") for field in wrong]
        if one.prediction and not given:
            found.append((row.id, _nothing_measured(row, list(one.prediction))))
    return found


def _nothing_measured(row: Row, predicted: Sequence[str]) -> str:
    for field in row.values:
        near = get_close_matches(str(field), predicted, n=1, cutoff=_MISSPELT)
        if near:
            return f"{field} is not predicted, is {near[0]} meant?"
    return f"none of {', '.join(predicted)} is there"


def _counted(predictions: Sequence[RowPrediction]) -> list[RowPrediction]:
    wanted = {one.id for one in newest([p.row for p in predictions if p.row.usable])}
    return [one for one in predictions if one.row.id in wanted]


def score(predictions: Sequence[RowPrediction]) -> list[CategoryScore]:
    """One score per category, in the order of `SCORED`, others behind."""
    by_category: dict[str, list[RowPrediction]] = {}
    for one in predictions:
        by_category.setdefault(one.row.category, []).append(one)
    names = [*SCORED, *sorted(set(by_category) - set(SCORED))]
    return [_score(name, by_category[name]) for name in names if name in by_category]


def _score(category: str, predictions: Sequence[RowPrediction]) -> CategoryScore:
    """A refusal counts as an error of 100% beside what was compared; alone it is only counted."""
    refused = sum(bool(one.refused) for one in predictions)
    predicted = len(predictions) - refused
    found = _fits(predictions) if category == "memory" else errors(predictions)
    if not found:
        return CategoryScore(category, predicted, 0, refused)
    counted = sum(bool(one.refused) for one in _counted(predictions))
    relative = [one.relative for one in found] + [-1.0] * counted
    sizes = sorted(abs(one) for one in relative)
    return CategoryScore(
        category=category,
        predicted=predicted,
        compared=len(found),
        refused=refused,
        mape=mean(sizes),
        median=median(sizes),
        p90=sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))],
        bias=mean(relative),
        within_20=mean(size <= 0.2 for size in sizes),
        coverage=mean([one.covered for one in found] + [False] * counted),
    )


def _fits(predictions: Sequence[RowPrediction]) -> list[Error]:
    """Right is no error, wrong one of 100%."""
    return [
        Error(one.row, "fits", 1.0 if one.prediction["fits"] == truth else 2.0, 1.0, 1.0, 1.0)
        for one in predictions
        if not one.refused and isinstance(truth := one.row.values.get("fits"), bool)
    ]


def _interval(
    one: Quantity | Simulated, known: Calibration, wider: float
) -> tuple[float, float, float]:
    value = one.predicted(known.coefficients)
    spread = known.spread(one.domain)
    low, high = value * spread.low / wider, value * spread.high * wider
    return value, *reaching(one, known.coefficients, low, high)


def _known(row: Row) -> bool:
    """Whether a decoder's sizes and library are known, not guessed; and how training is cut."""
    if row.category == "training":
        return is_topology_read(row) and are_sizes_known(row)
    if row.category not in ("llm_decode", "llm_profile", "serving"):
        return True
    sized = row.config is not None or find(row.model, "decoders").exact
    return sized and is_library_known(row)
