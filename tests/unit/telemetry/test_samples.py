"""CloudWatch samples: aggregated as CloudWatch does, bounded, kept over a restart."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.telemetry.samples import (
    Bucket,
    Metric,
    Sample,
    SampleStore,
    metric_of,
    percentile,
)

LATENCY = metric_of("N", "Latency", [{"Name": "b", "Value": "2"}, {"Name": "a", "Value": "1"}])


def one(time: float, value: float, metric: Metric = LATENCY, unit: str = "None") -> Sample:
    return Sample(metric, time, unit, 1, value, value, value)


def test_samples_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "samples.db"
    store = SampleStore(path)
    store.put([one(60, 1), one(61, 3), one(125, 5)])
    store.close()
    again = SampleStore(path)
    buckets = again.read(LATENCY, start=0, end=1000, period=60)
    again.close()
    assert [(b.start, b.statistic("Average")) for b in buckets] == [(60, 2.0), (120, 5.0)]


def test_series_are_told_apart_by_dimensions_and_units(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s.db")
    bare = metric_of("N", "Latency")
    store.put([one(1, 1), one(1, 9, bare), one(1, 4, unit="Seconds")])
    assert len(store.read(LATENCY, start=0, end=9, period=9)) == 2
    seconds = store.read(LATENCY, start=0, end=9, period=9, unit="Seconds")
    assert [b.statistic("Sum") for b in seconds] == [4.0]
    assert store.metrics(namespace="N") == [LATENCY, bare]
    assert store.metrics(name="Other") == []
    assert store.metrics(newer_than=2) == []
    store.close()


def test_the_end_of_a_span_is_excluded(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s.db")
    store.put([one(10, 1), one(20, 2)])
    assert [b.start for b in store.read(LATENCY, start=10, end=20, period=1)] == [10]
    store.close()


def test_the_oldest_samples_make_room(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s.db", max_samples=100)
    old = metric_of("N", "Old")
    store.put([one(0, 0, old)])
    for start in range(0, 1000, 50):
        store.put([one(start + n, 1) for n in range(50)])
    kept = sum(len(b.samples) for b in store.read(LATENCY, start=0, end=9999, period=1))
    assert kept <= 200
    assert store.read(LATENCY, start=999, end=1000, period=1)
    assert store.metrics(name="Old") == []
    store.close()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_statistics_agree_with_the_plain_numbers(values: list[float]) -> None:
    bucket = Bucket(0, "None", tuple((1.0, v, v, v) for v in values))
    assert bucket.statistic("SampleCount") == len(values)
    assert bucket.statistic("Average") == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert bucket.statistic("Minimum") == bucket.statistic("p0") == min(values)
    assert bucket.statistic("Maximum") == bucket.statistic("p100") == max(values)
    assert bucket.statistic("p50") in values
    assert bucket.statistic("tm99") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("p99.9", 99.9), ("p0", 0.0), ("p101", None), ("pnan", None), ("p", None), ("p1e", None)],
)
def test_names_of_percentiles(name: str, value: float | None) -> None:
    assert percentile(name) == value


_NAMES = (
    "SampleCount",
    "Sum",
    "Average",
    "Minimum",
    "Maximum",
    "p0",
    "p50",
    "p90",
    "p99.9",
    "p100",
)


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(-9, 9), st.sampled_from([1, 1, 3])), max_size=40
    ),
    st.sampled_from([10, 60, 90]),
    st.integers(0, 9),
)
def test_any_number_of_samples_is_summed_up_as_few_are(tmp_path_factory, drawn, period, origin):
    store = SampleStore(tmp_path_factory.mktemp("samples") / "s.db")
    store.put([Sample(LATENCY, t, "None", n, v * n, v, v) for t, v, n in drawn])
    span = {"start": origin, "end": 250, "period": period, "origin": origin}
    buckets = store.read(LATENCY, **span)
    for name in _NAMES:
        expected = {bucket.start: bucket.statistic(name) for bucket in buckets}
        assert store.values(LATENCY, name, **span) == pytest.approx(expected)
    assert store.values(LATENCY, "Sum", **span, unit="Seconds") == {}
    store.close()
