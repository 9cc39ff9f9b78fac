"""How long a sequence takes on a device whose steps report predicted times."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline_backends.device_time import DeviceTime, SimulatedDevice
from ridgeline_backends.engine.api import SimulatedTimes


@dataclass(slots=True)
class SimulatedClock:
    """One sequence's. `began` is the time that all steps had taken when it was submitted."""

    device: SimulatedDevice
    began: DeviceTime
    _now: DeviceTime | None = None
    _first: DeviceTime | None = None
    _own_seconds: float = 0.0

    def step(self, now: DeviceTime, own_seconds: float) -> None:
        """A step that it was in is over: all have taken `now`."""
        self._now = now
        self._own_seconds += own_seconds

    def read(self, *, first: bool) -> SimulatedTimes | None:
        """How far it is, `first` with its first token; None before that."""
        if self._now is None:
            return None
        total = self._now - self.began
        if first:
            self._first = total
        if self._first is None:
            return None
        return SimulatedTimes(
            device=self.device,
            first_token=self._first,
            total=total,
            own_seconds=self._own_seconds,
        )
