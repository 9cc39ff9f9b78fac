"""What neuron-monitor's schema is filled with, from the text of two scrapes."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline_backends.neuron.monitor import read_scrape, report, step_percentiles, utilisation

TEXT = """
ridgeline_simulated_device_info{{instance_type="trn2.48xlarge",neuron_cores="4",\
logical_neuroncore_config="2"}} 1
ridgeline_simulated_device_seconds {busy}
ridgeline_simulated_core_utilization 0.5
ridgeline_simulated_core_memory_bytes{{kind="model constants"}} 1000
ridgeline_simulated_core_memory_bytes{{kind="tensors"}} 300
ridgeline_simulated_core_memory_bytes{{kind="dma rings"}} 20
ridgeline_steps_total {steps}
vllm:request_success_total{{finished_reason="error"}} {errors}
ridgeline_step_seconds_bucket{{le="0.001"}} {fast}
ridgeline_step_seconds_bucket{{le="0.005"}} {steps}
ridgeline_step_seconds_bucket{{le="+Inf"}} {steps}
"""


def scrape(at: float, **numbers: float) -> Any:
    given = {"busy": 0.0, "steps": 0, "errors": 0, "fast": 0, **numbers}
    return read_scrape("r-1", TEXT.replace("\\\n", "").format(**given), at)


def test_cores_are_as_busy_as_their_predicted_time_says() -> None:
    before, now = scrape(10.0, busy=1.0), scrape(14.0, busy=2.0)
    assert utilisation(now, before) == pytest.approx(25.0)
    # A replica that was started anew counts from nothing.
    assert utilisation(scrape(14.0, busy=0.4), before) == pytest.approx(10.0)


def test_percentiles_are_those_of_the_steps_between() -> None:
    before, now = scrape(0.0, steps=10, fast=10), scrape(1.0, steps=110, fast=60)
    found = step_percentiles(now, before)
    assert (found["p25"], found["p50"], found["p75"]) == (0.001, 0.001, 0.005)
    assert set(step_percentiles(now, now).values()) == {0.0}


def test_a_report_has_every_core_and_its_memory() -> None:
    before, now = scrape(10.0), scrape(12.0, busy=1.0, steps=7, errors=2)
    found: Any = report("endpoint", [(now, before)], {"memory_info": {}})
    assert found["neuron_hardware_info"]["neuroncore_version"] == "v3d"
    assert found["neuron_hardware_info"]["neuroncore_per_device_count"] == 4
    [runtime] = found["neuron_runtime_data"]
    part = runtime["report"]
    cores = part["neuroncore_counters"]["neuroncores_in_use"]
    assert sorted(cores) == ["0", "1", "2", "3"]
    assert cores["0"]["neuroncore_utilization"] == pytest.approx(50.0)
    # A quarter of the peak of two physical cores of 79 TFLOPS: half the time, half of it.
    assert cores["0"]["flops"] == pytest.approx(0.25 * 2 * 79e12)
    assert part["execution_stats"]["execution_summary"]["completed"] == 7
    assert part["execution_stats"]["error_summary"]["runtime"] == 2
    used = part["memory_used"]["neuron_runtime_used_bytes"]
    assert used["neuron_device"] == 4 * 1320
    one = used["usage_breakdown"]["neuroncore_memory_usage"]["0"]
    assert (one["constants"], one["tensors"], one["runtime_memory"]) == (1000, 300, 20)


def test_a_replica_of_a_processor_is_no_device() -> None:
    assert read_scrape("r", "vllm:num_requests_running 1\n", 0.0) is None
