"""The accuracy page says what the fit left out, and how far releases are apart."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from ridgeline_backends.neuron.calibration.evaluate import residuals
from ridgeline_backends.neuron.calibration.fit import observations
from ridgeline_backends.neuron.calibration.report import accuracy_page
from ridgeline_backends.neuron.calibration.rows import Row
from ridgeline_backends.neuron.timing.predict import calibration

BERT: Mapping[str, object] = {
    "cat": "encoder", "model": "bert-base-cased", "instance": "inf2.xlarge", "app": "Batch",
    "run_mode": "Data Parallel", "batch": 8, "seq_len": 128,
}  # fmt: skip


def page(*given: Mapping[str, object]) -> str:
    rows = [Row({**BERT, "id": f"E{place}", **one}) for place, one in enumerate(given)]
    seen = observations(rows)
    known = calibration().coefficients
    return accuracy_page(rows, seen, known, residuals(seen, known))


def test_it_says_how_far_releases_are_apart() -> None:
    one = [{"cfg": 1, "sdk": sdk, "inf_s": rate} for sdk, rate in
           (("2.20.0", 1100.0), ("2.9.0", 1000.0), ("2.10.0", 1000.0))]  # fmt: skip
    other = [{"cfg": 2, "batch": 4, "sdk": f"2.{minor}.0", "inf_s": rate} for minor, rate in
             ((18, 500.0), (20, 525.0))]  # fmt: skip
    # 0%, 10% and 5%.
    assert "a setting differs by 5.0% (the median of encoders)" in page(*one, *other)


@pytest.mark.parametrize("second", [{"cfg": 2, "batch": 4, "sdk": "2.20.0"}, {"cfg": 1}])
def test_it_says_nothing_of_releases_where_there_are_none(second: Mapping[str, object]) -> None:
    said = page({"cfg": 1, "sdk": "2.18.0", "inf_s": 1000.0}, {**second, "inf_s": 500.0})
    assert "*Apart*: pairs" in said
    assert "release to the next" not in said


def test_it_says_how_many_latencies_teach_nothing() -> None:
    fine = {"inf_s": 1600.0, "lat_p50_ms": 10.0}
    apart = {"inf_s": 1600.0, "lat_p50_ms": 50.0, "batch": 4}
    said = re.sub(r"\s+", " ", page(fine, {**fine, "batch": 2, "inf_s": 400.0}, apart))
    assert "Of 3 latencies of encoders and images that the fit could learn from it leaves 1" in said
    assert "`inflight_batches`) is no input" in said
