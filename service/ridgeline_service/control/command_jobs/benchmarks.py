"""Which benchmarks a recommendations job asks for: instance types and container settings.

A setting of a container that decides what is compiled decides the test; any other is passed on to
the recommendation and changes no figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

MOST_TESTS = 10

_NUMBERS = {
    "OPTION_TENSOR_PARALLEL_DEGREE": "tp",
    "OPTION_TENSOR_PARALLEL_SIZE": "tp",
    "SM_NUM_GPUS": "tp",
    "NUM_SHARD": "tp",
    "OPTION_DATA_PARALLEL_SIZE": "copies",
    "NEURON_LOGICAL_NC_CONFIG": "lnc",
    "OPTION_MAX_ROLLING_BATCH_SIZE": "batch",
    "OPTION_MAX_NUM_SEQS": "batch",
    "MAX_BATCH_SIZE": "batch",
    "OPTION_MAX_MODEL_LEN": "length",
    "MAX_TOTAL_TOKENS": "length",
}
_QUANTIZE = ("OPTION_QUANTIZE", "OPTION_QUANTIZATION", "QUANTIZE")


@dataclass(frozen=True)
class Benchmark:
    """``refusal``: why nothing can be told of it."""

    instance_type: str
    environment: Mapping[str, str]
    refusal: str = ""

    def order(self) -> dict[str, Any]:
        """As `ridgeline_backends.neuron.jobs.load_test` takes it."""
        found: dict[str, Any] = {"instance": self.instance_type.removeprefix("ml.")}
        for name, value in self.environment.items():
            if name in _NUMBERS and value.isdigit():
                found[_NUMBERS[name]] = int(value)
            elif name in _QUANTIZE:
                found["quantized"] = value.lower() in ("int8", "w8a8")
        return found


def benchmarks_of(request: Mapping[str, Any], known: list[str]) -> list[Benchmark]:
    """In the request's order, each configuration with every combination of its values; ``known``
    where it names no instance type."""
    asked = request["InputConfig"]
    most = (asked.get("ResourceLimit") or {}).get("MaxNumberOfTests", MOST_TESTS)
    if request["JobType"] == "Advanced":
        found = [test for one in asked["EndpointConfigurations"] for test in _of_configuration(one)]
    else:
        named = (asked.get("ContainerConfig") or {}).get("SupportedInstanceTypes") or known
        found = [Benchmark(name, {}) for name in named]
    return list({_key(one): one for one in found}.values())[:most]


def percentile_of(words: str) -> float:
    """`P95` as 0.95. Raises ValueError."""
    share = float(words.removeprefix("P").removeprefix("p")) / 100
    if not 0 < share <= 1:
        raise ValueError(words)
    return share


def _of_configuration(one: Mapping[str, Any]) -> list[Benchmark]:
    name = one.get("InstanceType")
    if name is None:
        return [Benchmark("", {}, "serverless endpoints have no simulated devices")]
    ranges = (one.get("EnvironmentParameterRanges") or {}).get("CategoricalParameterRanges") or ()
    names = [each["Name"] for each in ranges]
    values = product(*(each["Value"] for each in ranges))
    return [Benchmark(name, dict(zip(names, chosen, strict=True))) for chosen in values]


def _key(one: Benchmark) -> tuple[object, ...]:
    return one.instance_type, *sorted(one.environment.items())
