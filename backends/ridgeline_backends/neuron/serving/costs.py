"""How long a step takes: of a call for each compiled bucket, and the host's work around it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from ridgeline_backends.base import Step
from ridgeline_backends.neuron.serving.load import SECOND


@dataclass(frozen=True)
class StepCosts:
    """Seconds. `prefill`: of one prompt, by its compiled length; prompts of one step are encoded
    one after the other. `decode`: of a step over the whole compiled batch, by how much KV it reads.
    `sequence`: the host's work for each sequence of a step beyond the first."""

    prefill: Mapping[int, float]
    decode: Mapping[int, float]
    sequence: float = 0.0
    _prompts: tuple[int, ...] = field(init=False)
    _lengths: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prompts", tuple(sorted(self.prefill)))
        object.__setattr__(self, "_lengths", tuple(sorted(self.decode)))

    def step_ns(self, step: Step) -> int:
        """Of any step."""
        prompts = [one for one in step.chunks if len(one.tokens) > 1 or one.start == 0]
        encoded = sum(self.prefill[_bucket(self._prompts, len(one.tokens))] for one in prompts)
        decoding = len(step.chunks) - len(prompts)
        if not decoding:
            return round(encoded * SECOND)
        longest = max(one.start + 1 for one in step.chunks)
        return round(encoded * SECOND) + self.decode_ns(decoding, longest)

    def decode_ns(self, sequences: int, longest: int) -> int:
        """Of a decode step whose longest sequence has so many positions."""
        seconds = self.decode[_bucket(self._lengths, longest)] + self.sequence * (sequences - 1)
        return max(1, round(seconds * SECOND))

    def same_steps(self, longest: int) -> int:
        """For how many steps from this one on the same bucket serves."""
        bucket = _bucket(self._lengths, longest)
        return max(1, bucket - longest + 1)


def _bucket(sizes: tuple[int, ...], size: int) -> int:
    """The smallest that holds it; the largest where none does."""
    return sizes[min(bisect_left(sizes, size), len(sizes) - 1)]
