"""The parts of a search that are pure: ranges, specs, the next point, who is stopped early."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline_service.control.tuning.ranges import Dimension, dimensions_of
from ridgeline_service.control.tuning.search import Point, next_point
from ridgeline_service.control.tuning.spec import Hyperband, Objective, TuningSpec, spec_of
from ridgeline_service.control.tuning.stopping import below_median, out_of_rung, rungs
from ridgeline_service.errors import ValidationException

LESS = Objective("loss", maximize=False)


def tuning_request(**changes: Any) -> dict[str, Any]:
    config = {
        "Strategy": "Random",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2},
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ParameterRanges": {
            "ContinuousParameterRanges": [
                {"Name": "lr", "MinValue": "1e-4", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
            ],
            "IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "8"}],
            "CategoricalParameterRanges": [{"Name": "kind", "Values": ['"a"', '"b"']}],
        },
        **changes.pop("config", {}),
    }
    algorithm = {
        "TrainingImage": "i",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
    }
    definition = {
        "StaticHyperParameters": {"epochs": "9"},
        "AlgorithmSpecification": algorithm,
        **changes.pop("definition", {}),
    }
    found = {"HyperParameterTuningJobConfig": config, "TrainingJobDefinition": definition}
    return {key: value for key, value in {**found, **changes}.items() if value is not None}


def refusal(request: dict[str, Any]) -> str:
    with pytest.raises(ValidationException) as caught:
        spec_of(request)
    return caught.value.message


@pytest.mark.parametrize("strategy", ["Random", "Bayesian", "Hyperband"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.integers(1, 30), reverse=st.booleans())
def test_every_point_lies_in_its_ranges_and_is_the_same_again(
    strategy: str, seed: int, number: int, reverse: bool
) -> None:
    ranges = {
        "ContinuousParameterRanges": [
            {
                "Name": "x",
                "MinValue": "0.5" if reverse else "1e-6",
                "MaxValue": "0.999",
                "ScalingType": "ReverseLogarithmic" if reverse else "Logarithmic",
            }
        ],
        "IntegerParameterRanges": [{"Name": "k", "MinValue": "-3", "MaxValue": "300"}],
        "CategoricalParameterRanges": [{"Name": "c", "Values": ["a", "b"]}],
    }
    spec = spec_of(tuning_request(config={"Strategy": strategy, "ParameterRanges": ranges}))
    definition = spec.definitions[0]
    points: list[Point] = []
    for each in range(1, 6):
        drawn = next_point(spec, definition, points, each, seed)
        points.append(Point(drawn, "completed", float(each)))
    drawn = next_point(spec, definition, points, number, seed)
    assert drawn == next_point(spec, definition, points, number, seed)
    assert drawn != next_point(spec, definition, points, number + 1, seed)
    for dimension in definition.dimensions:
        assert dimension.value(drawn[dimension.name]) is not None


def test_scales_share_out_a_range() -> None:
    def drawn(scale: str, low: str, high: str) -> list[float]:
        item = {"Name": "x", "MinValue": low, "MaxValue": high, "ScalingType": scale}
        ranges = {"ContinuousParameterRanges": [item]}
        spec = spec_of(tuning_request(config={"ParameterRanges": ranges}))
        points = (next_point(spec, spec.definitions[0], [], each, 1) for each in range(1, 120))
        return [float(point["x"]) for point in points]

    assert 1e-4 < median(drawn("Logarithmic", "1e-6", "1")) < 1e-2
    assert 1e-4 < median(drawn("Auto", "1e-6", "1")) < 1e-2
    assert 0.3 < median(drawn("Linear", "1e-6", "1")) < 0.7
    assert 1e-4 < 1 - median(drawn("ReverseLogarithmic", "0", "0.999999")) < 1e-2


def test_a_bayesian_search_comes_closer_than_chance() -> None:
    def best(strategy: str, seed: int) -> float:
        ranges = {
            "ContinuousParameterRanges": [
                {"Name": name, "MinValue": "-5", "MaxValue": "5"} for name in ("x", "y")
            ]
        }
        spec = spec_of(tuning_request(config={"Strategy": strategy, "ParameterRanges": ranges}))
        points: list[Point] = []
        for number in range(1, 31):
            drawn = next_point(spec, spec.definitions[0], points, number, seed)
            value = (float(drawn["x"]) - 2) ** 2 + (float(drawn["y"]) + 1) ** 2
            points.append(Point(drawn, "completed", value))
        return min(point.value for point in points if point.value is not None)

    assert median(best("Bayesian", s) for s in range(5)) < median(
        best("Random", s) for s in range(5)
    )


def test_a_grid_is_walked_once() -> None:
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "a", "Values": ["1", "2"]},
            {"Name": "b", "Values": ["x", "y", "z"]},
        ]
    }
    config = {
        "Strategy": "Grid",
        "ParameterRanges": ranges,
        "ResourceLimits": {"MaxParallelTrainingJobs": 2},
    }
    spec = spec_of(tuning_request(config=config))
    assert spec.max_trials == 6
    found = [next_point(spec, spec.definitions[0], [], number, 0) for number in range(1, 7)]
    assert len({tuple(point.values()) for point in found}) == 6
    limits = {"MaxParallelTrainingJobs": 2, "MaxNumberOfTrainingJobs": 5}
    assert "has 6 points" in refusal(tuning_request(config={**config, "ResourceLimits": limits}))
    assert "Only categorical" in refusal(tuning_request(config={"Strategy": "Grid"}))


def test_points_of_parents_that_lie_outside_are_left_out() -> None:
    spec = spec_of(tuning_request(config={"Strategy": "Bayesian"}))
    outside = Point({"lr": "7", "depth": "3", "kind": '"c"'}, "completed", 0.0)
    drawn = next_point(spec, spec.definitions[0], [outside] * 5, 1, 4)
    assert drawn == next_point(spec, spec.definitions[0], [], 1, 4)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("16", Dimension("n", "integer", 1, 160, "logarithmic")),
        ("0.5", Dimension("n", "continuous", 0.05, 1.0, "logarithmic")),
        ("true", Dimension("n", "categorical", values=("true", "false"))),
        ("adam", Dimension("n", "categorical", values=("adam",))),
    ],
)
def test_a_hint_becomes_a_range(hint: str, expected: Dimension) -> None:
    assert dimensions_of({"AutoParameters": [{"Name": "n", "ValueHint": hint}]}) == (expected,)
    own = {"AutoParameters": [{"Name": "sagemaker_region", "ValueHint": hint}]}
    assert dimensions_of(own)[0].values == (hint,)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"MinValue": "x", "MaxValue": "1"}, "not a number"),
        ({"MinValue": "2", "MaxValue": "1"}, "more than its MaxValue"),
        ({"MinValue": "0", "MaxValue": "1", "ScalingType": "Logarithmic"}, "not greater than 0"),
        ({"MinValue": "0", "MaxValue": "1", "ScalingType": "ReverseLogarithmic"}, "0 <= x < 1.0"),
        ({"MinValue": "nan", "MaxValue": "1"}, "not a number"),
    ],
)
def test_ranges_that_are_none_are_refused(item: dict[str, str], words: str) -> None:
    ranges = {"ContinuousParameterRanges": [{"Name": "x", **item}]}
    assert words in refusal(tuning_request(config={"ParameterRanges": ranges}))


def test_requests_that_cannot_be_searched_are_refused() -> None:
    metric = {"Type": "Minimize", "MetricName": "other"}
    objective = {"HyperParameterTuningJobObjective": metric}
    assert "metric definitions" in refusal(tuning_request(config=objective))
    assert "static and tunable" in refusal(
        tuning_request(definition={"StaticHyperParameters": {"lr": "1"}})
    )
    assert "either TrainingJobDefinition" in refusal(tuning_request(TrainingJobDefinition=None))
    early = {"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto"}
    assert "must be Off" in refusal(tuning_request(config=early))
    assert "No parameter ranges" in refusal(tuning_request(config={"ParameterRanges": {}}))
    assert "MaxResource" in refusal(
        tuning_request(config={"Strategy": "Hyperband"}, definition={"StaticHyperParameters": {}})
    )


def test_hyperband_infers_its_resource_from_the_epochs() -> None:
    spec = spec_of(tuning_request(config={"Strategy": "Hyperband"}))
    assert spec.hyperband == Hyperband(1, 9)


def test_trials_are_shared_out_among_definitions() -> None:
    given = tuning_request()
    config = dict(given["HyperParameterTuningJobConfig"])
    one = {
        **given["TrainingJobDefinition"],
        "HyperParameterRanges": config.pop("ParameterRanges"),
        "TuningObjective": config.pop("HyperParameterTuningJobObjective"),
    }
    several = [{**one, "DefinitionName": name} for name in ("a", "b")]
    request = {"HyperParameterTuningJobConfig": config, "TrainingJobDefinitions": several}
    spec: TuningSpec = spec_of(request)
    assert [spec.definition(number).name for number in (1, 2, 3)] == ["a", "b", "a"]
    assert [spec.index(number) for number in (1, 2, 3)] == [1, 1, 2]
    assert "DefinitionName" in refusal({**request, "TrainingJobDefinitions": [one, one]})


def test_the_median_rule() -> None:
    good = [[1.0, 0.5, 0.2], [1.2, 0.6, 0.3], [1.1, 0.4, 0.1]]
    assert below_median([2.0, 1.5], good, LESS)
    assert not below_median([2.0, 0.3], good, LESS), "its best value counts"
    assert not below_median([], good, LESS)
    assert not below_median([2.0], good, LESS), "the first step is no sign"
    assert not below_median([2.0, 1.5], good[:2], LESS), "two are no crowd"
    assert not below_median([2.0] * 4, good, LESS), "none came so far"
    assert below_median([0.1, 0.2], good, replace(LESS, maximize=True))


def test_hyperband_keeps_the_best_third_of_a_bracket() -> None:
    hyperband = Hyperband(1, 9)
    assert [rungs(number, hyperband) for number in (1, 2, 3, 4)] == [[1, 3], [3], [], [1, 3]]
    curves = {number: [float(number)] for number in (1, 4, 7)}
    assert [number for number in curves if out_of_rung(number, curves, hyperband, LESS)] == [4, 7]
    assert not out_of_rung(3, {3: [9.0] * 8, 1: [0.0]}, hyperband, LESS)
    assert out_of_rung(3, {3: [9.0] * 9}, hyperband, LESS), "all of its resource is used"
    assert not out_of_rung(1, {1: []}, hyperband, LESS)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9),
    most=st.integers(2, 100),
    maximize=st.booleans(),
)
def test_the_best_trial_of_a_bracket_always_goes_on(
    values: list[float], most: int, maximize: bool
) -> None:
    objective, hyperband = replace(LESS, maximize=maximize), Hyperband(1, most)
    curves = {number: [value] for number, value in enumerate(values, start=1)}
    best = max(curves, key=lambda number: objective.score(curves[number][0]))
    assert not out_of_rung(best, curves, hyperband, objective)


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_a_small_space_is_tried_whole_before_anything_is_tried_again(strategy: str) -> None:
    ranges = {
        "IntegerParameterRanges": [{"Name": "depth", "MinValue": "1", "MaxValue": "12"}],
        "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}],
    }
    spec = spec_of(tuning_request(config={"Strategy": strategy, "ParameterRanges": ranges}))
    [definition] = spec.definitions
    points: list[Point] = []
    for number in range(1, 27):
        drawn = next_point(spec, definition, points, number, 7)
        # The best is always at the same place, where the search would look again and again.
        points.append(Point(drawn, "completed", float(drawn["depth"]), 1))
    tried = {tuple(sorted(point.parameters.items())) for point in points}
    assert len(tried) == 24
