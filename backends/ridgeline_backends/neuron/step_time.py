"""What a step would take on the device, remembered per program. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ridgeline_backends.base import DeviceTime
from ridgeline_backends.neuron.program import Program

PredictTime = Callable[[Program], DeviceTime]
"""Seconds of one call of a program, with their interval."""


class StepTimes:
    """The predicted time of steps, each a few calls one after the other."""

    def __init__(self, predict: PredictTime) -> None:
        self._predict = predict
        self._found: dict[tuple[str, int], DeviceTime] = {}

    def of(self, programs: Iterable[Program]) -> DeviceTime:
        times = [self._one(program) for program in programs]
        return DeviceTime(
            seconds=sum(one.seconds for one in times),
            low=sum(one.seconds if one.low is None else one.low for one in times),
            high=sum(one.seconds if one.high is None else one.high for one in times),
        )

    def _one(self, program: Program) -> DeviceTime:
        # A runner has one program for a phase and a bucket.
        place = program.phase, program.bucket
        if place not in self._found:
            self._found[place] = self._predict(program)
        return self._found[place]
