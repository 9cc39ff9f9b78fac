"""What the replica tells of its requests: metrics, spans by stage, and the tokens they used.

One `Observation` a request, from its head to its end. Knows no HTTP and no schema of a body.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ridgeline.errors import RidgelineError
from ridgeline_backends.engine.api import StepRecord
from ridgeline_backends.errors import BackendError
from ridgeline_service.replica_protocol import USAGE_HEADER
from ridgeline_service.serving.llm.errors import ErrorAnswer, answer_for, internal_answer
from ridgeline_service.serving.llm.metrics import ModelMetrics, ReplicaMetrics
from ridgeline_service.serving.llm.model import Model, TextModel
from ridgeline_service.serving.llm.simulated import (
    encoded_object,
    simulated_header,
    simulated_object,
)
from ridgeline_service.serving.llm.watch import NOBODY, Clock, RequestWatch, SequenceWatch
from ridgeline_service.telemetry.tracing import NO_TRACING, Span, Tracing, Value

_NONE: Mapping[str, Value] = {}


class Observer:
    """One a replica."""

    def __init__(
        self,
        tracing: Tracing = NO_TRACING,
        *,
        clock: Clock = time.monotonic,
        now: Clock = time.time,
    ) -> None:
        self.metrics = ReplicaMetrics()
        self._model: ModelMetrics | None = None
        self._tracing = tracing
        self._clock = clock
        self._now = now

    def open(self, model: Model) -> None:
        """The model is loaded: from here on there is something to count."""
        stats = model.engine.stats if isinstance(model, TextModel) else None
        self._model = self.metrics.open(model.name, stats, model.hardware)

    def request(self, path: str, headers: Mapping[str, str]) -> Observation:
        """A request begins. ``headers`` have lower-case names."""
        watch = RequestWatch(self._model or NOBODY, self._clock)
        span = self._tracing.request(f"POST {path}", headers)
        offset = self._now() - self._clock()
        return Observation(watch, span, self._model, offset, wants_usage=USAGE_HEADER in headers)

    def step(self, record: StepRecord) -> None:
        """A step of the engine is over; called on its thread. Those of the warm-up do not count."""
        if self._model is not None:
            self._model.step(record.seconds, record.tokens)

    def close(self) -> None:
        self._tracing.close()


class Observation:
    """One request. ``offset`` turns the clock's seconds into those since the epoch."""

    def __init__(
        self,
        watch: RequestWatch,
        span: Span,
        metrics: ModelMetrics | None,
        offset: float,
        *,
        wants_usage: bool,
    ) -> None:
        self.watch = watch
        self.wants_usage = wants_usage
        self._span = span
        self._metrics = metrics
        self._offset = offset

    def refused(self, error: RidgelineError | BackendError | None) -> ErrorAnswer:
        """What its client is told about ``error``; None is a bug of ours."""
        answer = internal_answer() if error is None else answer_for(error)
        self._span.fail(answer.code)
        if self._metrics is not None:
            self._metrics.rejected(answer.code)
        return answer

    @property
    def usage(self) -> bytes:
        """What it used so far, as JSON."""
        return self.watch.used.encoded()

    @property
    def simulated(self) -> dict[str, str]:
        """The header with what a simulated device would have taken: for one sequence, or for the
        texts of a request."""
        if self.watch.encoded is not None:
            return simulated_header(encoded_object(self.watch.encoded, self.watch.embedded_tokens))
        match self.watch.sequences:
            case [SequenceWatch(simulated=times, tokens=tokens)] if times is not None:
                return simulated_header(simulated_object(times, tokens))
            case _:
                return {}

    def end(self) -> None:
        """The answer is out, or its client is gone."""
        if self._metrics is not None and self.watch.embedded_tokens:
            seconds = self.watch.clock() - self.watch.began
            self._metrics.embedded(self.watch.embedded_tokens, seconds)
        if self._span.recording:
            used = self.watch.used
            self._span.set("gen_ai.usage.input_tokens", used.prompt_tokens)
            self._span.set("gen_ai.usage.output_tokens", used.completion_tokens)
            for index, sequence in enumerate(self.watch.sequences):
                self._stages(index, sequence)
        self._span.end()

    def _stages(self, index: int, sequence: SequenceWatch) -> None:
        ended = sequence.finished or self.watch.clock()
        scheduled, first, last = sequence.scheduled, sequence.first, sequence.last
        self._stage("queue", index, sequence.submitted, scheduled or ended)
        if scheduled is not None:
            self._stage("prefill", index, scheduled, first or ended)
        if first is not None and last is not None:
            tokens = {"gen_ai.usage.output_tokens": sequence.tokens}
            self._stage("decode", index, first, last, tokens)
            # Done piece by piece between the tokens: the span is when, the attribute how long.
            busy = {"ridgeline.busy_seconds": sequence.detokenise_s}
            self._stage("detokenise", index, first, ended, busy)

    def _stage(
        self, name: str, index: int, begun: float, ended: float, more: Mapping[str, Value] = _NONE
    ) -> None:
        stage = self._span.child(name, start=begun + self._offset)
        for key, value in {"ridgeline.sequence": index, **more}.items():
            stage.set(key, value)
        stage.end(at=ended + self._offset)
