"""What a step would take on the device, remembered per program. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ridgeline_backends.device_time import DeviceCall, DeviceTime, SimulatedDevice
from ridgeline_backends.neuron.liveness import CoreNeed
from ridgeline_backends.neuron.placement import Placement
from ridgeline_backends.neuron.program import ElementType, Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import calibration, predict
from ridgeline_backends.neuron.timing.seconds import seconds
from ridgeline_backends.neuron.timing.work import EXCHANGE, Work

PredictTime = Callable[[Program], DeviceTime]
"""Seconds of one call of a program, with their interval."""


class StepTimes:
    """The predicted time of steps, each a few calls one after the other."""

    def __init__(self, predict: PredictTime) -> None:
        self._predict = predict
        self._found: dict[tuple[str, int, int], DeviceTime] = {}

    def of(self, programs: Iterable[Program]) -> DeviceTime:
        times = [self._one(program) for program in programs]
        return sum(times, DeviceTime(seconds=0.0, low=0.0, high=0.0))

    def _one(self, program: Program) -> DeviceTime:
        # A runner has one program for a phase, a bucket and a batch.
        place = program.phase, program.bucket, program.batch
        if place not in self._found:
            self._found[place] = self._predict(program)
        return self._found[place]


def call_time(program: Program, machine: Machine, dtype: ElementType) -> DeviceTime:
    """Of one call of a program that computes in `dtype`, with what its cores exchange."""
    found = predict(program, machine)
    work = Work.of(program, machine)
    alone = work.rows.copy()
    alone[:, EXCHANGE] = 0
    known = calibration().coefficients
    whole = seconds(work, known)
    # What only gives its inputs back takes no time.
    exchanging = 1 - seconds(Work(alone), known) / whole if whole else 0.0
    peak = machine.chip.tflops_per_core.get(dtype.value, 0.0) * machine.lnc * 1e12
    return DeviceTime(
        seconds=found.seconds,
        low=found.low,
        high=found.high,
        collective_seconds=found.seconds * exchanging,
        peak_seconds=program.flops / peak if peak else 0.0,
    )


def device_of(
    placement: Placement, program: Program, need: CoreNeed, calls: Iterable[DeviceCall]
) -> SimulatedDevice:
    """What a runner on a placement stands for; the label is that of this program's time."""
    return SimulatedDevice(
        instance_type=placement.instance.name,
        cores=placement.cores,
        copies=placement.copies,
        logical_neuroncore_config=placement.lnc,
        usd_per_hour=placement.instance.price_usd_h,
        label=predict(program, placement.machine).label,
        core_bytes=need.table(),
        core_bytes_available=placement.core_memory_bytes,
        calls=tuple(calls),
    )
