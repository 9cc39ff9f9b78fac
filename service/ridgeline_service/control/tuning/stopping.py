"""Which trials are not worth going on with, by the values of the objective that they report.

Pure functions over curves: a curve is what a trial reported so far, a value a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from statistics import fmean, median

from ridgeline_service.control.tuning.spec import Hyperband, Objective

Curve = Sequence[float]

WARM_UP = 2
"""Steps of a trial that are never judged."""

PEERS = 3
"""Completed trials that a median is taken of at least."""

KEPT = 3
"""One of so many is kept at every rung of Hyperband."""


def below_median(curve: Curve, completed: Sequence[Curve], objective: Objective) -> bool:
    """The median stopping rule (Golovin et al., Google Vizier, 2017): the best value so far is
    worse than the median of the completed trials' averages up to the same step."""
    step = len(curve)
    if step < WARM_UP:
        return False
    averages = [objective.score(fmean(each[:step])) for each in completed if len(each) >= step]
    if len(averages) < PEERS:
        return False
    return max(map(objective.score, curve)) < median(averages)


def rungs(number: int, hyperband: Hyperband) -> list[int]:
    """The steps at which trial ``number`` is judged. Trials are dealt out to brackets, and a later
    bracket judges later; the last one does so only at the end."""
    least, most = hyperband.min_resource, hyperband.max_resource
    brackets = int(log(most / least, KEPT) + 1e-9) + 1
    first = (number - 1) % brackets
    steps = (least * KEPT**power for power in range(first, brackets))
    return [step for step in steps if step < most]


def out_of_rung(
    number: int, curves: Mapping[int, Curve], hyperband: Hyperband, objective: Objective
) -> bool:
    """Asynchronous successive halving (Li et al., 2020) within the trial's bracket: at the last
    rung that it reached it is not among the best third of those that came so far, or it has used
    all of MaxResource. ``curves`` are those of all trials by number."""
    mine = curves[number]
    if len(mine) >= hyperband.max_resource:
        return True
    judged = rungs(number, hyperband)
    reached = [step for step in judged if step <= len(mine)]
    if not reached:
        return False
    step = reached[-1]
    scores = [
        objective.score(curve[step - 1])
        for other, curve in curves.items()
        if len(curve) >= step and rungs(other, hyperband) == judged
    ]
    better = sum(score > objective.score(mine[step - 1]) for score in scores)
    return better >= max(1, len(scores) // KEPT)
