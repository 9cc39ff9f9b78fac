"""Our engine: a scheduler and a model runner, driven by a thread of its own.

Callers only touch the intake; scheduler and runner belong to the engine's thread, and so does what
is done between two steps (`Intake.call`). A step that raises fails the sequences in it, never the
engine. Readers hear of a step when it is over, all at once. Knows no text and no tensor.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Tokens
from concurrent.futures import Future
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from threading import Thread

from ridgeline_backends.base import (
    Chunk,
    LoraRunner,
    ModelRunner,
    RunnerLimits,
    SampledToken,
    Step,
    StepResult,
)
from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.engine.adapters import Adapters
from ridgeline_backends.engine.api import (
    NO_TOKEN,
    Engine,
    EngineOutput,
    EngineStats,
    FinishReason,
    SamplingParams,
    Sink,
    StepRecord,
    TokenLogprobs,
)
from ridgeline_backends.engine.counters import Counters
from ridgeline_backends.engine.intake import Intake
from ridgeline_backends.engine.live import Live
from ridgeline_backends.engine.scheduler import Scheduler
from ridgeline_backends.engine.sequence import Sequence
from ridgeline_backends.engine.simulated import SimulatedClock
from ridgeline_backends.engine.speculation import Speculation
from ridgeline_backends.errors import (
    EngineError,
    EngineStopped,
    InvalidSampling,
    PromptTooLong,
)

log = logging.getLogger(__name__)


class LLMEngine(Engine):
    """Continuous batching over one `ModelRunner`.

    `speculation` guesses tokens ahead. `max_waiting` and `max_waiting_tokens` bound the queue in
    front of the running batch. `on_step` is called on the engine's thread after each step. `clock`
    measures, and says when a deadline has passed. `seeds` gives a seed to a sequence without one.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        speculation: Speculation | None = None,
        max_waiting: int = 256,
        max_waiting_tokens: int | None = None,
        on_step: Callable[[StepRecord], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        seeds: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        self._runner = runner
        self._speculation = speculation
        self._on_step = on_step
        self._clock = clock
        self._seeds = seeds
        self._order = count()
        self._scheduler = Scheduler(runner.limits, speculation)
        self._adapters = Adapters(runner if isinstance(runner, LoraRunner) else None)
        self._intake = Intake(self._scheduler.waiting, max_waiting, max_waiting_tokens)
        self._counters = Counters()
        self._simulates = runner.simulates
        self._simulated = DeviceTime(seconds=0.0, low=0.0, high=0.0)
        self._max_waiting = max_waiting
        self._publish()
        # A heap; those that ended before their time stay in it until their time has come.
        self._deadlines: list[tuple[float, int, Live]] = []
        self._news: list[tuple[Live, EngineOutput]] = []
        self._thread: Thread | None = None

    @property
    def max_model_len(self) -> int:
        return self._scheduler.max_sequence_len

    @property
    def limits(self) -> RunnerLimits:
        """What the runner below can do."""
        return self._runner.limits

    def submit(
        self,
        sequence_id: str,
        prompt: Tokens[int],
        params: SamplingParams,
        sink: Sink,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        adapter: str | None = None,
    ) -> None:
        now = self._clock()
        seq = self._sequence(sequence_id, prompt, params, priority)
        if adapter is not None:
            seq.adapter, seq.salt = adapter, self._adapters.acquire(adapter)
        deadline = None if timeout_s is None else now + timeout_s
        try:
            self._intake.put(Live(seq, sink, now, deadline, simulated=self._simulated_clock()))
        except EngineError:
            if adapter is not None:
                self._adapters.release(adapter)
            raise

    def _simulated_clock(self) -> SimulatedClock | None:
        if self._simulates is None:
            return None
        return SimulatedClock(self._simulates, self._simulated)

    def cancel(self, sequence_id: str) -> None:
        self._intake.cancel(sequence_id)

    def load_adapter(self, name: str, directory: Path) -> None:
        self._adapters.load(name, directory, self._between_steps)

    def unload_adapter(self, name: str) -> Future[None]:
        gone = self._adapters.leave(name)
        self._between_steps(self._adapters.sweep)
        return gone

    def stats(self) -> EngineStats:
        intake = self._intake
        return replace(
            self._stats,
            alive=not intake.stopping,
            waiting=intake.waiting,
            waiting_tokens=intake.waiting_tokens,
            adapters=self._adapters.names,
        )

    def start(self) -> None:
        if self._intake.stopping:
            raise EngineStopped
        if self._thread is None:
            self._thread = Thread(target=self._run, name="engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._intake.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._take_arrivals()
        self._fail(list(self._intake.live.values()), "the engine was stopped")
        self._adapters.sweep()
        self._publish()
        self._deliver()

    def step(self) -> bool:
        """Run one step on the calling thread; False if there was nothing to do.

        For tests and for callers with a loop of their own; never beside `start`.
        """
        begin = self._clock()
        self._take_arrivals()
        self._end_late(begin)
        step = self._scheduler.schedule()
        if step.chunks:
            self._execute(step, begin)
            self._counters.busy_seconds += self._clock() - begin
        self._adapters.sweep()
        self._publish()
        self._deliver()
        return bool(step.chunks)

    def check_integrity(self) -> None:
        """Raise `AssertionError` if a block leaked or a sequence is lost. Between steps only."""
        self._take_arrivals()
        self._scheduler.check_integrity()
        known = {seq.id for seq in self._scheduler.sequences()}
        assert known == set(self._intake.live), "engine and scheduler hold different sequences"
        self._adapters.check_integrity(seq.adapter for seq in self._scheduler.sequences())

    def _run(self) -> None:
        while self._intake.wait():
            try:
                self.step()
            except Exception:  # a bug of ours: better no engine than one that never answers
                log.critical("The engine broke", exc_info=True)
                self._intake.stop()
                self._abandon("the engine broke; see the log of this replica")
                return

    def _sequence(
        self, sequence_id: str, prompt: Tokens[int], params: SamplingParams, priority: int
    ) -> Sequence:
        limit, vocabulary = self._scheduler.max_prompt_len, self._runner.vocab_size
        if not prompt:
            raise InvalidSampling("prompt", [], "at least one token")
        if len(prompt) > limit:
            raise PromptTooLong(len(prompt), limit)
        if not (min(prompt) >= 0 and max(prompt) < vocabulary):
            strange = next(token for token in prompt if not 0 <= token < vocabulary)
            raise InvalidSampling("prompt", strange, f"token ids below {vocabulary}")
        for token, _ in params.logit_bias:
            if not 0 <= token < vocabulary:
                raise InvalidSampling("logit_bias", token, f"token ids below {vocabulary}")
        eos = frozenset() if params.ignore_eos else self._runner.eos_token_ids
        return Sequence(
            id=sequence_id,
            tokens=list(prompt),
            params=params,
            seed=self._seeds() if params.seed is None else params.seed,
            max_tokens=min(params.max_tokens, self.max_model_len - len(prompt)),
            stop_tokens=params.stop_token_ids | eos,
            rank=(priority, next(self._order)),
            constraint=None if params.grammar is None else params.grammar.start(),
        )

    def _between_steps(self, call: Callable[[], None]) -> None:
        """Run something while no step runs; whoever drives the steps himself is between two."""
        if self._intake.stopping:
            raise EngineStopped
        if self._thread is None:
            call()
        else:
            self._intake.call(call).result()

    def _take_arrivals(self) -> None:
        arrivals = self._intake.take()
        if arrivals is None:
            return
        for live in arrivals.new:
            self._scheduler.add(live.seq)
            if live.deadline is not None:
                heappush(self._deadlines, (live.deadline, live.seq.rank[1], live))
        for live in arrivals.cancelled:
            if self._intake.knows(live):
                self._finish(live, FinishReason.CANCELLED)
        for call, future in arrivals.calls:
            try:
                call()
            except Exception as error:  # noqa: BLE001  the caller's own, to be raised where it waits
                future.set_exception(error)
            else:
                future.set_result(None)

    def _end_late(self, now: float) -> None:
        """End the sequences whose time is over."""
        while self._deadlines and self._deadlines[0][0] <= now:
            *_, live = heappop(self._deadlines)
            if self._intake.knows(live):
                waited = now - live.submitted
                self._finish(live, FinishReason.TIMEOUT, error=f"not done after {waited:.1f} s")

    def _execute(self, step: Step, begin: float) -> None:
        known = self._intake.live
        involved = [known[chunk.sequence_id] for chunk in step.chunks]
        try:
            result = self._runner.execute(step)
            tokens, scores = self._chosen(step, result)
        except Exception as error:  # whatever a runner raises must not end the other sequences
            log.exception("A step of %d sequences failed", len(involved))
            self._fail(involved, f"{type(error).__name__}: {error}")
            return
        now = self._clock()
        self._counters.step(step, involved, result.device_time.seconds)
        if self._simulates is not None:
            self._simulated += result.device_time
            for live in involved:
                if live.simulated is not None:
                    live.simulated.step(self._simulated, result.device_time.seconds / len(involved))
        place = 0
        for live, chunk in zip(involved, step.chunks, strict=True):
            if live.scheduled is None:
                live.scheduled = begin
            if chunk.score:
                live.seq.scored(chunk, next(scores))
            if chunk.sample is None:
                self._scheduler.computed(live.seq, chunk)
            else:
                end = place + chunk.draft + 1
                self._take(live, chunk, tokens[place:end], now)
                place = end
        if self._speculation is not None:
            self._speculation.measured(step, result.device_time.seconds)
        if self._on_step is not None:
            self._on_step(
                StepRecord(
                    seconds=result.device_time.seconds,
                    tokens=sum(len(chunk.tokens) for chunk in step.chunks),
                    sequences=len(step.chunks),
                )
            )

    def _chosen(
        self, step: Step, result: StepResult
    ) -> tuple[tuple[SampledToken, ...], Iterator[tuple[TokenLogprobs, ...]]]:
        """Tokens and scores of a step, chosen here where the runner leaves that to the host."""
        tokens, scores = result.tokens, result.scores
        if self._runner.limits.sampling == "host":
            if result.logits is None:
                raise ValueError("the runner leaves sampling to the host but returned no logits")
            # Here and not at the top: an engine over a device that samples needs no torch.
            from ridgeline_backends.sampling import results

            found = results(step, result.logits)
            tokens, scores = found.tokens, found.scores
        wanted = sum(chunk.draft + 1 for chunk in step.chunks if chunk.sample is not None)
        if len(tokens) != wanted:
            raise ValueError(f"the runner returned {len(tokens)} of {wanted} tokens")
        return tokens, iter(scores)

    def _take(self, live: Live, chunk: Chunk, tokens: tuple[SampledToken, ...], now: float) -> None:
        """Keep what was chosen as long as the guesses agree, and the first that does not."""
        seq = live.seq
        guesses = chunk.tokens[len(chunk.tokens) - chunk.draft :]
        kept = 0
        finish: FinishReason | None = None
        while finish is None and kept <= chunk.draft:
            token = tokens[kept].token_id
            finish = seq.append(token)
            if token == NO_TOKEN:
                break
            kept += 1
            if kept <= chunk.draft and token != guesses[kept - 1]:
                break
        self._counters.kept(chunk, kept)
        if kept:
            self._scheduler.computed(seq, chunk, kept - 1)
            if self._speculation is not None:
                self._speculation.learn(seq, kept, chunk.draft)
        if finish is not None:
            self._finish(live, finish, tokens[:kept], seq.error, now=now)
        else:
            self._news.append((live, live.output(now, tokens[:kept])))

    def _finish(
        self,
        live: Live,
        reason: FinishReason,
        tokens: tuple[SampledToken, ...] = (),
        error: str | None = None,
        *,
        now: float | None = None,
    ) -> None:
        now = self._clock() if now is None else now
        self._scheduler.remove(live.seq)
        self._intake.finished(live, now)
        if live.seq.adapter is not None:
            self._adapters.release(live.seq.adapter)
        self._counters.ended(reason)
        self._news.append((live, live.output(now, tokens, reason, error)))

    def _fail(self, lives: list[Live], error: str) -> None:
        for live in lives:
            self._finish(live, FinishReason.ERROR, error=error)

    def _abandon(self, error: str) -> None:
        """Answer every live sequence without trusting the scheduler's state."""
        now = self._clock()
        lives = list(self._intake.live.values())
        self._intake.live.clear()
        self._news.extend(
            (live, live.output(now, finish=FinishReason.ERROR, error=error)) for live in lives
        )
        self._deliver()

    def _deliver(self) -> None:
        """Tell the readers, all at once, so that a loop of theirs is woken once per step."""
        news, self._news = self._news, []
        for live, output in news:
            try:
                live.sink(output)
            except Exception:  # the reader is gone (a closed loop): nobody waits for the rest
                log.warning("The reader of %s failed; cancelling", live.seq.id, exc_info=True)
                self.cancel(live.seq.id)

    def _publish(self) -> None:
        found = self._counters.stats(self._scheduler, self._max_waiting)
        if self._simulates is not None:
            found = replace(found, simulates=self._simulates, simulated=self._simulated)
        self._stats = found
