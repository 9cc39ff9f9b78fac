"""The next point of a search, found by Optuna from what the trials before it found.

Nothing is remembered: a study is made anew from the trials for every point, so that a control plane
that was killed goes on as if it had not been. The seed of a point is that of the tuning job with
the definition's name and the point's number.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ridgeline_service.control.tuning.ranges import Dimension, grid, points_of
from ridgeline_service.control.tuning.spec import Definition, TuningSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_DRAWS = 8
"""How often a point that was tried before is drawn anew; then one of those that are left is taken,
and where none is left, it is tried again."""

_MOST_COUNTED = 4096
"""Points of a range up to which what is left of them is looked for."""

_RANDOM_FIRST = 10


PointState = Literal["running", "completed", "stopped", "failed"]


@dataclass(frozen=True)
class Point:
    """A trial as the search sees it: what was tried, and what came of it so far."""

    parameters: Mapping[str, str]
    state: PointState
    value: float | None = None
    steps: int = 0


def next_point(
    spec: TuningSpec, definition: Definition, points: Sequence[Point], number: int, seed: int
) -> dict[str, str]:
    """What trial ``number`` (from 1) of this definition tries. ``points`` are those before it, the
    parents' first."""
    if spec.strategy == "Grid":
        return next(itertools.islice(grid(definition.dimensions), number - 1, None))
    chance = f"{seed}:{definition.name}:{number}"
    tried = [point.parameters for point in points]
    drawn: dict[str, str] = {}
    for draw in range(_DRAWS):
        drawn = _draw(spec, definition, points, random.Random(f"{chance}:{draw}"))  # noqa: S311
        if drawn not in tried:
            return drawn
    every = points_of(definition.dimensions, _MOST_COUNTED) or []
    left = [point for point in every if point not in tried]
    return random.Random(chance).choice(left) if left else drawn  # noqa: S311


def _draw(
    spec: TuningSpec, definition: Definition, points: Sequence[Point], chance: random.Random
) -> dict[str, str]:
    # Inner: importing Optuna takes half a second, and a service without tuning jobs never does.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=_sampler(spec, chance.getrandbits(32)),
        direction="maximize" if definition.objective.maximize else "minimize",
    )
    distributions = {each.name: _distribution(each) for each in definition.dimensions}
    if spec.strategy != "Random":
        found = (_frozen(point, definition.dimensions, distributions) for point in points)
        study.add_trials([trial for trial in found if trial is not None])
    asked = study.ask(distributions)
    return {
        each.name: each.text(_outer(each, asked.params[each.name]))
        for each in definition.dimensions
    }


def _sampler(spec: TuningSpec, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    if spec.strategy == "Random":
        return RandomSampler(seed=seed)
    # A search of few trials cannot spend ten of them on chance.
    first = min(_RANDOM_FIRST, max(3, spec.max_trials // 4))
    return TPESampler(seed=seed, n_startup_trials=first)


def _frozen(
    point: Point, dimensions: Sequence[Dimension], distributions: Mapping[str, BaseDistribution]
) -> FrozenTrial | None:
    """None for a point that lies outside of what is searched now, as those of parents may."""
    from optuna.trial import TrialState, create_trial

    values: dict[str, Any] = {}
    for each in dimensions:
        value = each.value(point.parameters.get(each.name, ""))
        if value is None:
            return None
        values[each.name] = _inner(each, value)
    told: dict[str, Any] = {"params": values, "distributions": dict(distributions)}
    if point.state == "running":
        return create_trial(state=TrialState.RUNNING, **told)
    if point.value is None:
        return create_trial(state=TrialState.FAIL, **told)
    if point.state == "stopped":
        steps = {max(1, point.steps): point.value}
        return create_trial(state=TrialState.PRUNED, intermediate_values=steps, **told)
    return create_trial(state=TrialState.COMPLETE, value=point.value, **told)


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "categorical":
        return CategoricalDistribution(dimension.values)
    log = dimension.scale != "linear"
    if dimension.kind == "integer":
        return IntDistribution(int(dimension.low), int(dimension.high), log=log)
    low, high = dimension.low, dimension.high
    if dimension.scale == "reverse":
        low, high = 1 - high, 1 - low
    return FloatDistribution(low, high, log=log)


def _inner(dimension: Dimension, value: Any) -> Any:
    """A value as its distribution has it: a reverse scale is a logarithmic one of what is missing
    to 1."""
    if dimension.kind == "integer":
        return int(value)
    if dimension.scale != "reverse":
        return value
    return min(max(1 - value, 1 - dimension.high), 1 - dimension.low)


def _outer(dimension: Dimension, value: Any) -> Any:
    if dimension.scale != "reverse":
        return value
    return min(max(1 - value, dimension.low), dimension.high)
