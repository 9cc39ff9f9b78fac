"""vLLM behind our `Engine`: token ids in, token ids out, so that one server serves both.

vLLM computes in a process of its own; here is one thread with an event loop that speaks to it, and
keeps deadlines. What vLLM keeps to itself (blocks, steps, preemptions) stays 0 in the statistics.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Any, TypeVar

from ridgeline_backends.engine.api import (
    Engine,
    EngineOutput,
    EngineStats,
    FinishReason,
    SamplingParams,
    Sink,
    Times,
)
from ridgeline_backends.errors import (
    AdapterExists,
    AdaptersUnsupported,
    DuplicateSequence,
    EngineStopped,
    InvalidAdapter,
    InvalidSampling,
    PromptTooLong,
    QueueFull,
    TooManyAdapters,
    UnknownAdapter,
)
from ridgeline_backends.vllm.translate import finish_reason, token_logprobs, vllm_params

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 1.0


@dataclass(slots=True)
class _Live:
    id: str
    prompt: list[int]
    params: SamplingParams
    asked: Any
    sink: Sink
    priority: int
    timeout_s: float | None
    adapter: _Adapter | None
    times: Times
    completion: int = 0
    cached: int = 0
    task: asyncio.Task[None] | None = None
    cancelled: bool = False


@dataclass(slots=True)
class _Adapter:
    request: Any
    users: int = 0
    gone: Future[None] | None = None


@dataclass(slots=True)
class _Totals:
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_hits: int = 0
    ended: dict[FinishReason, int] = field(default_factory=dict)


class VllmEngine(Engine):
    """`make` builds vLLM's AsyncLLM, on the engine's own loop, within `start`. `eos` are the tokens
    with which the model ends a sequence. At most `max_live` sequences are in vLLM's hands."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        max_model_len: int,
        vocab_size: int,
        eos: frozenset[int],
        max_live: int = 256,
        max_adapters: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._max_model_len = max_model_len
        self._vocab_size = vocab_size
        self._eos = eos
        self._max_live = max_live
        self._max_adapters = max_adapters
        self._clock = clock
        self._numbers = count(1)
        self._lock = Lock()
        self._live: dict[str, _Live] = {}
        self._adapters: dict[str, _Adapter] = {}
        self._totals = _Totals()
        self._stopping = False
        self._llm: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread: Thread | None = None

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    def submit(
        self,
        sequence_id: str,
        prompt: Sequence[int],
        params: SamplingParams,
        sink: Sink,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        adapter: str | None = None,
    ) -> None:
        limit = self._max_model_len - 1
        if not prompt:
            raise InvalidSampling("prompt", [], "at least one token")
        if len(prompt) > limit:
            raise PromptTooLong(len(prompt), limit)
        for name, tokens in (("prompt", prompt), ("logit_bias", [t for t, _ in params.logit_bias])):
            for token in tokens:
                if not 0 <= token < self._vocab_size:
                    raise InvalidSampling(name, token, f"token ids below {self._vocab_size}")
        room = min(params.max_tokens, self._max_model_len - len(prompt))
        asked = vllm_params(params, self._eos, room)
        times = Times(submitted=self._clock())
        with self._lock:
            if self._stopping or self._llm is None:
                raise EngineStopped
            if sequence_id in self._live:
                raise DuplicateSequence(sequence_id)
            if len(self._live) >= self._max_live:
                waiting = sum(1 for live in self._live.values() if not live.completion)
                tokens_waiting = sum(len(one.prompt) for one in self._live.values())
                raise QueueFull(waiting, tokens_waiting, _RETRY_S)
            lora = None if adapter is None else self._usable(adapter)
            if lora is not None:
                lora.users += 1
            live = _Live(
                sequence_id, list(prompt), params, asked, sink, priority, timeout_s, lora, times
            )
            self._live[sequence_id] = live
            self._loop.call_soon_threadsafe(self._begin, live)

    def cancel(self, sequence_id: str) -> None:
        with self._lock:
            live = self._live.get(sequence_id)
            if live is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._cancel, live)

    def load_adapter(self, name: str, directory: Path) -> None:
        if not self._max_adapters:
            raise AdaptersUnsupported
        from vllm.lora.request import LoRARequest

        with self._lock:
            if name in self._adapters:
                raise AdapterExists(name)
            if len(self._adapters) >= self._max_adapters:
                raise TooManyAdapters(self._max_adapters)
            request = LoRARequest(name, next(self._numbers), str(directory))
            # Not usable before it is loaded.
            entry = self._adapters[name] = _Adapter(request, gone=Future())
        try:
            self._call(self._llm.add_lora(request))
        except Exception as error:
            with self._lock:
                del self._adapters[name]
            raise InvalidAdapter(name, f"vLLM refuses it: {error}") from error
        with self._lock:
            entry.gone = None

    def unload_adapter(self, name: str) -> Future[None]:
        with self._lock:
            entry = self._usable(name)
            gone: Future[None] = Future()
            entry.gone = gone
            idle = not entry.users
        if idle:
            asyncio.run_coroutine_threadsafe(self._remove(name, entry), self._loop)
        return gone

    def stats(self) -> EngineStats:
        with self._lock:
            running = sum(1 for live in self._live.values() if live.completion)
            waiting = [live for live in self._live.values() if not live.completion]
            totals = self._totals
            ended = totals.ended
            return EngineStats(
                alive=not self._stopping,
                running=running,
                waiting=len(waiting),
                waiting_tokens=sum(len(live.prompt) for live in waiting),
                max_waiting=self._max_live,
                prompt_tokens=totals.prompt_tokens - totals.prefix_hits,
                prefix_queries=totals.prompt_tokens,
                prefix_hits=totals.prefix_hits,
                generated_tokens=totals.generated_tokens,
                finished=ended.get(FinishReason.STOP, 0) + ended.get(FinishReason.LENGTH, 0),
                cancelled=ended.get(FinishReason.CANCELLED, 0),
                timed_out=ended.get(FinishReason.TIMEOUT, 0),
                failed=ended.get(FinishReason.ERROR, 0),
                adapters=tuple(name for name, one in self._adapters.items() if one.gone is None),
            )

    def start(self) -> None:
        """Start vLLM; returns when it can generate. Raises what vLLM raises."""
        if self._stopping:
            raise EngineStopped
        if self._thread is None:
            self._thread = Thread(target=self._loop.run_forever, name="engine", daemon=True)
            self._thread.start()
            self._llm = self._call(self._made())

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()
        self._loop.close()

    async def _made(self) -> Any:
        return self._make()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _usable(self, name: str) -> _Adapter:
        entry = self._adapters.get(name)
        if entry is None or entry.gone is not None:
            loaded = [other for other, one in self._adapters.items() if one.gone is None]
            raise UnknownAdapter(name, loaded)
        return entry

    def _begin(self, live: _Live) -> None:
        live.task = self._loop.create_task(self._generate(live))
        live.task.add_done_callback(lambda task: self._ended(live))

    def _ended(self, live: _Live) -> None:
        """A task that is cancelled before its first step runs none of its code."""
        if self._live.get(live.id) is live:
            self._cut_off(live)

    def _cut_off(self, live: _Live) -> None:
        if live.cancelled:
            self._finish(live, FinishReason.CANCELLED)
        else:
            self._finish(live, FinishReason.ERROR, error="the engine was stopped")

    def _cancel(self, live: _Live) -> None:
        live.cancelled = True
        if live.task is not None:
            live.task.cancel()

    async def _generate(self, live: _Live) -> None:
        try:
            async with asyncio.timeout(live.timeout_s):
                await self._follow(live)
        except TimeoutError:
            waited = self._clock() - live.times.submitted
            self._finish(live, FinishReason.TIMEOUT, error=f"not done after {waited:.1f} s")
        except asyncio.CancelledError:
            self._cut_off(live)
        except Exception as error:  # whatever vLLM raises must not leave its reader waiting
            log.exception("vLLM failed a sequence")
            self._finish(live, FinishReason.ERROR, error=f"{type(error).__name__}: {error}")

    async def _follow(self, live: _Live) -> None:
        lora = None if live.adapter is None else live.adapter.request
        outputs = self._llm.generate(
            {"prompt_token_ids": live.prompt},
            live.asked,
            live.id,
            lora_request=lora,
            priority=live.priority,
        )
        async for output in outputs:
            [completion] = output.outputs
            tokens = tuple(completion.token_ids)
            first = not live.completion and bool(tokens)
            live.completion += len(tokens)
            live.cached = output.num_cached_tokens or 0
            if first:
                live.times = replace(live.times, first_token=self._clock())
            params = live.params
            logprobs = prompt_logprobs = None
            if params.logprobs is not None and completion.logprobs is not None:
                logprobs = token_logprobs(tokens, completion.logprobs, params.logprobs)
            if first and params.prompt_logprobs is not None and output.prompt_logprobs:
                prompt_logprobs = token_logprobs(
                    live.prompt, output.prompt_logprobs, params.prompt_logprobs
                )
            news = EngineOutput(
                sequence_id=live.id,
                token_ids=tokens,
                logprobs=logprobs,
                prompt_logprobs=prompt_logprobs,
                prompt_tokens=len(live.prompt),
                completion_tokens=live.completion,
                cached_tokens=live.cached,
                times=live.times if first else None,
            )
            reason = finish_reason(completion.finish_reason)
            if reason is None:
                self._tell(live, news)
            else:
                error = None
                if reason is FinishReason.ERROR:
                    error = f"vLLM ended the sequence: {completion.finish_reason}"
                self._finish(live, reason, news=news, error=error)
                return
        self._finish(live, FinishReason.ERROR, error="vLLM ended the sequence without a reason")

    def _finish(
        self,
        live: _Live,
        reason: FinishReason,
        *,
        news: EngineOutput | None = None,
        error: str | None = None,
    ) -> None:
        base = news or EngineOutput(
            sequence_id=live.id,
            prompt_tokens=len(live.prompt),
            completion_tokens=live.completion,
            cached_tokens=live.cached,
        )
        idle = None
        with self._lock:
            del self._live[live.id]
            totals = self._totals
            totals.prompt_tokens += len(live.prompt)
            totals.prefix_hits += live.cached
            totals.generated_tokens += live.completion
            totals.ended[reason] = totals.ended.get(reason, 0) + 1
            if live.adapter is not None:
                live.adapter.users -= 1
                if live.adapter.gone is not None and not live.adapter.users:
                    idle = live.adapter
        times = replace(live.times, finished=self._clock())
        self._tell(live, replace(base, finish_reason=reason, error=error, times=times))
        if idle is not None and not self._stopping:
            self._removal = self._loop.create_task(self._remove(idle.request.lora_name, idle))

    def _tell(self, live: _Live, output: EngineOutput) -> None:
        try:
            live.sink(output)
        except Exception:  # the reader is gone (a closed loop): nobody waits for the rest
            log.warning("The reader of %s failed; cancelling", live.id, exc_info=True)
            self.cancel(live.id)

    async def _remove(self, name: str, entry: _Adapter) -> None:
        await self._llm.remove_lora(entry.request.lora_int_id)
        with self._lock:
            del self._adapters[name]
        assert entry.gone is not None
        entry.gone.set_result(None)

    async def _end_all(self) -> None:
        await _ended(live.task for live in list(self._live.values()) if live.task is not None)
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.shutdown()
        # vLLM's own, which it cancels and does not wait for.
        await _ended(asyncio.all_tasks() - {asyncio.current_task()})


async def _ended(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel them, and wait until they have taken it in."""
    found = [task for task in tasks if task is not None]
    for task in found:
        task.cancel()
    await asyncio.gather(*found, return_exceptions=True)
