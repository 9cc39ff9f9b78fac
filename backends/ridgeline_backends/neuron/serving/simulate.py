"""One replica under load, on a virtual clock: the scheduler that serves, without what it serves.

Steps take what `StepCosts` says. Where the scheduler proves that nothing will change for a while
(`Scheduler.steady_steps`) the clock goes on by all these steps at once: the outcome is the same to
the nanosecond, and the same as `LLMEngine`'s over a runner that takes as long.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from ridgeline_backends.base import Chunk, RunnerLimits
from ridgeline_backends.engine.api import SamplingParams
from ridgeline_backends.engine.scheduler import Scheduler
from ridgeline_backends.engine.sequence import Sequence
from ridgeline_backends.neuron.serving.costs import StepCosts
from ridgeline_backends.neuron.serving.load import Load
from ridgeline_backends.neuron.serving.outcome import Answered, Outcome

_GREEDY = SamplingParams(max_tokens=1, temperature=0.0)
_NONE: frozenset[int] = frozenset()
_NEVER = 1 << 62


@dataclass(slots=True, eq=False)
class _Request(Sequence):
    """A sequence with times in nanoseconds: `first` and `newest` of its tokens, -1 before any."""

    sent: int = 0
    first: int = -1
    newest: int = -1


def simulate(limits: RunnerLimits, costs: StepCosts, load: Load, *, skip: bool = True) -> Outcome:
    """What clients of one replica see. `skip` False takes every step by itself."""
    return _Simulation(limits, costs, load, skip).run()


class _Simulation:
    def __init__(self, limits: RunnerLimits, costs: StepCosts, load: Load, skip: bool) -> None:
        self._costs, self._skip = costs, skip
        self._scheduler = Scheduler(limits)
        self._longest = self._scheduler.max_prompt_len
        self._batch = limits.batch_limit
        self._sizes, self._times = load.sizes(), load.times()
        self._again = load.again_ns if load.clients is not None else None
        self._pausing: deque[int] = deque()
        self._left = _NEVER if load.requests is None else load.requests
        self._end = _NEVER if load.end_ns is None else load.end_ns
        self._patience, self._streamed = load.timeout_ns, load.streamed
        self._order = 0
        self._next = next(self._times)
        self._now = self._steps = self._given_up = self._busy = 0
        self._live: dict[str, _Request] = {}
        self._deadlines: deque[tuple[int, _Request]] = deque()
        self._answered: list[Answered] = []
        self._gaps: Counter[int] = Counter()

    def run(self) -> Outcome:
        while True:
            self._arrive()
            again = self._give_up()
            if self._now >= self._end:
                break
            if not self._live and not again:
                if self._next >= self._end or not self._left:
                    break
                self._now = self._next
                continue
            steps = self._scheduler.steady_steps() if self._skip else 0
            if steps:
                self._leap(1 if again else steps)
            else:
                self._step()
            for _ in range(again):
                self._send_again()
        answered = tuple(one for one in self._answered if one.done <= self._end)
        return Outcome(answered, self._gaps, self._steps, self._given_up, self._busy)

    def _arrive(self) -> None:
        while self._next <= self._now and self._next < self._end and self._left:
            self._send(self._next)
            self._next = next(self._times, _NEVER)
            if self._next == _NEVER and self._pausing:
                self._next = self._pausing.popleft()

    def _send_again(self) -> None:
        """A client whose request has ended. Those that sent while it was answered were first."""
        assert self._again is not None
        self._arrive()
        at = self._again(self._now)
        if at <= self._now:
            self._send(self._now)
        elif self._next == _NEVER:
            self._next = at
        else:
            self._pausing.append(at)

    def _send(self, at: int) -> None:
        if not self._left or at >= self._end:
            return
        self._left -= 1
        prompt, answer = next(self._sizes)
        prompt = min(prompt, self._longest)
        request = _Request(
            id=str(self._order),
            tokens=[0] * prompt,
            params=_GREEDY,
            seed=0,
            max_tokens=min(answer, self._scheduler.max_sequence_len - prompt),
            stop_tokens=_NONE,
            rank=(0, self._order),
            salt=self._order.to_bytes(8, "little"),
            sent=at,
        )
        self._order += 1
        self._live[request.id] = request
        self._scheduler.add(request)
        if self._patience is not None:
            self._deadlines.append((at + self._patience, request))

    def _give_up(self) -> int:
        """Clients that have waited too long leave. How many of them send another request: they
        hear that theirs has ended when the next step is over."""
        before = self._given_up
        while self._deadlines and self._deadlines[0][0] <= self._now:
            _, request = self._deadlines.popleft()
            begun = self._streamed and request.first >= 0
            if request.id in self._live and not begun:
                del self._live[request.id]
                self._scheduler.remove(request)
                self._given_up += 1
        return self._given_up - before if self._again is not None else 0

    def _step(self) -> None:
        """As the engine does it."""
        step = self._scheduler.schedule()
        if not step.chunks:
            return
        took = self._costs.step_ns(step)
        self._now += took
        self._busy += took
        self._steps += 1
        for chunk in step.chunks:
            request = self._live[chunk.sequence_id]
            self._take(request, chunk)

    def _take(self, request: _Request, chunk: Chunk) -> None:
        if chunk.sample is None:
            self._scheduler.computed(request, chunk)
            return
        finished = request.append(0) is not None
        self._scheduler.computed(request, chunk)
        if request.first < 0:
            request.first = self._now
        else:
            self._gaps[self._now - request.newest] += 1
        request.newest = self._now
        if finished:
            self._finish(request)

    def _leap(self, steps: int) -> None:
        """So many decode steps of those that run, or fewer: until the KV that they read needs the
        next bucket, a client comes or goes, or the end."""
        scheduler, now = self._scheduler, self._now
        running = scheduler.running
        longest = max([len(one.tokens) for one in running])
        took = self._costs.decode_ns(len(running), longest)
        until = self._end
        if not scheduler.waiting and len(running) < self._batch:
            until = min(until, self._next)
        if self._deadlines:
            until = min(until, self._deadlines[0][0])
        steps = min(steps, self._costs.same_steps(longest), max(1, -((now - until) // took)))
        scheduler.advance(steps)
        self._now = now + steps * took
        self._busy += steps * took
        self._steps += steps
        gaps, finished = self._gaps, []
        for one in running:
            assert isinstance(one, _Request)
            gaps[now + took - one.newest] += 1
            one.newest = self._now
            if len(one.tokens) - one.prompt_len >= one.max_tokens:
                finished.append(one)
        if steps > 1:
            gaps[took] += len(running) * (steps - 1)
        for one in finished:
            self._finish(one)

    def _finish(self, request: _Request) -> None:
        self._scheduler.remove(request)
        del self._live[request.id]
        self._answered.append(Answered(request.sent, request.first, self._now, request.generated))
        if self._again is not None:
            self._send_again()
