"""GPU use, from what nvidia-smi prints."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ridgeline_service.telemetry.samples import SampleStore
from ridgeline_service.training.gpu_usage import GpuUsage, gpu_usage, parse
from ridgeline_service.training.order import Order
from ridgeline_service.training.watching import Series, Usage


def tool(folder: Path, script: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_use_of_several_gpus_is_added_up() -> None:
    assert parse("40, 1000, 4000\n100, 4000, 4000\n") == GpuUsage(140.0, 125.0)


@pytest.mark.parametrize("said", ["", "[N/A], 10, 20\n", "No devices were found\n"])
def test_what_says_nothing_is_no_sample(said: str) -> None:
    assert parse(said) is None


def test_only_the_gpus_of_the_job_are_asked_for(tmp_path: Path) -> None:
    path = tool(tmp_path, 'case "$1" in --id=1,3) echo "7, 1, 4";; *) exit 9;; esac')
    assert gpu_usage((1, 3), lambda _: path) == GpuUsage(7.0, 25.0)
    assert gpu_usage((0,), lambda _: path) is None


def test_without_gpus_or_without_the_tool_there_is_none() -> None:
    assert gpu_usage((), lambda _: "/no/such/tool") is None
    assert gpu_usage((0,), lambda _: None) is None
    assert gpu_usage((0,), lambda _: "/no/such/tool") is None


def test_samples_of_gpus_are_there_where_they_were_measured(order: Order) -> None:
    series = Series(order)
    series.use(Usage(0.0, 1 << 30))
    series.use(Usage(1.0, 1 << 30))
    assert names(order) == {"CPUUtilization", "MemoryUtilization"}
    series.use(Usage(2.0, 1 << 30), GpuUsage(90.0, 50.0))
    series.close()
    assert names(order) == {
        *("CPUUtilization", "MemoryUtilization"),
        *("GPUUtilization", "GPUMemoryUtilization"),
    }


def names(order: Order) -> set[str]:
    store = SampleStore(Path(order.samples))
    try:
        return {metric.name for metric in store.metrics()}
    finally:
        store.close()
