"""Which benchmarks a recommendations job asks for: instance types and container settings.

A setting of a container that decides what is compiled decides the test; any other is passed on to
the recommendation and changes no figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ridgeline.errors import RidgelineError
from ridgeline_backends.neuron.devices import instances
from ridgeline_service.endings import sentences
from ridgeline_service.placement.profiles import is_instance_type

MOST_TESTS = 10

_PLAIN = {
    "NEURON_LOGICAL_NC_CONFIG": "lnc",
    "SM_NUM_GPUS": "tp",
    "NUM_SHARD": "tp",
    "MAX_TOTAL_TOKENS": "length",
    "MAX_BATCH_SIZE": "batch",
    "HF_NUM_CORES": "tp",
    "HF_BATCH_SIZE": "batch",
    "HF_SEQUENCE_LENGTH": "length",
    "NEURON_RT_NUM_CORES": "tp",
    "QUANTIZE": "quantized",
    "HF_MODEL_QUANTIZE": "quantized",
}
_LMI = {
    "DATA_PARALLEL_SIZE": "copies",
    "MAX_MODEL_LEN": "length",
    "MAX_NUM_SEQS": "batch",
    "MAX_ROLLING_BATCH_SIZE": "batch",
    "N_POSITIONS": "length",
    "QUANTIZATION": "quantized",
    "QUANTIZE": "quantized",
    "TENSOR_PARALLEL_DEGREE": "tp",
    "TENSOR_PARALLEL_SIZE": "tp",
}
VARIABLES = {
    **_PLAIN,
    **{f"SM_VLLM_{name}": target for name, target in _LMI.items()},
    **{f"OPTION_{name}": target for name, target in _LMI.items()},
}
"""What of a test a container's variable decides, in an endpoint's order: the weakest first."""

_ONE_DEVICE = ("max", "all")
"""A degree that is all cores of one device."""


@dataclass(frozen=True)
class Benchmark:
    """``refusal``: why nothing can be told of it. ``any_weights``: 8-bit ones too, if no others
    fit, though its environment does not ask for them."""

    instance_type: str
    environment: Mapping[str, str]
    refusal: str = ""
    any_weights: bool = False

    def order(self) -> dict[str, Any]:
        """As `ridgeline_backends.neuron.jobs.load_test` takes it; of one without a refusal."""
        name = self.instance_type.removeprefix("ml.")
        found: dict[str, Any] = {"instance": name}
        if not self.any_weights:
            found["quantized"] = False
        for variable, target in VARIABLES.items():
            value = self.environment.get(variable, "").strip().lower()
            if not value:
                continue
            if target == "quantized":
                found[target] = value != "none"
            elif value in _ONE_DEVICE:
                found[target] = _device_cores(name, found.get("lnc"))
            else:
                found[target] = int(value)
        return found


def offered_types() -> list[str]:
    """Instance types with simulated devices that endpoints can have, the cheapest first."""
    found = [
        one
        for one in instances().values()
        if one.chip.neuroncore != "v1" and is_instance_type(f"ml.{one.name}")
    ]
    found.sort(key=lambda one: (one.price_usd_h is None, one.price_usd_h or 0.0))
    return [f"ml.{one.name}" for one in found]


def benchmarks_of(request: Mapping[str, Any], known: Sequence[str]) -> list[Benchmark]:
    """In the request's order, each configuration with every combination of its values; ``known``
    where it names no instance type."""
    asked = request["InputConfig"]
    most = (asked.get("ResourceLimit") or {}).get("MaxNumberOfTests", MOST_TESTS)
    if request["JobType"] == "Advanced":
        found = [test for one in asked["EndpointConfigurations"] for test in _of_configuration(one)]
    else:
        named = (asked.get("ContainerConfig") or {}).get("SupportedInstanceTypes") or known
        found = [Benchmark(name, {}, any_weights=True) for name in named]
    wanted = list({_key(one): one for one in found}.values())[:most]
    return [one if one.refusal else replace(one, refusal=_refusal(one)) for one in wanted]


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


def _refusal(one: Benchmark) -> str:
    """What an endpoint would say of its settings; empty where it takes them."""
    if not one.environment:
        return ""
    # Here, because it brings chat templates and tokenizers, which other jobs do without.
    from ridgeline_service.serving.llm.settings import read_settings

    try:
        read_settings({**one.environment, "RIDGELINE_BACKEND": "neuron"})
    except RidgelineError as error:
        return sentences(error.message, error.hint)
    return ""


def _device_cores(name: str, lnc: int | None) -> int | None:
    """None where the type or its configuration is not known, which the test says itself."""
    found = instances().get(name)
    if found is None or lnc not in (None, *found.chip.lnc):
        return None
    return found.chip.logical_cores(lnc or found.chip.default_lnc)


def _key(one: Benchmark) -> tuple[object, ...]:
    return one.instance_type, *sorted(one.environment.items())
