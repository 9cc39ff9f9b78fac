"""What a hyperparameter may be, with the names of SageMaker's SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from ridgeline.errors import InvalidInput, did_you_mean

_SCALES = ("Auto", "Linear", "Logarithmic", "ReverseLogarithmic")


class _Range:
    """Numbers from ``min_value`` to ``max_value``, both included. ``scaling_type`` says how they
    are measured out: Auto, Linear, Logarithmic or ReverseLogarithmic."""

    def __init__(self, min_value: float, max_value: float, scaling_type: str = "Auto") -> None:
        if scaling_type not in _SCALES:
            raise InvalidInput(
                f"scaling_type {scaling_type!r} is not known.",
                hint=did_you_mean(scaling_type, _SCALES),
            )
        if min_value > max_value:
            raise InvalidInput(f"A range from {min_value} to {max_value} has nothing in it.")
        self.min_value = min_value
        self.max_value = max_value
        self.scaling_type = scaling_type

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.min_value}, {self.max_value}, {self.scaling_type!r})"

    def as_tuning_range(self, name: str) -> dict[str, Any]:
        """The range as CreateHyperParameterTuningJob has it."""
        return {
            "Name": name,
            "MinValue": str(self.min_value),
            "MaxValue": str(self.max_value),
            "ScalingType": self.scaling_type,
        }


class ContinuousParameter(_Range):
    """A number of any kind."""


class IntegerParameter(_Range):
    """A whole number."""


class CategoricalParameter:
    """One of some values."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = [values] if isinstance(values, str) else list(values)
        if not self.values:
            raise InvalidInput("CategoricalParameter has no values.")

    def __repr__(self) -> str:
        return f"CategoricalParameter({self.values!r})"

    def as_tuning_range(self, name: str) -> dict[str, Any]:
        """The values as they are, as text."""
        values = [value if isinstance(value, str) else json.dumps(value) for value in self.values]
        return {"Name": name, "Values": values}

    def as_json_range(self, name: str) -> dict[str, Any]:
        """The values as JSON, so that a script in script mode gets back what was given."""
        return {"Name": name, "Values": [json.dumps(value) for value in self.values]}


ParameterRange: TypeAlias = ContinuousParameter | IntegerParameter | CategoricalParameter

_MEMBERS = {
    ContinuousParameter: "ContinuousParameterRanges",
    IntegerParameter: "IntegerParameterRanges",
    CategoricalParameter: "CategoricalParameterRanges",
}


def parameter_ranges(
    ranges: dict[str, ParameterRange], *, as_json: bool
) -> dict[str, list[dict[str, Any]]]:
    """ParameterRanges of a request; ``as_json`` for scripts in script mode."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, each in ranges.items():
        if isinstance(each, CategoricalParameter) and as_json:
            item = each.as_json_range(name)
        else:
            item = each.as_tuning_range(name)
        found.setdefault(_MEMBERS[type(each)], []).append(item)
    return found


def ranges_in(found: dict[str, list[dict[str, Any]]]) -> dict[str, ParameterRange]:
    """The ranges of a request, back as objects."""
    ranges: dict[str, ParameterRange] = {}
    for item in found.get("ContinuousParameterRanges") or ():
        low, high = float(item["MinValue"]), float(item["MaxValue"])
        ranges[item["Name"]] = ContinuousParameter(low, high, item.get("ScalingType", "Auto"))
    for item in found.get("IntegerParameterRanges") or ():
        first, last = int(item["MinValue"]), int(item["MaxValue"])
        ranges[item["Name"]] = IntegerParameter(first, last, item.get("ScalingType", "Auto"))
    for item in found.get("CategoricalParameterRanges") or ():
        ranges[item["Name"]] = CategoricalParameter(item["Values"])
    return ranges
