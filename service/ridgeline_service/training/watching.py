"""What a running job uses: processor, memory and disk, and the samples of it that CloudWatch shows.

Knows nothing of what the processes do.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from ridgeline_service.runtime.usage import Usage
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore
from ridgeline_service.training.gpu_usage import GpuUsage
from ridgeline_service.training.order import Order
from ridgeline_service.training.report import MetricValue

NAMESPACE = "/aws/sagemaker/TrainingJobs"


def disk_usage(folders: Iterable[Path]) -> int:
    """Bytes that files below take on disk; links are not followed."""
    total = 0
    for folder in folders:
        for parent, _, names, handle in os.fwalk(folder, follow_symlinks=False):
            del parent
            for name in names:
                try:
                    total += os.stat(name, dir_fd=handle, follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:
                    continue
    return total


class Series:
    """Writes a job's time series. A store that is busy or away loses samples and harms no job."""

    def __init__(self, order: Order) -> None:
        self._store = SampleStore(Path(order.samples))
        self._namespace = f"/aws/sagemaker/{order.words.title().replace(' ', '')}s"
        self._order = order
        self._before: tuple[float, Usage] | None = None

    def metrics(self, values: Sequence[MetricValue]) -> None:
        """The values that the script printed."""
        dimensions = (("TrainingJobName", self._order.job),)
        self._put(
            _sample(Metric(NAMESPACE, each.name, dimensions), each.at / 1e6, "None", each.value)
            for each in values
        )

    def use(self, usage: Usage, gpus: GpuUsage | None = None) -> None:
        """Utilisation since the last call, in percent of one core and of the job's memory, and of
        one GPU where it has any."""
        now = time.time()
        before, self._before = self._before, (now, usage)
        if before is None or now <= before[0]:
            return
        percent = 100 * max(0.0, usage.cpu_s - before[1].cpu_s) / (now - before[0])
        limit = self._order.confinement.memory_bytes
        found = {
            "CPUUtilization": percent,
            "MemoryUtilization": 100 * usage.resident_bytes / limit,
        }
        if gpus is not None:
            found |= {"GPUUtilization": gpus.busy, "GPUMemoryUtilization": gpus.memory}
        host = (("Host", f"{self._order.job}/{self._order.host}"),)
        self._put(
            _sample(Metric(self._namespace, name, host), now, "Percent", value)
            for name, value in found.items()
        )

    def close(self) -> None:
        self._store.close()

    def _put(self, samples: Iterable[Sample]) -> None:
        found = list(samples)
        if not found:
            return
        try:
            self._store.put(found)
        except sqlite3.Error:
            return


def _sample(metric: Metric, at: float, unit: str, value: float) -> Sample:
    return Sample(metric, at, unit, 1.0, value, value, value)
