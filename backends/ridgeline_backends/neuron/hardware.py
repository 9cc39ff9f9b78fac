"""The simulated cores that a runner's programs run on: what they stand for, their clock, pace and
faults. Knows no model."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import asdict, replace
from threading import Lock
from typing import Self, TypeVar

import ridgeline_backends.cpu  # noqa: F401  before torch: it tells OpenMP not to spin

# isort: split
import torch

from ridgeline_backends.base import Artifact, CopiedRunner
from ridgeline_backends.device_time import (
    DeviceCall,
    DeviceTime,
    Executions,
    SimulatedDevice,
    SimulatedHardware,
)
from ridgeline_backends.neuron.execute.memory import CoreMemory
from ridgeline_backends.neuron.faults import Faults, NeuronRuntimeError
from ridgeline_backends.neuron.plan import NeuronPlan
from ridgeline_backends.neuron.program import Program
from ridgeline_backends.neuron.step_time import PredictTime, StepTimes, device_of
from ridgeline_backends.torch_threads import TorchThreads

T = TypeVar("T")


class NeuronHardware(SimulatedHardware, CopiedRunner):
    """Of `plan.placement`. Where the spec says `paced`, a call returns when the device would.

    Copies of a model share this machine, which computes for one after the other, and what is
    counted; a fault breaks the runtime, which is that of all."""

    _simulates: SimulatedDevice
    _copies: tuple[Self, ...]

    def __init__(
        self,
        artifact: Artifact,
        predict: PredictTime,
        *,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `NeuronRuntimeError` where `faults` let no model be loaded."""
        self._faults = faults or Faults()
        self._faults.load()
        plan = artifact.plan
        assert isinstance(plan, NeuronPlan), "a plan of another backend"
        self._plan = plan
        self._neuron = plan.neuron
        if plan.spec.threads is not None:
            torch.set_num_threads(plan.spec.threads)
        self._threads = TorchThreads()
        self._counting = Lock()
        # One thread for all copies: OpenMP keeps a team of threads for each that calls it.
        several = plan.placement.copies > 1
        self._host = ThreadPoolExecutor(1, thread_name_prefix="cores") if several else None
        self._times = StepTimes(predict)
        self._memory = CoreMemory(plan.neuron.tp_degree)
        self._clock = clock
        self._sleep = sleep
        self._completed: Counter[DeviceCall] = Counter()
        self._failed: Counter[str] = Counter()
        self._open(artifact)
        copies = (self, *(self._beside() for _ in range(1, plan.placement.copies)))
        for one in copies:
            one._copies = copies

    @abstractmethod
    def _open(self, artifact: Artifact) -> None:
        """Read the model, put its weights on the cores, and say what they stand for."""

    def _beside(self) -> Self:
        """A copy of the model on other cores."""
        return copy(self)

    @property
    def copies(self) -> tuple[Self, ...]:
        return self._copies

    @property
    def simulates(self) -> SimulatedDevice:
        return self._simulates

    @property
    def executions(self) -> Executions:
        with self._counting:
            return Executions(completed=dict(self._completed), failed=dict(self._failed))

    @property
    def broken(self) -> str:
        return self._faults.broken

    def break_down(self, kind: str, *, after: int = 0, every: int = 0) -> None:
        changed = self._faults.instead(kind, after=after, every=every, cores=self._neuron.tp_degree)
        for one in self._copies:
            one._faults = changed

    def _stand_for(
        self, config: Mapping[str, object], usual: Program, compiled: Iterable[Program]
    ) -> None:
        """A config.json as these programs; the label is that of the `usual` one's time."""
        plan = self._plan
        self._simulates = replace(
            device_of(plan.placement, usual, plan.need, map(self._call, compiled)),
            paced=plan.spec.paced,
            config=config,
            settings=asdict(plan.neuron),
        )

    def _begin(self) -> float:
        """A step begins: when, by the clock. Raises `NeuronRuntimeError`."""
        begun = self._clock()
        try:
            self._faults.step(self._neuron.tp_degree, self._sleep)
        except NeuronRuntimeError as error:
            with self._counting:
                self._failed[error.code] += 1
            raise
        return begun

    def _compute(self, work: Callable[[], T]) -> T:
        """On this machine, where copies take turns."""
        if self._host is None:
            return self._adopted(work)
        return self._host.submit(self._adopted, work).result()

    def _adopted(self, work: Callable[[], T]) -> T:
        self._threads.adopt()
        with torch.inference_mode():
            return work()

    def _end(self, begun: float, programs: Sequence[Program]) -> DeviceTime:
        """It returns, not before the device would where that is wanted: what it took there."""
        calls = [self._call(one) for one in programs]
        with self._counting:
            self._completed.update(calls)
        taken = self._times.of(programs)
        if self._plan.spec.paced:
            self._sleep(max(0.0, taken.seconds - (self._clock() - begun)))
        return taken

    def _call(self, one: Program) -> DeviceCall:
        taken = self._times.of([one])
        return DeviceCall(phase=one.phase, bucket=one.bucket, batch=one.batch, time=taken)
