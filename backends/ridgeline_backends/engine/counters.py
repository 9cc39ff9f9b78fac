"""What an engine has done so far. Moves on the engine's thread alone, token by token, so these are
plain numbers; readers get a frozen picture of them once per step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ridgeline_backends.base import Chunk, Step
from ridgeline_backends.engine.api import EngineStats, FinishReason
from ridgeline_backends.engine.live import Live
from ridgeline_backends.engine.scheduler import Scheduler


@dataclass(slots=True)
class Counters:
    """As in `EngineStats`."""

    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    timed_out: int = 0
    failed: int = 0
    device_seconds: float = 0.0
    busy_seconds: float = 0.0

    def step(self, step: Step, lives: Iterable[Live], seconds: float) -> None:
        self.steps += 1
        self.device_seconds += seconds
        for live, chunk in zip(lives, step.chunks, strict=True):
            prompt = live.seq.prompt_len - chunk.start
            if prompt > 0:
                self.prompt_tokens += min(len(chunk.tokens), prompt)

    def kept(self, chunk: Chunk, tokens: int) -> None:
        """So many of the tokens that were chosen after a chunk hold."""
        self.generated_tokens += tokens
        if chunk.draft:
            self.drafts += 1
            self.draft_tokens += chunk.draft
            self.accepted_tokens += max(0, tokens - 1)

    def ended(self, reason: FinishReason) -> None:
        self.finished += reason in (FinishReason.STOP, FinishReason.LENGTH)
        self.cancelled += reason is FinishReason.CANCELLED
        self.timed_out += reason is FinishReason.TIMEOUT
        self.failed += reason is FinishReason.ERROR

    def stats(self, scheduler: Scheduler, max_waiting: int) -> EngineStats:
        blocks = scheduler.blocks
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            waiting_tokens=scheduler.waiting.tokens,
            max_waiting=max_waiting,
            free_blocks=blocks.free_blocks,
            total_blocks=blocks.num_blocks,
            steps=self.steps,
            prompt_tokens=self.prompt_tokens,
            prefix_queries=blocks.prefix_queries,
            prefix_hits=blocks.prefix_hits,
            generated_tokens=self.generated_tokens,
            drafts=self.drafts,
            draft_tokens=self.draft_tokens,
            accepted_tokens=self.accepted_tokens,
            preemptions=scheduler.preemptions,
            finished=self.finished,
            cancelled=self.cancelled,
            timed_out=self.timed_out,
            failed=self.failed,
            device_seconds=self.device_seconds,
            busy_seconds=self.busy_seconds,
        )
