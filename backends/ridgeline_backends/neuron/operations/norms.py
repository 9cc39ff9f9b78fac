"""Norms: statistics and scaling in fp32, one rounding at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ridgeline_backends.neuron.operations.checks import require, take
from ridgeline_backends.neuron.program import Form, OperationKind


@dataclass(frozen=True, slots=True)
class RMSNorm(OperationKind):
    """x [..., n] over its root mean square, times a weight [n]."""

    name: ClassVar[str] = "rms_norm"
    eps: float

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, weight = take(inputs, self.name, 2)
        require(x.shape[-1:] == weight.shape, self.name, "scales the last axis", inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return 4 * inputs[0].elements


@dataclass(frozen=True, slots=True)
class LayerNorm(OperationKind):
    """x [..., n] less its mean, over its deviation; then times a weight [n], then plus a bias [n],
    where there are such inputs."""

    name: ClassVar[str] = "layer_norm"
    eps: float

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, *vectors = take(inputs, self.name, 1, 3)
        fitting = all(one.shape == x.shape[-1:] for one in vectors)
        require(fitting, self.name, "scales the last axis", inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return (5 + len(inputs)) * inputs[0].elements


@dataclass(frozen=True, slots=True)
class GroupNorm(OperationKind):
    """x [batch, channels, ...]: as a layer norm over each of `groups` groups of channels; weight
    and bias [channels]."""

    name: ClassVar[str] = "group_norm"
    groups: int
    eps: float

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        x, *vectors = take(inputs, self.name, 1, 3)
        require(len(x.shape) >= 2, self.name, "has channels", inputs)
        require(x.shape[1] % self.groups == 0, self.name, "divides its channels evenly", inputs)
        fitting = all(one.shape == (x.shape[1],) for one in vectors)
        require(fitting, self.name, "scales channels", inputs)
        return (x,)

    def flops(self, inputs: Sequence[Form]) -> int:
        return (5 + len(inputs)) * inputs[0].elements
