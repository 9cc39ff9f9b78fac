"""What a replica that stands for a simulated device tells of it in its metrics, and what has grown
between two looks. Imports no torch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.parser import text_string_to_metric_families

_PERCENTILES = (0, 1, 25, 50, 75, 99, 100)

Program = tuple[str, str, str]
"""Phase, bucket and batch of a compiled program, as the metrics have them."""


@dataclass(frozen=True)
class Scrape:
    """One replica's metrics at one time: samples by name, and by name and label where they have
    one that matters here. `executions` and `seconds`: of each compiled program."""

    replica: str
    at: float
    values: Mapping[str, float]
    by_label: Mapping[str, Mapping[str, float]]
    info: Mapping[str, str]
    executions: Mapping[Program, float]
    seconds: Mapping[Program, float]

    @property
    def cores(self) -> int:
        """Of all copies of the model, those of one behind those of the other."""
        return int(self.info["neuron_cores"]) * self.copies

    @property
    def copies(self) -> int:
        return int(self.info["copies"])

    @property
    def lnc(self) -> int:
        return int(self.info["logical_neuroncore_config"])

    def since(self, former: Scrape, name: str) -> float:
        """How much a counter grew; from nothing if the replica was started anew."""
        grown = self.values.get(name, 0.0) - former.values.get(name, 0.0)
        return grown if grown >= 0 else self.values.get(name, 0.0)

    def counted(self, former: Scrape, name: str) -> dict[str, int]:
        """The same of a counter with a label, by its values."""
        now, before = self.by_label[name], former.by_label[name]
        return {
            one: int(count - before.get(one, 0.0) if count >= before.get(one, 0.0) else count)
            for one, count in now.items()
        }

    def executed(self, former: Scrape) -> dict[float, float]:
        """How often a program ran that takes so many seconds, rising."""
        found: dict[float, float] = {}
        for program, count in self.executions.items():
            before = former.executions.get(program, 0.0)
            grown = count - before if count >= before else count
            if grown:
                took = self.seconds[program]
                found[took] = found.get(took, 0.0) + grown
        return dict(sorted(found.items()))


_EXECUTIONS, _SECONDS = (
    "ridgeline_simulated_executions_total",
    "ridgeline_simulated_execution_seconds",
)
MEMORY = "ridgeline_simulated_core_memory_bytes"
FAILED = "ridgeline_simulated_execution_errors_total"
PROCESSOR = "ridgeline_process_cpu_seconds_total"
_LABELLED = {
    MEMORY: "kind",
    FAILED: "code",
    PROCESSOR: "mode",
}


def read_scrape(replica: str, text: str, at: float) -> Scrape | None:
    """From Prometheus' text; None for a replica that stands for no device."""
    values: dict[str, float] = {}
    by_label: dict[str, dict[str, float]] = {name: {} for name in _LABELLED}
    programs: dict[str, dict[Program, float]] = {_EXECUTIONS: {}, _SECONDS: {}}
    info: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
            if sample.name == "ridgeline_simulated_device_info":
                info = dict(sample.labels)
            label = _LABELLED.get(sample.name)
            if label is not None:
                by_label[sample.name][sample.labels[label]] = sample.value
            if sample.name in programs:
                labels = sample.labels
                program = labels["phase"], labels["bucket"], labels["batch"]
                programs[sample.name][program] = sample.value
    if not info:
        return None
    ran = programs[_EXECUTIONS], programs[_SECONDS]
    return Scrape(replica, at, values, by_label, info, *ran)


def utilisation(now: Scrape, former: Scrape) -> float:
    """Percent of the time between two scrapes in which the cores of a device would have worked, on
    average over the copies of the model."""
    passed = now.at - former.at
    busy = now.since(former, "ridgeline_simulated_device_seconds") / now.copies
    return min(100.0, 100.0 * busy / passed) if passed > 0 else 0.0


def percentiles(now: Scrape, former: Scrape) -> dict[str, float] | None:
    """Seconds of an execution on the device; None where there was none."""
    ran = now.executed(former)
    total = sum(ran.values())
    if not total:
        return None
    times, ends = list(ran), list(accumulate(ran.values()))
    wanted = {one: max(1.0, total * one / 100) for one in _PERCENTILES}
    return {f"p{one}": times[bisect_left(ends, rank)] for one, rank in wanted.items()}
