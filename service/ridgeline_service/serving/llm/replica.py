"""The life of one replica: starting, loading, warming, ready or failed, with the time each took.

Written by the thread that loads, read by the event loop. Knows no HTTP and no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Lock

from ridgeline.errors import RidgelineError
from ridgeline_backends.errors import BackendError
from ridgeline_service.serving.llm.errors import DeviceFailed, ModelLoading
from ridgeline_service.serving.llm.model import EmbeddingModel, Model, TextModel


class State(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of coming up: when it began, when it ended unless it still runs, and what it found
    worth saying."""

    name: str
    began: float
    ended: float | None = None
    detail: str = ""

    def seconds(self, now: float) -> float:
        return (now if self.ended is None else self.ended) - self.began


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    message: str
    hint: str


class Replica:
    """What the replica is, now. Every method may be called from any thread."""

    def __init__(self, replica_id: str, clock: Callable[[], float]) -> None:
        self.replica_id = replica_id
        self.in_flight = 0
        self._clock = clock
        self._lock = Lock()
        self._state = State.STARTING
        self._stages: list[Stage] = []
        self._model: Model | None = None
        self._failure: Failure | None = None

    @property
    def state(self) -> State:
        return State.FAILED if self.failure is not None else self._state

    @property
    def failure(self) -> Failure | None:
        """Why it did not come up, or can serve no longer."""
        if self._failure is None and self._model is not None and self._model.broken:
            return Failure("DeviceFailed", self._model.broken, "It is to be started anew.")
        return self._failure

    @property
    def loaded(self) -> Model | None:
        return self._model

    @property
    def model(self) -> Model:
        """Raises ModelLoading until the replica is ready."""
        if self._state is State.READY and self._model is not None:
            return self._model
        if self._failure is not None:
            raise ModelLoading(
                f"The model could not be loaded: {self._failure.message}", hint=self._failure.hint
            )
        raise ModelLoading(f"The model is not ready yet ({self._state}).", hint="Try again soon.")

    def require_device(self) -> None:
        """Raises DeviceFailed once what the model runs on has failed for good."""
        if self._model is not None and self._model.broken:
            raise DeviceFailed(self._model.broken, hint="Another replica takes its place.")

    @contextmanager
    def stage(self, name: str, state: State) -> Iterator[None]:
        """Time a part of coming up; the replica is in ``state`` from its beginning."""
        with self._lock:
            self._state = state
            self._stages.append(Stage(name, self._clock()))
        try:
            yield
        finally:
            with self._lock:
                self._stages[-1] = replace(self._stages[-1], ended=self._clock())

    def tell(self, detail: str) -> None:
        """Say something about the stage that runs."""
        with self._lock:
            self._stages[-1] = replace(self._stages[-1], detail=detail)

    def ready(self, model: Model) -> None:
        with self._lock:
            self._model = model
            self._state = State.READY

    def summary(self) -> str:
        """How long coming up took, in one line for the log."""
        with self._lock:
            now = self._clock()
            stages = [(stage.name, stage.seconds(now)) for stage in self._stages]
            whole = now - self._stages[0].began if self._stages else 0.0
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages)
        return f"Ready in {whole:.1f} s" + (f": {parts}" if parts else "")

    def fail(self, error: Exception) -> Failure:
        typed = isinstance(error, (RidgelineError, BackendError))
        code = getattr(error, "code", type(error).__name__) if typed else type(error).__name__
        message = getattr(error, "message", str(error)) if typed else f"{code}: {error}"
        with self._lock:
            self._failure = Failure(code, message, getattr(error, "hint", "") if typed else "")
            self._state = State.FAILED
            return self._failure

    def identity(self) -> dict[str, object]:
        """``GET /ridgeline/identity``. A stage that still runs counts its seconds so far."""
        with self._lock:
            now = self._clock()
            failure = self.failure
            return {
                "replica_id": self.replica_id,
                "state": self.state.value,
                "stages": [
                    {
                        "name": stage.name,
                        "seconds": round(stage.seconds(now), 3),
                        "state": "running" if stage.ended is None else "done",
                        "detail": stage.detail,
                    }
                    for stage in self._stages
                ],
                "task": self._task(),
                "error": failure
                and {"code": failure.code, "message": failure.message, "hint": failure.hint},
                "in_flight": self.in_flight,
            }

    def _task(self) -> str:
        if self._model is None:
            return ""
        if isinstance(self._model, TextModel):
            return "text-generation"
        return "text-embedding" if isinstance(self._model, EmbeddingModel) else "text-ranking"
