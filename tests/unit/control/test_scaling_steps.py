"""The capacity that a step scaling policy asks for, from how far its alarm is breached."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.control.scaling.stepping import stepping_of
from ridgeline_service.errors import ValidationException


def step(low: float | None, high: float | None, adjustment: int) -> dict[str, object]:
    bounds = {"MetricIntervalLowerBound": low, "MetricIntervalUpperBound": high}
    given = {name: value for name, value in bounds.items() if value is not None}
    return {**given, "ScalingAdjustment": adjustment}


def stepping(*steps: dict[str, object], kind: str = "ChangeInCapacity", **config: object):
    return stepping_of({"AdjustmentType": kind, "StepAdjustments": list(steps), **config})


OUT = (step(0, 10, 1), step(10, None, 3))
IN = (step(None, -10, -2), step(-10, 0, -1))


@pytest.mark.parametrize(
    ("breach", "rising", "wanted"),
    [
        (0.0, True, 5),
        (9.9, True, 5),
        (10.0, True, 7),
        (1000.0, True, 7),
        (0.0, False, 3),
        (-9.9, False, 3),
        (-10.0, False, 2),
        (-99.0, False, 2),
    ],
)
def test_the_bound_that_is_nearer_to_the_threshold_belongs_to_the_step(breach, rising, wanted):
    assert stepping(*IN, *OUT).wanted(breach, 4, rising=rising) == wanted


def test_a_breach_on_the_other_side_changes_nothing():
    assert stepping(*OUT).wanted(-5.0, 4, rising=True) == 4
    assert stepping(*IN).wanted(5.0, 4, rising=False) == 4


def test_no_fewer_than_none():
    assert stepping(step(None, 0, -9)).wanted(-1.0, 4, rising=False) == 0


def test_exact_capacity():
    exact = stepping(step(0, 50, 2), step(50, None, 6), kind="ExactCapacity")
    assert exact.wanted(1.0, 4, rising=True) == 2
    assert exact.wanted(50.0, 4, rising=True) == 6


@pytest.mark.parametrize(
    ("percent", "count", "least", "wanted"),
    [
        (10, 4, 0, 5),  # 0.4 is one
        (60, 4, 0, 6),  # 2.4 is two
        (25, 4, 2, 6),
        (0, 4, 2, 4),
        (50, 0, 0, 0),
        (-10, 4, 0, 3),
        (-60, 4, 0, 2),
        (-25, 4, 2, 2),
    ],
)
def test_per_cent_are_rounded_towards_what_there_is_but_move(percent, count, least, wanted):
    config = {"MinAdjustmentMagnitude": least} if least else {}
    policy = stepping(step(0, None, percent), kind="PercentChangeInCapacity", **config)
    assert policy.wanted(1.0, count, rising=True) == wanted


def test_the_values_of_the_alarm_are_aggregated_as_asked():
    values = [1.0, 2.0, 6.0]
    assert stepping(*OUT).aggregated(values) == 3.0
    assert stepping(*OUT, MetricAggregationType="Minimum").aggregated(values) == 1.0
    assert stepping(*OUT, MetricAggregationType="Maximum").aggregated(values) == 6.0


def test_an_alarm_acts_once_a_minute_at_most():
    assert stepping(*OUT).waits_s == 300
    assert stepping(*OUT, Cooldown=90).waits_s == 90
    assert stepping(*OUT, Cooldown=0).waits_s == 60


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=4, unique=True),
    st.floats(-100, 100),
    st.booleans(),
)
def test_steps_without_gaps_and_ends_hold_every_breach_once(bounds, breach, rising):
    ends = [None, *sorted(bounds), None]
    steps = [step(low, high, place + 1) for place, (low, high) in enumerate(pairwise(ends))]
    wanted = stepping(*steps).wanted(breach, 0, rising=rising)
    assert 1 <= wanted <= len(steps)


@pytest.mark.parametrize(
    ("steps", "config", "words"),
    [
        ((), {}, "needs StepAdjustments"),
        ((step(None, None, 1),), {}, "needs a MetricIntervalLowerBound"),
        ((step(5, 5, 1),), {}, "must be less than"),
        ((step(0, 10, 1), step(5, None, 1)), {}, "overlap"),
        ((step(0, 10, 1), step(11, None, 1)), {}, "gap between the steps, from 10 to 11"),
        ((step(0, 10, 1),), {}, "highest step ends at 10"),
        ((step(-10, 0, -1),), {}, "lowest step begins at -10"),
        ((step(0, None, -1),), {"kind": "ExactCapacity"}, "ScalingAdjustment is -1"),
        ((step(0, None, 1),), {"MinAdjustmentMagnitude": 2}, "is for PercentChangeInCapacity"),
        ((step(0, None, 1),), {"Cooldown": -1}, "Cooldown is -1"),
    ],
)
def test_contradictions_are_refused_by_name(steps, config, words):
    with pytest.raises(ValidationException, match=words):
        stepping(*steps, **config)
