"""Predictions on many instance types: programs are timed once for all types that run them alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ridgeline_backends.neuron.planning.ranking import Setting
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import Prediction, predict


class Timings:
    """Of one model."""

    def __init__(self) -> None:
        self._machines: dict[tuple[str, int], Machine] = {}
        self._predictions: dict[tuple[Hashable, ...], Prediction] = {}

    def of(self, key: Hashable, setting: Setting, program: Callable[[], Program]) -> Prediction:
        """Of a program that `key` names, on the group of cores of a setting."""
        machine = self._machine(setting)
        devices = machine.devices(setting.tp, 1)
        place = (
            key,
            (machine.chip, machine.lnc, devices, machine.hops(setting.tp, 1)),
            machine.instance.link_gb_s if devices > 1 else None,
        )
        if place not in self._predictions:
            self._predictions[place] = predict(program(), machine)
        return self._predictions[place]

    def _machine(self, setting: Setting) -> Machine:
        key = setting.instance.name, setting.lnc
        if key not in self._machines:
            self._machines[key] = Machine(setting.instance, setting.lnc)
        return self._machines[key]
