"""Where callers' threads leave what the engine's thread takes between two steps.

Bounds the queue, by sequences and by tokens. Everything here is under one lock that nobody holds
for long. Knows neither runner nor scheduler, and no clock: callers say what time it is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition

from ridgeline_backends.engine.live import Live
from ridgeline_backends.engine.queue import Queue
from ridgeline_backends.errors import DuplicateSequence, EngineStopped, QueueFull

Call = Callable[[], None]


@dataclass(slots=True)
class Arrivals:
    """What came since the last step."""

    new: list[Live] = field(default_factory=list)
    cancelled: list[Live] = field(default_factory=list)
    calls: list[tuple[Call, Future[None]]] = field(default_factory=list)


class Intake:
    """`queue` is where the scheduler keeps those that wait; here it is only measured."""

    def __init__(self, queue: Queue, max_waiting: int, max_waiting_tokens: int | None) -> None:
        self.stopping = False
        self.live: dict[str, Live] = {}
        self._queue = queue
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self._condition = Condition()
        self._arrivals = Arrivals()
        self._tokens = 0
        self._news = False
        self._seconds_per_sequence = 1.0
        self._last_finish: float | None = None

    @property
    def waiting(self) -> int:
        return len(self._arrivals.new) + len(self._queue)

    @property
    def waiting_tokens(self) -> int:
        return self._tokens + self._queue.tokens

    def put(self, live: Live) -> None:
        """Raises `EngineStopped`, `DuplicateSequence`, `QueueFull`."""
        seq = live.seq
        with self._condition:
            if self.stopping:
                raise EngineStopped
            if seq.id in self.live:
                raise DuplicateSequence(seq.id)
            waiting, tokens, most = self.waiting, self.waiting_tokens, self._max_waiting_tokens
            # A prompt that is longer than the bound is let in when nobody waits.
            too_long = most is not None and waiting and tokens + len(seq.tokens) > most
            if waiting >= self._max_waiting or too_long:
                pause = min(60.0, max(1.0, waiting * self._seconds_per_sequence))
                raise QueueFull(waiting, tokens, pause)
            self.live[seq.id] = live
            self._arrivals.new.append(live)
            self._tokens += len(seq.tokens)
            self._notify()

    def cancel(self, sequence_id: str) -> None:
        with self._condition:
            live = self.live.get(sequence_id)
            if live is not None:
                self._arrivals.cancelled.append(live)
                self._notify()

    def call(self, call: Call) -> Future[None]:
        """Run something on the engine's thread, between two steps. Raises `EngineStopped`."""
        future: Future[None] = Future()
        with self._condition:
            if self.stopping:
                raise EngineStopped
            self._arrivals.calls.append((call, future))
            self._notify()
        return future

    def wait(self) -> bool:
        """Wait until there is something to do; False when the engine is to stop."""
        with self._condition:
            while not (self.stopping or self.live or self._news):
                self._condition.wait()
            return not self.stopping

    def take(self) -> Arrivals | None:
        """What came since, or None."""
        if not self._news:
            return None
        with self._condition:
            arrivals, self._arrivals = self._arrivals, Arrivals()
            self._tokens = 0
            self._news = False
        return arrivals

    def knows(self, live: Live) -> bool:
        """Whether the sequence has not ended yet."""
        return self.live.get(live.seq.id) is live

    def finished(self, live: Live, now: float) -> None:
        """Forget a sequence; how fast they end tells a refused client when to come back."""
        with self._condition:
            self.live.pop(live.seq.id, None)
        if self._last_finish is not None:
            # Smoothed over about ten sequences.
            taken = now - self._last_finish
            self._seconds_per_sequence += 0.1 * (taken - self._seconds_per_sequence)
        self._last_finish = now

    def stop(self) -> None:
        """Take in nothing more."""
        with self._condition:
            self.stopping = True
            self._notify()

    def _notify(self) -> None:
        self._news = True
        self._condition.notify()
