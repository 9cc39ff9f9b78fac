"""Token sequences of an engine as text: n at once, detokenised, cut at stop strings.

The engine calls back on its own thread. `Mailbox` carries its outputs to the event loop with one
wake-up for all that a step produced; everything else here runs on the loop. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ridgeline_backends.engine import (
    Engine,
    EngineOutput,
    FinishReason,
    SamplingParams,
    TokenLogprobs,
)
from ridgeline_backends.engine.api import SimulatedTimes
from ridgeline_service.serving.llm.errors import ReaderTooSlow, failure_of
from ridgeline_service.serving.llm.text.stops import StopMatcher
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer
from ridgeline_service.serving.llm.watch import Ended, SequenceWatch, watching

_SEEDS = 2**64

MAX_BACKLOG = 4096
"""Outputs that wait for the reader of a stream before its generation is ended. The engine does not
wait for readers, and what they leave lying must not fill the memory."""


class FinishCause(StrEnum):
    """Why a text ended, in TGI's words; OpenAI's are coarser."""

    LENGTH = "length"
    EOS = "eos_token"
    STOP = "stop_sequence"

    @property
    def openai(self) -> str:
        return "length" if self is FinishCause.LENGTH else "stop"


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. ``text`` is what it made certain, which may lag behind what it spells;
    the sequence's own text may have less of it, for a stop string's sake.

    ``hidden`` tokens ended the generation and are no part of its text.
    """

    token_id: int
    text: str
    hidden: bool = False
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    simulated: SimulatedTimes | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How one sequence ended."""

    cause: FinishCause
    usage: Usage


@dataclass(frozen=True, slots=True)
class Chunk:
    """News of sequence ``index``. The last of each has ``finish``, and the first
    ``prompt_logprobs`` if they were asked for: one for each token of the prompt but its first."""

    index: int
    text: str
    tokens: tuple[Token, ...]
    finish: Finish | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """A whole sequence."""

    text: str
    tokens: tuple[Token, ...]
    finish: Finish
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None


class Mailbox:
    """Hands calls from any thread to the event loop, many with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[[EngineOutput], None], EngineOutput]] = deque()
        self._woken = False

    def sink(self, deliver: Callable[[EngineOutput], None]) -> Callable[[EngineOutput], None]:
        """A function that may be called on any thread; ``deliver`` then runs on the loop."""

        def post(output: EngineOutput) -> None:
            self._calls.append((deliver, output))
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._drain)
                except RuntimeError:
                    # The loop is closed: the process is on its way out, nobody listens.
                    self._calls.clear()

        return post

    def _drain(self) -> None:
        # Cleared first: a call appended from here on either is seen below or wakes the loop again.
        self._woken = False
        while self._calls:
            deliver, output = self._calls.popleft()
            deliver(output)


class SequenceReader:
    """Turns the outputs of one sequence into text. Pure: no engine, no loop."""

    def __init__(self, index: int, plan: SequencePlan, tokenizer: TextTokenizer) -> None:
        self.index = index
        self.done = False
        self._stop_ids = plan.params.stop_token_ids
        self._min_tokens = plan.params.min_tokens
        self._detokenizer = tokenizer.detokenizer(plan.prompt, plan.form.shown)
        self._matcher = StopMatcher(plan.form.stops, keep=plan.form.keep_stop)
        self._usage = Usage(prompt_tokens=len(plan.prompt))

    @property
    def usage(self) -> Usage:
        """Of what was fed so far."""
        return self._usage

    def feed(self, output: EngineOutput) -> Chunk:
        """Raises what `errors.failure_of` makes of a sequence that the engine gave up."""
        failure = failure_of(output)
        if failure is not None:
            self.done = True
            raise failure
        # A complete grammar ends a sequence too, and then its last token belongs to the text.
        ended_by_token = (
            output.finish_reason is FinishReason.STOP and output.token_ids[-1] in self._stop_ids
        )
        tokens: list[Token] = []
        shown = ""
        for place, token_id in enumerate(output.token_ids):
            hidden = ended_by_token and place == len(output.token_ids) - 1
            text = "" if hidden else self._detokenizer.push(token_id)
            logprobs = output.logprobs[place] if output.logprobs else None
            tokens.append(Token(token_id, text, hidden, logprobs))
            # As in vLLM, stop strings that are complete within `min_tokens` do not count.
            looking = self._usage.completion_tokens + len(tokens) > self._min_tokens
            shown += self._matcher.push(text, looking=looking)
            if self._matcher.matched is not None:
                return self._end(FinishCause.STOP, tokens, shown, output)
        if output.finish_reason is None:
            self._count(tokens, output)
            return Chunk(self.index, shown, tuple(tokens), prompt_logprobs=output.prompt_logprobs)
        rest = self._detokenizer.flush()
        if rest and tokens:
            tokens[-1] = replace(tokens[-1], text=tokens[-1].text + rest)
        shown += self._matcher.push(rest) + self._matcher.flush()
        stopped = output.finish_reason is FinishReason.STOP
        cause = FinishCause.EOS if stopped else FinishCause.LENGTH
        if self._matcher.matched is not None:
            cause = FinishCause.STOP
        return self._end(cause, tokens, shown, output)

    def _end(
        self, cause: FinishCause, tokens: list[Token], shown: str, output: EngineOutput
    ) -> Chunk:
        self.done = True
        self._count(tokens, output)
        finish = Finish(cause, self._usage)
        return Chunk(self.index, shown, tuple(tokens), finish, output.prompt_logprobs)

    def _count(self, tokens: Sequence[Token], output: EngineOutput) -> None:
        self._usage = Usage(
            self._usage.prompt_tokens,
            self._usage.completion_tokens + len(tokens),
            max(self._usage.cached_tokens, output.cached_tokens),
            output.simulated,
        )


@dataclass(frozen=True, slots=True)
class TextForm:
    """How tokens become text: where it stops, whether the stop string belongs to it, and which
    special tokens are shown in it."""

    stops: tuple[str, ...] = ()
    keep_stop: bool = False
    shown: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By which adapter a sequence is made and how it is treated beside others, as in
    `Engine.submit`."""

    priority: int = 0
    timeout_s: float | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """One sequence to be generated."""

    prompt: tuple[int, ...]
    params: SamplingParams
    form: TextForm = TextForm()
    terms: Terms = Terms()


class Generation:
    """Sequences in the making. Use as a context manager: leaving it cancels what still runs."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        mailbox: Mailbox,
        plans: Sequence[SequencePlan],
        sequence_ids: Sequence[str],
    ) -> None:
        """Submits every sequence, or none: raises what `Engine.submit` raises."""
        self._engine = engine
        self._ids = tuple(sequence_ids)
        self._inbox: deque[tuple[int, EngineOutput]] = deque()
        self._news = asyncio.Event()
        self._overrun = False
        self._readers = [SequenceReader(index, plan, tokenizer) for index, plan in enumerate(plans)]
        self._watches: list[SequenceWatch] = []
        self._started = 0
        request = watching()
        try:
            for index, plan in enumerate(plans):
                self._watches.append(request.submit(plan.prompt, plan.params))
                sink = mailbox.sink(self._receiver(index))
                engine.submit(
                    self._ids[index],
                    plan.prompt,
                    plan.params,
                    sink,
                    priority=plan.terms.priority,
                    timeout_s=plan.terms.timeout_s,
                    adapter=plan.terms.adapter,
                )
                self._started += 1
        except BaseException:
            self.cancel()
            raise

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    @property
    def usages(self) -> list[Usage]:
        """Of every sequence so far: what the chunks that were handed out tell together."""
        return [reader.usage for reader in self._readers]

    def cancel(self) -> None:
        """End every sequence that still runs. Harmless when none does."""
        self._end_all()
        for reader in self._readers[: self._started]:
            reader.done = True

    async def chunks(self) -> AsyncIterator[Chunk]:
        """News of all sequences as they come. Raises GenerationFailed, ReaderTooSlow."""
        while not all(reader.done for reader in self._readers):
            while not self._inbox:
                if self._overrun:
                    raise ReaderTooSlow(
                        f"This stream's reader is more than {MAX_BACKLOG} pieces behind; the "
                        "generation was ended.",
                        hint="Read faster, or ask for a whole answer.",
                    )
                self._news.clear()
                await self._news.wait()
            index, output = self._inbox.popleft()
            reader = self._readers[index]
            if reader.done:
                continue
            chunk = self._watches[index].detokenised(reader.feed, output)
            if reader.done and output.finish_reason is None:
                self._watches[index].end(Ended.STOP)
                self._engine.cancel(self._ids[index])
            yield chunk

    async def completed(self) -> list[Completed]:
        """Every sequence, whole, in order. Raises GenerationFailed."""
        texts: list[list[str]] = [[] for _ in self._readers]
        tokens: list[list[Token]] = [[] for _ in self._readers]
        finishes: dict[int, Finish] = {}
        scores: dict[int, tuple[TokenLogprobs, ...]] = {}
        async for chunk in self.chunks():
            texts[chunk.index].append(chunk.text)
            tokens[chunk.index].extend(chunk.tokens)
            if chunk.finish is not None:
                finishes[chunk.index] = chunk.finish
            if chunk.prompt_logprobs is not None:
                scores[chunk.index] = chunk.prompt_logprobs
        return [
            Completed(
                "".join(texts[index]), tuple(tokens[index]), finishes[index], scores.get(index)
            )
            for index in range(len(self._readers))
        ]

    def _end_all(self) -> None:
        for index in range(self._started):
            if not self._readers[index].done:
                self._watches[index].end(Ended.ABORT)
                self._engine.cancel(self._ids[index])

    def _receiver(self, index: int) -> Callable[[EngineOutput], None]:
        watch = self._watches[index]

        def receive(output: EngineOutput) -> None:
            if len(self._inbox) >= MAX_BACKLOG and not self._overrun:
                self._overrun = True
                self._end_all()
            if self._overrun:
                return
            watch.received(output)
            self._inbox.append((index, output))
            self._news.set()

        return receive


def fan_out(
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    form: TextForm,
    terms: Terms,
    n: int,
) -> list[SequencePlan]:
    """``n`` sequences for each prompt, prompt by prompt; sequence i of a prompt has seed + i."""
    return [
        SequencePlan(tuple(prompt), _reseeded(chosen, place), form, terms)
        for prompt, chosen in zip(prompts, params, strict=True)
        for place in range(n)
    ]


def total_usage(usages: Sequence[Usage], n: int) -> Usage:
    """Usage of a request of ``n`` sequences a prompt: each prompt counts once."""
    first_of_each = usages[::n]
    return Usage(
        sum(usage.prompt_tokens for usage in first_of_each),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in first_of_each),
        # Of several the times overlap: they are told one by one nowhere.
        usages[0].simulated if len(usages) == 1 else None,
    )


def _reseeded(params: SamplingParams, place: int) -> SamplingParams:
    if params.seed is None or place == 0:
        return params
    return replace(params, seed=(params.seed + place) % _SEEDS)
