"""What a running job uses of its GPUs, as nvidia-smi tells it; nothing where there is none.

One short-lived process a look, which the driver answers without touching the job.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_TIMEOUT_S = 2.0
_FIELDS = "utilization.gpu,memory.used,memory.total"


@dataclass(frozen=True)
class GpuUsage:
    """Percent, summed over the job's GPUs as SageMaker does: up to 100 for each of them."""

    busy: float
    memory: float


def gpu_usage(
    gpus: Sequence[int], find: Callable[[str], str | None] = shutil.which
) -> GpuUsage | None:
    """Of the GPUs with these numbers; None without any, and where nothing is told of them."""
    tool = find("nvidia-smi") if gpus else None
    if tool is None:
        return None
    wanted = ",".join(map(str, gpus))
    command = [tool, f"--id={wanted}", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse(done.stdout) if done.returncode == 0 else None


def parse(said: str) -> GpuUsage | None:
    """A line for each GPU; what a driver cannot measure it calls [N/A]."""
    busy = memory = 0.0
    for line in said.splitlines():
        try:
            percent, used, total = (float(part) for part in line.split(","))
        except ValueError:
            return None
        busy += percent
        memory += 100 * used / total
    return GpuUsage(busy, memory) if said.strip() else None
