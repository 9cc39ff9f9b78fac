"""What neuron-monitor's schema is filled with, from the text of two scrapes."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline_backends.neuron.commands import watch
from ridgeline_backends.neuron.commands.watch import _Ticks
from ridgeline_backends.neuron.monitor import report
from ridgeline_backends.neuron.scrape import percentiles, read_scrape, utilisation

TEXT = """
ridgeline_simulated_device_info{{instance_type="trn2.48xlarge",neuron_cores="4",\
logical_neuroncore_config="2",copies="{copies}"}} 1
ridgeline_simulated_device_seconds {busy}
ridgeline_simulated_core_utilization 0.5
ridgeline_simulated_core_memory_bytes{{kind="model constants"}} 1000
ridgeline_simulated_core_memory_bytes{{kind="tensors"}} 300
ridgeline_simulated_core_memory_bytes{{kind="shared scratchpad"}} 50
ridgeline_simulated_core_memory_bytes{{kind="dma rings"}} 20
ridgeline_simulated_executions_total{{phase="encoding",bucket="128",batch="1"}} {fast}
ridgeline_simulated_executions_total{{phase="encoding",bucket="512",batch="16"}} {slow}
ridgeline_simulated_execution_seconds{{phase="encoding",bucket="128",batch="1"}} 0.001
ridgeline_simulated_execution_seconds{{phase="encoding",bucket="512",batch="16"}} 0.005
ridgeline_simulated_execution_errors_total{{code="NRT_TIMEOUT"}} {hangs}
ridgeline_simulated_execution_errors_total{{code="NRT_EXEC_HW_ERR_HBM_UE"}} {bad_memory}
ridgeline_simulated_execution_errors_total{{code="NRT_EXEC_UNIT_UNRECOVERABLE"}} {refused}
ridgeline_simulated_execution_errors_total{{code="NRT_EXEC_COMPLETED_WITH_NUM_ERR"}} {nans}
ridgeline_process_cpu_seconds_total{{mode="user"}} {user}
ridgeline_process_cpu_seconds_total{{mode="system"}} 1
"""
COUNTS = ("busy", "fast", "slow", "hangs", "bad_memory", "refused", "nans", "user")


def scrape(at: float, **numbers: float) -> Any:
    given = {**dict.fromkeys(COUNTS, 0.0), "copies": 1, **numbers}
    return read_scrape("r-1", TEXT.replace("\\\n", "").format(**given), at)


def test_cores_are_as_busy_as_their_predicted_time_says() -> None:
    before, now = scrape(10.0, busy=1.0), scrape(14.0, busy=2.0)
    assert utilisation(now, before) == pytest.approx(25.0)
    # A replica that was started anew counts from nothing.
    assert utilisation(scrape(14.0, busy=0.4), before) == pytest.approx(10.0)


def test_percentiles_are_those_of_the_programs_that_ran_between() -> None:
    before, now = scrape(0.0, fast=10, slow=7), scrape(1.0, fast=70, slow=47)
    found = percentiles(now, before)
    assert found is not None
    assert list(found) == ["p0", "p1", "p25", "p50", "p75", "p99", "p100"]
    assert list(found.values()) == [0.001, 0.001, 0.001, 0.001, 0.005, 0.005, 0.005]
    assert percentiles(now, now) is None
    alone = percentiles(scrape(2.0, fast=70, slow=48), now)
    assert alone is not None
    assert set(alone.values()) == {0.005}


def test_a_report_has_every_core_and_its_memory() -> None:
    before, now = scrape(10.0), scrape(12.0, busy=1.0, fast=7, user=1.5)
    found: Any = report("endpoint", [(now, before)], {"memory_info": {}}, {"r-1": 4711})
    hardware = found["neuron_hardware_info"]
    assert (hardware["neuroncore_version"], hardware["neuron_device_version"]) == ("v3d", "v4")
    assert hardware["neuroncore_per_device_count"] == 4
    [runtime] = found["neuron_runtime_data"]
    assert runtime["pid"] == 4711
    part = runtime["report"]
    cores = part["neuroncore_counters"]["neuroncores_in_use"]
    assert sorted(cores) == ["0", "1", "2", "3"]
    assert cores["0"]["neuroncore_utilization"] == pytest.approx(50.0)
    # A quarter of the peak of two physical cores of 79 TFLOPS: half the time, half of it.
    assert cores["0"]["flops"] == pytest.approx(0.25 * 2 * 79e12)
    assert sorted(cores["1"]["v3d"]) == ["nc_v3.2", "nc_v3.3"]
    assert cores["1"]["v3d"]["nc_v3.3"]["neuroncore_utilization"] == pytest.approx(50.0)
    assert part["neuron_runtime_vcpu_usage"]["vcpu_usage"] == {"user": 75.0, "system": 0.0}
    used = part["memory_used"]["neuron_runtime_used_bytes"]
    assert used["neuron_device"] == 4 * 1370
    one = used["usage_breakdown"]["neuroncore_memory_usage"]["0"]
    assert (one["constants"], one["tensors"], one["runtime_memory"]) == (1000, 300, 20)
    loaded = part["memory_used"]["loaded_models"][0]["subgraphs"]["sg_03"]
    assert loaded["neuroncore_index"] == 3
    # The scratchpad is no model's own.
    assert loaded["memory_used_bytes"]["neuron_device"] == 1320
    assert loaded["memory_used_bytes"]["usage_breakdown"]["neuron_device"]["tensors"] == 300


def test_cores_of_all_copies_are_in_use() -> None:
    """A second of work in two, on one of three copies or on all."""
    before, now = (scrape(at, busy=at - 10, copies=3) for at in (10.0, 12.0))
    found: Any = report("endpoint", [(now, before)], {}, {})
    [runtime] = found["neuron_runtime_data"]
    cores = runtime["report"]["neuroncore_counters"]["neuroncores_in_use"]
    assert len(cores) == 12
    assert cores["11"]["neuroncore_utilization"] == pytest.approx(100 / 3)
    [model] = runtime["report"]["memory_used"]["loaded_models"]
    assert model["subgraphs"]["sg_11"]["neuron_device_index"] == 2


def test_errors_are_told_by_their_kind_and_executions_by_their_end() -> None:
    before = scrape(10.0, fast=5, bad_memory=1)
    now = scrape(12.0, fast=7, slow=2, hangs=3, bad_memory=2, refused=4, nans=5)
    found: Any = report("endpoint", [(now, before)], {}, {})
    stats = found["neuron_runtime_data"][0]["report"]["execution_stats"]
    assert stats["error_summary"] == {
        "generic": 0, "numerical": 5, "transient": 0, "model": 0, "runtime": 7, "hardware": 1,
    }  # fmt: skip
    assert stats["execution_summary"] == {
        "completed": 4, "completed_with_err": 1, "completed_with_num_err": 5, "timed_out": 3,
        "incorrect_input": 0, "failed_to_queue": 4,
    }  # fmt: skip
    assert stats["latency_stats"]["device_latency"]["p100"] == 0.005
    counters = found["system_data"]["neuron_hw_counters"]["neuron_devices"]
    # Since the start, on the device whose core is told to fail.
    assert [one["mem_ecc_uncorrected"] for one in counters] == [2, *[0] * 15]
    idle: Any = report("endpoint", [(now, now)], {}, {})
    latencies = idle["neuron_runtime_data"][0]["report"]["execution_stats"]["latency_stats"]
    assert latencies == {"total_latency": None, "device_latency": None}


def test_shares_of_the_processor_are_of_the_time_between() -> None:
    before = _Ticks({"": [100, 0, 0, 100, 0, 0, 0], "0": [100, 0, 0, 100, 0, 0, 0]}, 10)
    now = _Ticks({"": [130, 0, 10, 160, 0, 0, 0], "0": [130, 0, 10, 160, 0, 0, 0]}, 25)
    found: Any = now.usage(before)
    assert found["context_switch_count"] == 15
    assert found["average_usage"]["user"] == 30.0
    assert found["usage_data"]["0"]["idle"] == 60.0
    assert sum(_Ticks.read().usage(before)["average_usage"].values()) == pytest.approx(100, abs=1)  # type: ignore[attr-defined]


def test_a_replica_of_a_processor_is_no_device() -> None:
    assert read_scrape("r", "vllm:num_requests_running 1\n", 0.0) is None


@pytest.mark.parametrize(
    ("terminal", "count", "looks"), [(False, None, 1), (False, 3, 3), (True, None, 5), (True, 2, 2)]
)
def test_top_ends_by_itself_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, count: int | None, looks: int
) -> None:
    """On a terminal it goes on until it is stopped, here after five looks."""
    seen = 0

    def look(session: object, endpoint: str) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        if seen > 1 + 5:
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr(watch, "_scrapes", look)
    monkeypatch.setattr(watch, "open_session", lambda data_dir: None)
    monkeypatch.setattr("os.isatty", lambda number: terminal)
    try:
        watch.top("e", period=0.0, count=count)
    except KeyboardInterrupt:
        seen -= 1
    assert seen - 1 == looks
