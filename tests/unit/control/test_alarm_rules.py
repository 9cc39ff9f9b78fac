"""The state of an alarm from the values of its metric, as CloudWatch's documentation has it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.control.alarms.definition import ValidationError, definition_of
from ridgeline_service.control.alarms.evaluating import Point, judge, reason_data
from ridgeline_service.control.alarms.measuring import newest_end, newest_points
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore

ALARM = {
    "AlarmName": "a",
    "Namespace": "Mine",
    "MetricName": "Load",
    "Statistic": "Average",
    "Period": 60,
    "EvaluationPeriods": 3,
    "Threshold": 10.0,
    "ComparisonOperator": "GreaterThanThreshold",
}
MISSING = ("missing", "ignore", "breaching", "notBreaching")
STATES = {"O": "OK", "A": "ALARM", "I": "INSUFFICIENT_DATA", "=": None}


def definition(**changes: object):
    given = {**ALARM, **changes}
    return definition_of({name: value for name, value in given.items() if value is not None})


def points(pattern: str) -> list[Point | None]:
    """X breaches, 0 does not, - is missing."""
    values = {"X": 20.0, "0": 0.0}
    return [
        Point(60.0 * place, values[sign]) if sign in values else None
        for place, sign in enumerate(pattern.replace(" ", ""))
    ]


@pytest.mark.parametrize(
    ("pattern", "to_alarm", "states"),
    [
        ("0 - X - X", 3, "OOOO"),
        ("- - - - 0", 3, "OOOO"),
        ("- - - - -", 3, "I=AO"),
        ("0 X X - X", 3, "AAAA"),
        ("- - X - -", 3, "A=AO"),
        ("0 - X - X", 2, "AAAA"),
        ("0 0 X 0 X", 2, "AAAA"),
        ("0 - X - -", 2, "OOAO"),
        ("- - - - 0", 2, "OOAO"),
        ("- - - X -", 2, "A=AO"),
        ("- - - - X", 2, "OOAO"),
        ("X X X 0 0", 3, "OOOO"),
        ("X X 0 0 0", 1, "OOOO"),
    ],
)
def test_missing_data_is_treated_as_the_tables_of_cloudwatch_say(pattern, to_alarm, states):
    for missing, state in zip(MISSING, states, strict=True):
        rule = definition(DatapointsToAlarm=to_alarm, TreatMissingData=missing)
        verdict = judge(rule, points(pattern))
        assert (verdict.state if verdict else None) == STATES[state], missing


@given(st.lists(st.sampled_from("X0"), min_size=5, max_size=5), st.integers(1, 3))
def test_where_nothing_is_missing_the_newest_periods_decide(signs, to_alarm):
    expected = "ALARM" if signs[-3:].count("X") >= to_alarm else "OK"
    for missing in MISSING:
        rule = definition(DatapointsToAlarm=to_alarm, TreatMissingData=missing)
        verdict = judge(rule, points("".join(signs)))
        assert verdict is not None
        assert verdict.state == expected


@pytest.mark.parametrize(
    ("operator", "breaching"),
    [
        ("GreaterThanThreshold", [False, False, True]),
        ("GreaterThanOrEqualToThreshold", [False, True, True]),
        ("LessThanThreshold", [True, False, False]),
        ("LessThanOrEqualToThreshold", [True, True, False]),
    ],
)
def test_each_comparison(operator, breaching):
    rule = definition(ComparisonOperator=operator)
    assert [rule.breaches(value) for value in (9.0, 10.0, 11.0)] == breaching


def test_the_reason_tells_the_values_and_the_threshold():
    rung = judge(definition(), points("0 X X X X"))
    assert rung.reason == (
        "Threshold Crossed: 3 out of the last 3 datapoints [20 (01/01/70 00:02:00), 20 (01/01/70 "
        "00:03:00), 20 (01/01/70 00:04:00)] were greater than the threshold (10)."
    )
    quiet = judge(definition(), points("0 X X X 0"))
    assert quiet.reason == (
        "Threshold Crossed: 1 out of the last 3 datapoints [0 (01/01/70 00:04:00)] was not greater "
        "than the threshold (10)."
    )
    silent = judge(definition(TreatMissingData="breaching"), points("- - - - -"))
    assert silent.reason == "Threshold Crossed: 3 missing were treated as [Breaching]."
    assert judge(definition(), points("-----")).reason == (
        "Insufficient Data: 3 datapoints were unknown."
    )
    data = json.loads(reason_data(definition(), rung, 300.0))
    assert data["recentDatapoints"] == [20.0, 20.0, 20.0]
    assert data["startDate"] == "1970-01-01T00:02:00.000000+0000"
    assert data["threshold"] == 10.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Metrics": [{"Id": "m", "Expression": "1"}]}, "Metrics is not supported: metric math"),
        ({"ThresholdMetricId": "t"}, "anomaly detection"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "anomaly detection"),
        ({"MetricName": None}, "needs MetricName"),
        ({"Threshold": None}, "needs Threshold"),
        ({"Threshold": float("nan")}, "must be a number"),
        ({"Statistic": None}, "either Statistic or ExtendedStatistic"),
        ({"ExtendedStatistic": "p99"}, "either Statistic or ExtendedStatistic"),
        ({"Statistic": None, "ExtendedStatistic": "tm99"}, "'tm99' is not supported"),
        ({"Period": 45}, "Period is 45"),
        ({"Period": 60, "EvaluationPeriods": 1441}, "may look at 86400 s"),
        ({"Period": 3600, "EvaluationPeriods": 169}, "may look at 604800 s"),
        ({"DatapointsToAlarm": 4}, "DatapointsToAlarm is 4"),
        ({"TreatMissingData": "bad"}, "TreatMissingData 'bad'"),
        (
            {
                "Statistic": None,
                "ExtendedStatistic": "p99",
                "EvaluateLowSampleCountPercentile": "ignore",
            },
            "EvaluateLowSampleCountPercentile ignore is not supported",
        ),
        ({"EvaluateLowSampleCountPercentile": "evaluate"}, "for percentiles alone"),
        (
            {"Statistic": None, "ExtendedStatistic": "p9", "EvaluateLowSampleCountPercentile": "x"},
            "must be evaluate or ignore",
        ),
        (
            {"Dimensions": [{"Name": "A", "Value": "1"}, {"Name": "A", "Value": "2"}]},
            "Dimensions: A, A: a name is given twice",
        ),
        ({"WarmUpConfiguration": {"WarmUpPeriodDurationInMinutes": 1}}, "WarmUpConfiguration"),
    ],
)
def test_what_cannot_be_watched_is_refused_by_its_name(changes, words):
    with pytest.raises(ValidationError, match=words):
        definition(**changes)


def test_long_periods_move_on_with_every_minute(tmp_path):
    store = SampleStore(tmp_path / "samples.db")
    rule = definition(Period=300, EvaluationPeriods=1)
    metric = Metric("Mine", "Load")
    for minute, value in enumerate((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)):
        store.put([Sample(metric, 60.0 * minute + 1, "None", 1, value, value, value)])
    end = newest_end(rule, 60.0 * 7 + 3)
    assert end == 60.0 * 7
    assert newest_points(store, rule, end)[-2:] == [Point(-180.0, 1.5), Point(120.0, 5.0)]
    assert newest_end(rule, 60.0 * 7 + 2) == 60.0 * 6
    store.close()


def test_what_the_service_measures_is_waited_for():
    own = definition(Namespace="AWS/SageMaker", MetricName="Invocations")
    assert newest_end(own, 60.0 * 7 + 34) == 60.0 * 6
    assert newest_end(own, 60.0 * 7 + 35) == 60.0 * 7
    sampled = definition(
        Namespace="AWS/SageMaker", MetricName="ConcurrentRequestsPerModel", Period=10
    )
    assert newest_end(sampled, 423.0) == 420.0
