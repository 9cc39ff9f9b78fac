"""How long a device takes for its steps: what a clock said, or what is predicted of another one;
and what is known of a device that is simulated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """Seconds on the device: measured, or predicted with an interval (`low` to `high`).

    Of a prediction also: `collective_seconds` of it in which cores exchange, and `peak_seconds`,
    what its FLOPs would take at the peak of its cores.
    """

    seconds: float
    low: float | None = None
    high: float | None = None
    collective_seconds: float = 0.0
    peak_seconds: float = 0.0

    @property
    def predicted(self) -> bool:
        return self.low is not None

    def __add__(self, other: DeviceTime) -> DeviceTime:
        """One after the other. What has no interval counts as certain."""
        return self._joined(other, 1)

    def __sub__(self, other: DeviceTime) -> DeviceTime:
        """What is left of a sum without its first part."""
        return self._joined(other, -1)

    def _joined(self, other: DeviceTime, sign: int) -> DeviceTime:
        low, from_low = (one.seconds if one.low is None else one.low for one in (self, other))
        high, from_high = (one.seconds if one.high is None else one.high for one in (self, other))
        return DeviceTime(
            seconds=self.seconds + sign * other.seconds,
            low=low + sign * from_low,
            high=high + sign * from_high,
            collective_seconds=self.collective_seconds + sign * other.collective_seconds,
            peak_seconds=self.peak_seconds + sign * other.peak_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCall:
    """One call of a compiled program: its phase, the positions and the sequences it is for."""

    phase: str
    bucket: int
    batch: int
    time: DeviceTime


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDevice:
    """What a runner stands for: `copies` groups of `cores`, each with the model. `label` says how
    far measurements vouch for its times: calibrated, extrapolated or prior-only. `usd_per_hour` is
    the instance's, None: no price is known. `core_bytes`: what fills the memory of a core, in the
    runtime's words, of `core_bytes_available`. `calls`: its compiled programs. `paced`: answers
    come when they would come from it. `config` and `settings` are what was compiled: the model's,
    and NxD Inference's."""

    instance_type: str
    cores: int
    logical_neuroncore_config: int
    usd_per_hour: float | None
    label: str
    copies: int = 1
    core_bytes: Mapping[str, int] = field(default_factory=dict)
    core_bytes_available: int = 0
    calls: tuple[DeviceCall, ...] = ()
    paced: bool = False
    config: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)

    def usd(self, seconds: float) -> float | None:
        """What so many seconds of one copy cost: its share of the instance's price."""
        if self.usd_per_hour is None:
            return None
        return seconds * self.usd_per_hour / 3600 / self.copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Executions:
    """Of compiled programs, since the start: how many calls of each ended well, and how many ended
    with each error of the runtime, by its name (NRT_TIMEOUT, ...)."""

    completed: Mapping[DeviceCall, int]
    failed: Mapping[str, int]

    @property
    def total(self) -> int:
        """Those that ended well."""
        return sum(self.completed.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Texts that were encoded since the start, and their tokens."""

    texts: int = 0
    tokens: int = 0

    def __add__(self, other: Encoded) -> Encoded:
        return Encoded(texts=self.texts + other.texts, tokens=self.tokens + other.tokens)


class SimulatedHardware(ABC):
    """Capability of a runner: its device is simulated, and fails on demand."""

    @property
    @abstractmethod
    def simulates(self) -> SimulatedDevice: ...

    @property
    @abstractmethod
    def executions(self) -> Executions:
        """Any thread."""

    @property
    @abstractmethod
    def broken(self) -> str:
        """What every further step ends with, "" on hardware that works. Any thread."""

    @abstractmethod
    def break_down(self, kind: str, *, after: int = 0, every: int = 0) -> None:
        """Let `kind` happen once so many steps more have passed, and every so many again; "" makes
        everything whole. Raises `InvalidInput` for a kind that there is not. Any thread."""


class MeteredHardware(SimulatedHardware):
    """The same of a runner that no engine counts the steps of: of one copy of the model."""

    @property
    @abstractmethod
    def spent(self) -> DeviceTime:
        """What all its calls so far would have taken. Any thread."""

    @property
    @abstractmethod
    def encoded(self) -> Encoded:
        """What these calls were for. Any thread."""

    @property
    def copies(self) -> tuple[MeteredHardware, ...]:
        """All copies, this one first."""
        return (self,)

    @property
    def spent_by_all(self) -> DeviceTime:
        """By all copies together."""
        first, *others = (one.spent for one in self.copies)
        return sum(others, first)

    @property
    def encoded_by_all(self) -> Encoded:
        return sum((one.encoded for one in self.copies), Encoded())
