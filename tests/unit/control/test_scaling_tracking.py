"""The capacity that a target tracking policy asks for, from the values of its metric."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.control.scaling.measuring import values_since
from ridgeline_service.control.scaling.tracking import tracking_of
from ridgeline_service.errors import ValidationException
from ridgeline_service.telemetry.lateness import lag_s
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore

INVOCATIONS = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}


def tracking(target: float = 100.0, **config: object):
    config.setdefault("PredefinedMetricSpecification", INVOCATIONS)
    given = {name: value for name, value in config.items() if value is not None}
    return tracking_of({"TargetValue": target, **given}, "e", "A")


def test_three_minutes_above_the_target_scale_out_in_proportion():
    assert tracking().wanted([120, 150, 210], 2) == 5
    assert tracking().wanted([120, 150], 2) == 2
    assert tracking().wanted([150, 90, 210], 2) == 2
    assert tracking().wanted([150, None, 210], 2) == 2


def test_a_quarter_of_an_hour_below_nine_tenths_scales_in_to_what_its_highest_minute_needs():
    assert tracking().wanted([10.0] * 14 + [45.0], 4) == 2
    assert tracking().wanted([10.0] * 14, 4) == 4
    assert tracking().wanted([10.0] * 14 + [91.0], 4) == 4
    assert tracking().wanted([10.0] * 14 + [None], 4) == 4
    assert tracking().wanted([0.0] * 15, 4) == 0


def test_from_no_instance_any_load_wakes_as_many_as_all_of_it_needs():
    assert tracking(5.0).wanted([0.0, 12.0], 0) == 3
    assert tracking(5.0).wanted([1.0], 0) == 1
    assert tracking(5.0).wanted([12.0, 0.0], 0) == 0
    assert tracking(5.0).wanted([None], 0) == 0
    assert tracking(5.0).wanted([], 0) == 0


@pytest.mark.parametrize(
    ("namespace", "name", "period_s", "absent"),
    [
        ("AWS/SageMaker", "ApproximateBacklogSizePerInstance", 10, 0.0),
        ("AWS/SageMaker", "Invocations", 60, 0.0),
        ("AWS/SageMaker", "ModelLatency", 60, None),
        ("mine", "Invocations", 60, None),
    ],
)
def test_what_is_not_written_while_nobody_asks_is_zero(namespace, name, period_s, absent):
    found = tracking(
        PredefinedMetricSpecification=None,
        CustomizedMetricSpecification={
            "MetricName": name,
            "Namespace": namespace,
            "Statistic": "Average",
        },
    ).measure
    assert (found.period_s, found.absent) == (period_s, absent)


@given(
    st.lists(st.none() | st.floats(0, 1e6), max_size=15),
    st.integers(0, 50),
    st.floats(0.01, 1e5),
)
def test_what_is_asked_for_holds_the_load(values, count, target):
    wanted = tracking(target).wanted(values, count)
    assert wanted >= 0
    if wanted > count:
        assert count == 0 or min(v for v in values[-3:]) > target
        load = max(1, count) * values[-1]
        assert load <= wanted * target * (1 + 1e-6)
        assert wanted == 1 or load > (wanted - 1) * target * (1 - 1e-6)
    if wanted < count:
        assert len(values) == 15
        assert None not in values
        assert max(values) <= 0.9 * target
        assert count * max(values) <= wanted * target * (1 + 1e-6) or math.isclose(max(values), 0)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"TargetValue": 0.0}, "TargetValue"),
        ({"TargetValue": float("nan")}, "TargetValue"),
        ({"ScaleInCooldown": -1}, "ScaleInCooldown"),
        ({"PredefinedMetricSpecification": None}, "CustomizedMetricSpecification"),
        (
            {"PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPU"}},
            "SageMakerVariantInvocationsPerInstance",
        ),
        (
            {
                "PredefinedMetricSpecification": None,
                "CustomizedMetricSpecification": {"MetricName": "m", "Namespace": "n"},
            },
            "Statistic",
        ),
        (
            {
                "PredefinedMetricSpecification": None,
                "CustomizedMetricSpecification": {"Metrics": [{"Id": "a", "Expression": "m1*2"}]},
            },
            "metric math",
        ),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused_by_name(config, named):
    config = dict(config)
    with pytest.raises(ValidationException, match=named):
        tracking(config.pop("TargetValue", 1.0), **config)


def test_only_whole_periods_since_the_last_change_count(tmp_path):
    store = SampleStore(tmp_path / "samples.db")
    measure = tracking().measure
    metric = Metric(
        "AWS/SageMaker", "InvocationsPerInstance", (("EndpointName", "e"), ("VariantName", "A"))
    )
    for minute in range(10):
        # Two flushes of the gateway, and nothing in the fourth minute.
        for total in (minute, 1.0) if minute != 3 else ():
            store.put([Sample(metric, 60.0 * minute, "None", 2, total, 0, 1)])
    now = 60 * 8 + lag_s(measure.metric)
    assert values_since(store, measure, 0.0, now) == [1, 2, 3, 0, 5, 6, 7, 8]
    assert values_since(store, measure, 61.0, now) == [3, 0, 5, 6, 7, 8]
    assert values_since(store, measure, 0.0, now - 1) == [1, 2, 3, 0, 5, 6, 7]
    assert values_since(store, measure, now, now) == []
    store.close()
