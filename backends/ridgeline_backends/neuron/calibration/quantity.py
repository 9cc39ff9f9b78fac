"""What a row's field is as a function of work: seconds times a scale, or a scale over seconds."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_backends.neuron.timing.work import Work


@dataclass(frozen=True)
class Quantity:
    """`field`: the row's own name for it. `domain`: with which others it shares its errors.

    The value is `scale` * seconds of the work, or `scale` / seconds where it is a `rate`.
    """

    field: str
    domain: str
    work: Work
    scale: float
    rate: bool = False

    def value(self, seconds: float) -> float:
        return self.scale / seconds if self.rate else self.scale * seconds

    def seconds(self, value: float) -> float:
        """The inverse: how long the work took, by a measured value."""
        return self.scale / value if self.rate else value / self.scale
