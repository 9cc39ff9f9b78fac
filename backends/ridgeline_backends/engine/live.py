"""A sequence with whoever waits for it, and what they are told."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

from ridgeline_backends.base import SampledToken
from ridgeline_backends.engine.api import EngineOutput, FinishReason, Sink, Times
from ridgeline_backends.engine.sequence import Sequence
from ridgeline_backends.engine.simulated import SimulatedClock


@dataclass(slots=True, eq=False)
class Live:
    """`submitted`, `deadline`, `scheduled` and `first_token` are times of the engine's clock."""

    seq: Sequence
    sink: Sink
    submitted: float
    deadline: float | None = None
    scheduled: float | None = None
    first_token: float | None = None
    simulated: SimulatedClock | None = None

    def output(
        self,
        now: float,
        tokens: Items[SampledToken] = (),
        finish: FinishReason | None = None,
        error: str | None = None,
    ) -> EngineOutput:
        """The next news: `tokens` are new, and `finish` says that they were the last."""
        seq = self.seq
        asked = seq.params.logprobs is not None
        first = self.first_token is None and bool(tokens)
        if first:
            self.first_token = now
        times: Times | None = None
        if first or finish is not None:
            times = Times(
                submitted=self.submitted,
                scheduled=self.scheduled,
                first_token=self.first_token,
                finished=None if finish is None else now,
            )
        return EngineOutput(
            sequence_id=seq.id,
            token_ids=tuple([token.token_id for token in tokens]),
            logprobs=tuple([t.logprobs for t in tokens if t.logprobs]) if asked else None,
            prompt_logprobs=tuple(seq.prompt_logprobs) if first and seq.scores_prompt else None,
            finish_reason=finish,
            prompt_tokens=seq.prompt_len,
            completion_tokens=seq.generated,
            cached_tokens=seq.cached_tokens,
            error=error,
            failure=seq.failure,
            times=times,
            simulated=None if self.simulated is None else self.simulated.read(first=first),
        )
