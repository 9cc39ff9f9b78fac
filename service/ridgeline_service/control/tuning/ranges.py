"""What is searched: dimensions, made from SageMaker's parameter ranges, whose values are text.

Pure: knows no search. Scales say how a range is measured out: a logarithmic one gives each order of
magnitude the same share, a reverse logarithmic one does so towards 1, for values like 0.9, 0.99.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ridgeline_service.errors import ValidationException
from ridgeline_service.training.toolkit import OWN_PREFIX

Kind = Literal["integer", "continuous", "categorical"]
Scale = Literal["linear", "logarithmic", "reverse"]

_SCALES: dict[str, Scale] = {
    "Linear": "linear",
    "Logarithmic": "logarithmic",
    "ReverseLogarithmic": "reverse",
}
_AUTO_LOGARITHMIC = 100.0
"""With ScalingType Auto, a range whose ends are at least so many times apart is logarithmic."""

_HINT_SPREAD = 10


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter: a range with both ends in it, or the texts it may be."""

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    scale: Scale = "linear"
    values: tuple[str, ...] = ()

    def text(self, value: float | str) -> str:
        """A value of the dimension as the training job gets it."""
        if self.kind == "integer":
            return str(round(float(value)))
        return repr(float(value)) if self.kind == "continuous" else str(value)

    def value(self, text: str) -> float | str | None:
        """What ``text`` stands for; None if it is no value of this dimension."""
        if self.kind == "categorical":
            return text if text in self.values else None
        try:
            number = float(text)
        except ValueError:
            return None
        if not self.low <= number <= self.high:
            return None
        return number if self.kind == "continuous" or number == int(number) else None


def dimensions_of(ranges: Mapping[str, Any] | None) -> tuple[Dimension, ...]:
    """The dimensions of ParameterRanges, by name. Raises ValidationException."""
    given = ranges or {}
    found = [
        *(_numeric(item, "integer") for item in given.get("IntegerParameterRanges") or ()),
        *(_numeric(item, "continuous") for item in given.get("ContinuousParameterRanges") or ()),
        *(_categorical(item) for item in given.get("CategoricalParameterRanges") or ()),
        *(_hinted(item) for item in given.get("AutoParameters") or ()),
    ]
    names = [dimension.name for dimension in found]
    for name in names:
        if names.count(name) > 1:
            raise ValidationException(f"Hyperparameter {name!r} has two ranges; it may have one.")
    return tuple(sorted(found, key=lambda dimension: dimension.name))


def points_of(dimensions: Sequence[Dimension], most: int) -> list[dict[str, str]] | None:
    """Every combination of values; None where there are more than ``most``, or no end of them."""
    count, axes = 1, []
    for each in dimensions:
        if each.kind == "continuous":
            return None
        whole = range(int(each.low), int(each.high) + 1)
        count *= len(each.values) or len(whole)
        if count > most:
            return None
        axes.append(each.values or tuple(str(value) for value in whole))
    names = [each.name for each in dimensions]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]


def grid(dimensions: Sequence[Dimension]) -> Iterator[dict[str, str]]:
    """Every combination of categorical dimensions, the last one changing fastest."""
    names = [dimension.name for dimension in dimensions]
    for values in itertools.product(*(dimension.values for dimension in dimensions)):
        yield dict(zip(names, values, strict=True))


def _numeric(item: Mapping[str, Any], kind: Kind) -> Dimension:
    name = item["Name"]
    low, high = (_bound(item, which, kind) for which in ("MinValue", "MaxValue"))
    if low > high:
        raise ValidationException(
            f"MinValue of hyperparameter {name!r} is {item['MinValue']}, which is more than its "
            f"MaxValue {item['MaxValue']}."
        )
    asked = item.get("ScalingType", "Auto")
    if asked == "Auto":
        wide = low > 0 and high / low >= _AUTO_LOGARITHMIC
        return Dimension(name, kind, low, high, "logarithmic" if wide else "linear")
    scale = _SCALES[asked]
    if scale == "logarithmic" and low <= 0:
        raise ValidationException(
            f"Hyperparameter {name!r} has ScalingType Logarithmic, and its MinValue "
            f"{item['MinValue']} is not greater than 0."
        )
    if scale == "reverse" and (kind == "integer" or low < 0 or high >= 1):
        raise ValidationException(
            f"Hyperparameter {name!r} has ScalingType ReverseLogarithmic, which is for continuous "
            "ranges within 0 <= x < 1.0."
        )
    return Dimension(name, kind, low, high, scale)


def _bound(item: Mapping[str, Any], which: str, kind: Kind) -> float:
    text = item[which]
    try:
        value = float(text)
        if not math.isfinite(value) or (kind == "integer" and value != int(value)):
            raise ValueError(text)
    except ValueError as error:
        words = "a whole number" if kind == "integer" else "a number"
        raise ValidationException(
            f"{which} of hyperparameter {item['Name']!r} is {text!r}, which is not {words}."
        ) from error
    return value


def _categorical(item: Mapping[str, Any]) -> Dimension:
    return Dimension(item["Name"], "categorical", values=tuple(dict.fromkeys(item["Values"])))


def _hinted(item: Mapping[str, Any]) -> Dimension:
    """A range around an example: numbers from a tenth of it to ten times as much, both for a truth
    value, and a text as it is. What belongs to the toolkit stays as it is, whatever it is."""
    name, text = item["Name"], item["ValueHint"]
    if name.startswith(OWN_PREFIX):
        return Dimension(name, "categorical", values=(text,))
    try:
        hint = json.loads(text)
    except ValueError:
        hint = text
    if isinstance(hint, bool):
        return Dimension(name, "categorical", values=("true", "false"))
    if isinstance(hint, int) and hint > 0:
        least, most = max(1, hint // _HINT_SPREAD), hint * _HINT_SPREAD
        return Dimension(name, "integer", least, most, "logarithmic")
    if isinstance(hint, float) and 0 < hint < math.inf:
        low, high = hint / _HINT_SPREAD, hint * _HINT_SPREAD
        # A share stays one: a dropout of 0.5 is not tried at 5.
        return Dimension(
            name, "continuous", low, min(high, 1.0) if hint < 1 else high, "logarithmic"
        )
    if isinstance(hint, int | float):
        raise ValidationException(
            f"ValueHint of hyperparameter {name!r} is {text}; a range is only made around a number "
            "greater than 0. Give the hyperparameter a range."
        )
    return Dimension(name, "categorical", values=(text,))
