"""What a prediction has to beat: a roofline, the median of a configuration, the nearest row."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from statistics import median

from ridgeline_backends.neuron.calibration.evaluate import Residual, residuals
from ridgeline_backends.neuron.calibration.fit import Observation
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.timing.coefficients import Coefficients

ROOFLINE = Coefficients(
    tensor_efficiency=1.0,
    engine_efficiency=1.0,
    engine_overlap=1.0,
    weight_bandwidth=1.0,
    cache_bandwidth=1.0,
    spill_bandwidth=1.0,
    step_us=0.0,
    compiler_progress=0.0,
    collective_us=0.0,
    member_us=0.0,
    host_gb_s=1e9,
    host_step_ms=0.0,
)
"""Every part at its data sheet's speed, all at once, nothing for starting anything."""

_NEAR = ("batch", "seq_len", "input_len", "tp", "global_batch", "bytes", "ranks")


def roofline(seen: Sequence[Observation]) -> list[Residual]:
    """Each observation by the data sheet alone."""
    return residuals(seen, ROOFLINE)


def configuration_median(seen: Sequence[Observation], rows: Sequence[Row]) -> list[Residual]:
    """Each observation by the median of the other rows of its configuration, where there are."""
    found = []
    for one in seen:
        field = one.quantity.field
        others = [
            value
            for row in rows
            if row.text("cfg") == one.row.text("cfg")
            and row.category == one.row.category
            and row.id != one.row.id
            and row.usable
            and (value := row.positive(field)) is not None
        ]
        if others:
            found.append(Residual(one, median(others)))
    return found


def nearest_row(seen: Sequence[Observation]) -> list[Residual]:
    """Each observation by the row of another architecture that is nearest in its settings and in
    the roofline's time, scaled by the ratio of the two rooflines."""
    light = roofline(seen)
    found = []
    for place, one in enumerate(seen):
        others = [
            (_distance(light[place], light[other]), other)
            for other, candidate in enumerate(seen)
            if candidate.architecture != one.architecture
            and candidate.quantity.domain == one.quantity.domain
            and candidate.quantity.field == one.quantity.field
        ]
        if others:
            other = light[min(others)[1]]
            scaled = other.measured * light[place].predicted / other.predicted
            found.append(Residual(one, scaled))
    return found


def _distance(a: Residual, b: Residual) -> float:
    apart = abs(log(a.predicted / b.predicted))
    for name in _NEAR:
        left, right = a.seen.row, b.seen.row
        mine, other = left.positive(name), right.positive(name)
        if mine is not None and other is not None:
            apart += abs(log(mine / other))
    return apart
