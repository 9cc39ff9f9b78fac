"""Our engine: a scheduler and a model runner, driven by a thread of its own.

Callers only touch an inbox under a lock; scheduler and runner belong to the engine's thread. A step
that raises fails the sequences in it, never the engine. Knows no text and no tensor.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, replace
from threading import Condition, Thread

from ridgeline_backends.base import ModelRunner, RunnerLimits, SampledToken, Step, StepResult
from ridgeline_backends.engine.api import (
    Engine,
    EngineOutput,
    EngineStats,
    FinishReason,
    SamplingParams,
    Sink,
    TokenLogprobs,
)
from ridgeline_backends.engine.scheduler import Scheduler
from ridgeline_backends.engine.sequence import Sequence
from ridgeline_backends.errors import (
    DuplicateSequence,
    EngineStopped,
    InvalidSampling,
    PromptTooLong,
    QueueFull,
)

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Live:
    seq: Sequence
    sink: Sink


class LLMEngine(Engine):
    """Continuous batching over one `ModelRunner`.

    `max_waiting` bounds the queue in front of the running batch. `seeds` gives a seed to a sequence
    that has none. `clock` only measures how fast the queue moves.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        max_waiting: int = 256,
        clock: Callable[[], float] = time.monotonic,
        seeds: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        self._runner = runner
        self._max_waiting = max_waiting
        self._clock = clock
        self._seeds = seeds
        self._scheduler = Scheduler(runner.limits)
        # Under the condition: everything a caller's thread reads or writes.
        self._condition = Condition()
        self._inbox: deque[_Live] = deque()
        self._live: dict[str, _Live] = {}
        self._cancelled: set[str] = set()
        self._stopping = False
        self._stats = EngineStats(
            max_waiting=max_waiting,
            free_blocks=self._scheduler.blocks.free_blocks,
            total_blocks=self._scheduler.blocks.num_blocks,
        )
        self._seconds_per_sequence = 1.0
        self._last_finish: float | None = None
        self._thread: Thread | None = None

    @property
    def max_model_len(self) -> int:
        return self._scheduler.max_sequence_len

    @property
    def limits(self) -> RunnerLimits:
        """What the runner below can do."""
        return self._runner.limits

    def submit(
        self, sequence_id: str, prompt: Tokens[int], params: SamplingParams, sink: Sink
    ) -> None:
        seq = self._sequence(sequence_id, prompt, params)
        with self._condition:
            if self._stopping:
                raise EngineStopped
            if sequence_id in self._live:
                raise DuplicateSequence(sequence_id)
            waiting = self._waiting()
            if waiting >= self._max_waiting:
                raise QueueFull(waiting, self._retry_after(waiting))
            self._live[sequence_id] = live = _Live(seq, sink)
            self._inbox.append(live)
            self._condition.notify()

    def cancel(self, sequence_id: str) -> None:
        with self._condition:
            if sequence_id in self._live:
                self._cancelled.add(sequence_id)
                self._condition.notify()

    def stats(self) -> EngineStats:
        with self._condition:
            return replace(self._stats, alive=not self._stopping, waiting=self._waiting())

    def start(self) -> None:
        with self._condition:
            if self._stopping:
                raise EngineStopped
            if self._thread is None:
                self._thread = Thread(target=self._run, name="engine", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._take_inbox()
        self._fail(list(self._live.values()), "the engine was stopped")

    def step(self) -> bool:
        """Run one step on the calling thread; False if there was nothing to do.

        For tests and for callers with a loop of their own; never beside `start`.
        """
        self._take_inbox()
        step = self._scheduler.schedule()
        if step.chunks:
            self._execute(step)
        self._publish()
        return bool(step.chunks)

    def check_integrity(self) -> None:
        """Raise `AssertionError` if a block leaked or a sequence is lost. Between steps only."""
        self._scheduler.check_integrity()
        known = {seq.id for seq in self._scheduler.sequences()}
        known.update(live.seq.id for live in self._inbox)
        assert known == set(self._live), "the engine and its scheduler hold different sequences"

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._stopping or self._live):
                    self._condition.wait()
                if self._stopping:
                    return
            try:
                self.step()
            except Exception:  # a bug of ours: better no engine than one that never answers
                log.critical("The engine broke", exc_info=True)
                with self._condition:
                    self._stopping = True
                self._abandon("the engine broke; see the log of this replica")
                return

    def _sequence(self, sequence_id: str, prompt: Tokens[int], params: SamplingParams) -> Sequence:
        limit, vocabulary = self._scheduler.max_prompt_len, self._runner.vocab_size
        if not prompt:
            raise InvalidSampling("prompt", [], "at least one token")
        if len(prompt) > limit:
            raise PromptTooLong(len(prompt), limit)
        strange = next((token for token in prompt if not 0 <= token < vocabulary), None)
        if strange is not None:
            raise InvalidSampling("prompt", strange, f"token ids below {vocabulary}")
        eos = frozenset() if params.ignore_eos else self._runner.eos_token_ids
        return Sequence(
            id=sequence_id,
            tokens=list(prompt),
            params=params,
            seed=self._seeds() if params.seed is None else params.seed,
            max_tokens=min(params.max_tokens, self.max_model_len - len(prompt)),
            stop_tokens=params.stop_token_ids | eos,
        )

    def _take_inbox(self) -> None:
        with self._condition:
            arrived = list(self._inbox)
            self._inbox.clear()
            cancelled = [self._live[name] for name in self._cancelled if name in self._live]
            self._cancelled.clear()
        for live in arrived:
            self._scheduler.add(live.seq)
        for live in cancelled:
            self._finish(live, FinishReason.CANCELLED)

    def _execute(self, step: Step) -> None:
        involved = [self._live[chunk.sequence_id] for chunk in step.chunks]
        try:
            result = self._runner.execute(step)
            sampled = iter(self._sampled(step, result))
        except Exception as error:  # whatever a runner raises must not end the other sequences
            log.exception("A step of %d sequences failed", len(involved))
            self._fail(involved, f"{type(error).__name__}: {error}")
            return
        self._count(
            steps=1,
            device_seconds=result.device_time.seconds,
            prompt_tokens=sum(
                min(len(chunk.tokens), max(0, live.seq.prompt_len - chunk.start))
                for live, chunk in zip(involved, step.chunks, strict=True)
            ),
        )
        for live, chunk in zip(involved, step.chunks, strict=True):
            first = live.seq.generated == 0 and chunk.sample is not None
            self._scheduler.computed(live.seq, chunk)
            if chunk.sample is not None:
                cached = live.seq.cached_tokens if first else 0
                self._count(generated_tokens=1, cached_tokens=cached)
                self._take(live, next(sampled))

    def _sampled(self, step: Step, result: StepResult) -> tuple[SampledToken, ...]:
        wanted = len(step.samples)
        if self._runner.limits.sampling == "device":
            if len(result.tokens) != wanted:
                raise ValueError(f"the runner returned {len(result.tokens)} of {wanted} tokens")
            return result.tokens
        if result.logits is None:
            raise ValueError("the runner leaves sampling to the host but returned no logits")
        # Here and not at the top: an engine over a device that samples needs no torch.
        from ridgeline_backends.sampling import sample

        return sample(result.logits, step.samples)

    def _take(self, live: _Live, token: SampledToken) -> None:
        finish = live.seq.append(token.token_id)
        if finish is not None:
            self._finish(live, finish, token)
        else:
            self._emit(live, (token,))

    def _finish(
        self,
        live: _Live,
        reason: FinishReason,
        token: SampledToken | None = None,
        error: str | None = None,
    ) -> None:
        self._scheduler.remove(live.seq)
        with self._condition:
            del self._live[live.seq.id]
            self._cancelled.discard(live.seq.id)
        self._count(
            finished=reason in (FinishReason.STOP, FinishReason.LENGTH),
            cancelled=reason is FinishReason.CANCELLED,
            failed=reason is FinishReason.ERROR,
        )
        now = self._clock()
        if self._last_finish is not None:
            # Smoothed over about ten sequences: enough to tell a client when to come back.
            self._seconds_per_sequence += 0.1 * (
                now - self._last_finish - self._seconds_per_sequence
            )
        self._last_finish = now
        self._emit(live, () if token is None else (token,), reason, error)

    def _fail(self, lives: list[_Live], error: str) -> None:
        for live in lives:
            self._finish(live, FinishReason.ERROR, error=error)
        self._publish()

    def _abandon(self, error: str) -> None:
        """Answer every live sequence without trusting the scheduler's state."""
        with self._condition:
            lives = list(self._live.values())
            self._live.clear()
            self._inbox.clear()
        for live in lives:
            self._emit(live, (), FinishReason.ERROR, error)

    def _emit(
        self,
        live: _Live,
        tokens: tuple[SampledToken, ...],
        finish: FinishReason | None = None,
        error: str | None = None,
    ) -> None:
        seq = live.seq
        logprobs: tuple[TokenLogprobs, ...] | None = None
        if seq.params.logprobs is not None:
            logprobs = tuple(t.logprobs for t in tokens if t.logprobs is not None)
        output = EngineOutput(
            sequence_id=seq.id,
            token_ids=tuple(token.token_id for token in tokens),
            logprobs=logprobs,
            finish_reason=finish,
            prompt_tokens=seq.prompt_len,
            completion_tokens=seq.generated,
            cached_tokens=seq.cached_tokens,
            error=error,
        )
        try:
            live.sink(output)
        except Exception:  # the reader is gone (a closed event loop): nobody waits for the rest
            log.warning("The reader of sequence %s failed; cancelling", seq.id, exc_info=True)
            self.cancel(seq.id)

    def _waiting(self) -> int:
        return len(self._inbox) + len(self._scheduler.waiting)

    def _retry_after(self, waiting: int) -> float:
        return min(60.0, max(1.0, waiting * self._seconds_per_sequence))

    def _count(self, **added: float) -> None:
        # Counters move on the engine's thread alone; readers see them when they are published.
        with self._condition:
            stats = self._stats
            self._stats = replace(
                stats, **{name: getattr(stats, name) + value for name, value in added.items()}
            )

    def _publish(self) -> None:
        scheduler = self._scheduler
        with self._condition:
            self._stats = replace(
                self._stats,
                running=len(scheduler.running),
                waiting=self._waiting(),
                free_blocks=scheduler.blocks.free_blocks,
                preemptions=scheduler.preemptions,
            )
