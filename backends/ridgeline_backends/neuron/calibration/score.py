"""Scoring predictions of rows: what is predicted of each, and how far off each category is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from ridgeline.errors import RidgelineError
from ridgeline_backends.neuron.calibration.memory import memory_prediction
from ridgeline_backends.neuron.calibration.quantity import Quantity, Simulated
from ridgeline_backends.neuron.calibration.rows import SCORED, Row, newest
from ridgeline_backends.neuron.calibration.workloads import quantities
from ridgeline_backends.neuron.catalogue import find
from ridgeline_backends.neuron.timing.predict import Calibration, Label

_ORDER: tuple[Label, ...] = ("calibrated", "extrapolated", "prior-only")
_GUESSED = 1.5
"""The interval of a model whose sizes are guessed from its name is wider by this factor."""


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
    """Errors of one category, over the fields of rows whose sources are not in doubt."""

    category: str
    predicted: int
    refused: int
    mape: float
    median: float
    p90: float
    bias: float
    within_20: float
    coverage: float


def predict_row(row: Row, known: Calibration) -> RowPrediction:
    """All fields of a row that can be predicted, whether or not the row has them."""
    try:
        if row.category == "memory":
            fits, label = memory_prediction(row)
            answer = {"fits": fits}
            return RowPrediction(row, label, answer, answer, answer)
        found = quantities(row)
    except RidgelineError as error:
        return RowPrediction(row, None, {}, {}, {}, refused=error.message)
    wider = 1.0 if _known(row) else _GUESSED
    value, low, high = {}, {}, {}
    labels: set[Label] = set()
    for one in found:
        value[one.field], low[one.field], high[one.field] = _interval(one, known, wider)
        labels.add(known.spread(one.domain).label)
    label = max(labels, key=_ORDER.index)
    return RowPrediction(row, label if wider == 1.0 else "prior-only", value, low, high)


def errors(predictions: Sequence[RowPrediction]) -> list[Error]:
    """Of every field that a row has: the newest row per configuration, none whose source is in
    doubt. A refusal counts as 100% of the row's first field."""
    wanted = {one.id for one in newest([p.row for p in predictions if p.row.usable])}
    found = []
    for prediction in predictions:
        row = prediction.row
        if row.id not in wanted:
            continue
        for field, value in prediction.prediction.items():
            if row.has(field) and not isinstance(row.values[field], bool) and row.number(field) > 0:
                low, high = prediction.low[field], prediction.high[field]
                found.append(Error(row, field, value, row.number(field), low, high))
    return found


def score(predictions: Sequence[RowPrediction]) -> list[CategoryScore]:
    """One score per category, in the order of `SCORED`, others behind."""
    by_category: dict[str, list[RowPrediction]] = {}
    for one in predictions:
        by_category.setdefault(one.row.category, []).append(one)
    names = [*SCORED, *sorted(set(by_category) - set(SCORED))]
    return [_score(name, by_category[name]) for name in names if name in by_category]


def _score(category: str, predictions: Sequence[RowPrediction]) -> CategoryScore:
    refused = [one for one in predictions if one.refused]
    usable = {one.id for one in newest([p.row for p in predictions if p.row.usable])}
    counted = sum(one.row.id in usable for one in refused)
    found = _fits(predictions) if category == "memory" else errors(predictions)
    relative = [one.relative for one in found] + [-1.0] * counted
    sizes = sorted(abs(one) for one in relative) or [0.0]
    covered = [one.covered for one in found] + [False] * counted
    return CategoryScore(
        category=category,
        predicted=len(predictions) - len(refused),
        refused=len(refused),
        mape=mean(sizes),
        median=median(sizes),
        p90=sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))],
        bias=mean(relative or [0.0]),
        within_20=mean(size <= 0.2 for size in sizes),
        coverage=mean(covered or [True]),
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
    return value, value * spread.low / wider, value * spread.high * wider


def _known(row: Row) -> bool:
    """Whether the sizes of a decoder are known, not guessed."""
    if row.config is not None or row.category not in ("llm_decode", "llm_profile", "serving"):
        return True
    return find(row.model, "decoders").exact
