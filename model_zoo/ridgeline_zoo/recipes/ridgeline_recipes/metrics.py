"""Figures of a training: a line of the log each (``name=value``, which a job's MetricDefinitions
find), and all of them in ``metrics.json`` of the job's output."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ridgeline_recipes.job import say


class Metrics:
    """Collects the figures of one training."""

    def __init__(self, output: Path) -> None:
        self._file = output / "metrics.json"
        self._values: dict[str, float] = {}

    def report(self, **values: float) -> None:
        """Log figures and keep them."""
        self._values |= values
        say(" ".join(f"{name}={value:.6g}" for name, value in values.items()))

    def write(self) -> None:
        """JSON has no word for a figure that is no number: such are null."""
        values = {
            name: value if math.isfinite(value) else None for name, value in self._values.items()
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(values, indent=1) + "\n")
