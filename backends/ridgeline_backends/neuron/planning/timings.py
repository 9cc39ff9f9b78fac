"""Programs on many instance types: each is timed, and its instructions counted, once for all types
that run it alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ridgeline_backends.neuron.instruction_count import TooManyInstructions, too_many
from ridgeline_backends.neuron.planning.ranking import Setting
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.timing.machine import Machine
from ridgeline_backends.neuron.timing.predict import Prediction, predict


class Timings:
    """Of one model."""

    def __init__(self) -> None:
        self._machines: dict[tuple[str, int], Machine] = {}
        self._predictions: dict[tuple[Hashable, ...], Prediction] = {}
        self._refusals: dict[tuple[Hashable, ...], TooManyInstructions | None] = {}

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

    def check(self, key: Hashable, setting: Setting, program: Callable[[], Program]) -> None:
        """Raises `TooManyInstructions` for a program that `key` names."""
        chip = setting.instance.chip
        tiles = chip.tensor_rows, chip.tensor_columns, chip.psum_bank_bytes, setting.lnc
        if (key, tiles) not in self._refusals:
            self._refusals[key, tiles] = too_many(program(), chip, setting.lnc)
        if refusal := self._refusals[key, tiles]:
            raise refusal

    def _machine(self, setting: Setting) -> Machine:
        key = setting.instance.name, setting.lnc
        if key not in self._machines:
            self._machines[key] = Machine(setting.instance, setting.lnc)
        return self._machines[key]
