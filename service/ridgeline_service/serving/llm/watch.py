"""What is measured of one request on its way through the replica.

`App` makes a `RequestWatch` for each request and sets it for the task that answers; `Generation`
reports to `watching()`, which is where times are taken. What they are for is not known here:
a `Recorder` is told of each token and of each end (see `metrics`), and spans are made at the end
(see `spans`). Times are the clock's seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from ridgeline_backends.device_time import DeviceTime, SimulatedDevice
from ridgeline_backends.engine import EngineOutput, FinishReason, SamplingParams
from ridgeline_backends.engine.api import SimulatedTimes
from ridgeline_service.replica_protocol import Usage

T = TypeVar("T")
Clock = Callable[[], float]


class Ended(StrEnum):
    """How a sequence ended, in vLLM's words where it has one."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    TIMEOUT = "timeout"
    ERROR = "error"


_ENDED = {
    FinishReason.STOP: Ended.STOP,
    FinishReason.LENGTH: Ended.LENGTH,
    FinishReason.TIMEOUT: Ended.TIMEOUT,
    FinishReason.CANCELLED: Ended.ABORT,
    FinishReason.ERROR: Ended.ERROR,
}


class Recorder(Protocol):
    """Who is told. Called on the event loop, for every token: quick, and never raising."""

    def first_token(self, sequence: SequenceWatch) -> None: ...
    def next_tokens(self, sequence: SequenceWatch, count: int, seconds: float) -> None: ...
    def ended(self, sequence: SequenceWatch) -> None: ...


@dataclass(slots=True, eq=False)
class SequenceWatch:
    """One sequence: when it was submitted, first scheduled, answered first, last, and ended."""

    request: RequestWatch
    prompt: tuple[int, ...] = field(repr=False)
    max_tokens: int
    submitted: float
    scheduled: float | None = None
    first: float | None = None
    last: float | None = None
    finished: float | None = None
    tokens: int = 0
    cached_tokens: int = 0
    detokenise_s: float = 0.0
    reason: Ended | None = None
    simulated: SimulatedTimes | None = None

    def received(self, output: EngineOutput) -> None:
        """News of the engine's."""
        if self.reason is not None:
            return
        now = self.request.clock()
        recorder = self.request.recorder
        if output.times is not None and output.times.scheduled is not None:
            waited = output.times.scheduled - output.times.submitted
            self.scheduled = self.submitted + waited
        if output.simulated is not None:
            self.simulated = output.simulated
        if output.token_ids:
            before, self.last = self.last, now
            self.tokens += len(output.token_ids)
            if before is None:
                self.first = now
                self.cached_tokens = output.cached_tokens
                recorder.first_token(self)
            else:
                recorder.next_tokens(self, len(output.token_ids), now - before)
        if output.finish_reason is not None:
            self.end(_ENDED[output.finish_reason])

    def detokenised(self, work: Callable[[EngineOutput], T], output: EngineOutput) -> T:
        """``work(output)``, its time counted as this sequence's detokenisation."""
        begun = self.request.clock()
        try:
            return work(output)
        finally:
            self.detokenise_s += self.request.clock() - begun

    def end(self, reason: Ended) -> None:
        """The sequence is over for its reader. What comes later is not its own any more."""
        if self.reason is None:
            self.reason = reason
            self.finished = self.request.clock()
            self.request.recorder.ended(self)


@dataclass(frozen=True, slots=True)
class EncodedTimes:
    """How long the texts of a request took of a simulated device: from their submission to the last
    result, the calls of others that they waited for included. ``own_seconds``: their own calls."""

    device: SimulatedDevice
    total: DeviceTime
    own_seconds: float


class RequestWatch:
    """One request and its sequences. ``began`` is when its head was there."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self.recorder = recorder
        self.clock = clock
        self.began = clock()
        self.sequences: list[SequenceWatch] = []
        self.embedded_tokens = 0
        self.encoded: EncodedTimes | None = None

    def submit(self, prompt: tuple[int, ...], params: SamplingParams) -> SequenceWatch:
        """A sequence that is about to be submitted."""
        made = SequenceWatch(self, prompt, params.max_tokens, self.clock())
        self.sequences.append(made)
        return made

    @property
    def used(self) -> Usage:
        """Tokens so far. A prompt counts once it was read."""
        prompts = {sequence.prompt for sequence in self.sequences if sequence.first is not None}
        return Usage(
            sum(map(len, prompts)) + self.embedded_tokens,
            sum(sequence.tokens for sequence in self.sequences),
        )


class _Nobody:
    """Nobody listens."""

    def first_token(self, sequence: SequenceWatch) -> None: ...

    def next_tokens(self, sequence: SequenceWatch, count: int, seconds: float) -> None: ...

    def ended(self, sequence: SequenceWatch) -> None: ...


NOBODY: Recorder = _Nobody()

_current: ContextVar[RequestWatch | None] = ContextVar("request_watch", default=None)


def watching() -> RequestWatch:
    """The watch of the request that this task answers; outside of one, a watch nobody reads."""
    return _current.get() or RequestWatch(NOBODY, lambda: 0.0)


@contextmanager
def watched(watch: RequestWatch) -> Iterator[RequestWatch]:
    """Tasks made within the block report to ``watch``."""
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)
