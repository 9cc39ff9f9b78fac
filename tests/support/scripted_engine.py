"""An engine that speaks a script, other models that answer at once, and small tokenizers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from ridgeline_backends.encoding import TokenPair
from ridgeline_backends.engine import (
    Engine,
    EngineOutput,
    EngineStats,
    Failure,
    FinishReason,
    PromptTooLong,
    SamplingParams,
    Sink,
    TokenLogprobs,
)
from ridgeline_backends.errors import AdapterExists, UnknownAdapter
from ridgeline_service.serving.llm.generation import Terms
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer

EOS = "<|im_end|>"


def byte_tokenizer() -> TextTokenizer:
    """One token a byte, then the end-of-sequence token: 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: place for place, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    return TextTokenizer(tokenizer)


@dataclass
class Submitted:
    """One sequence as the engine saw it."""

    sequence_id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    terms: Terms


@dataclass
class Script:
    """What the engine says to every sequence: ``text`` byte by byte, then the end.

    ``hold`` keeps the engine silent after ``hold_after`` tokens until the sequence is cancelled.
    """

    text: str = "Hello there"
    ends_with_eos: bool = True
    hold_after: int | None = None
    refuse: Exception | None = None
    refuse_from: int = 0
    error: str | None = None
    failure: Failure = Failure.ENGINE
    logprob: float = -0.5


class ScriptedEngine(Engine):
    """Speaks a script on a thread of its own, one token an output."""

    max_len = 64

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.changed = Condition()
        self._tokenizer = tokenizer
        self.reset()

    def reset(self) -> None:
        self.script = Script()
        self.submitted: list[Submitted] = []
        self.cancelled: list[str] = []
        self.loaded: list[str] = []
        self.ids = (f"id{number}" for number in itertools.count(1))

    @property
    def max_model_len(self) -> int:
        return self.max_len

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
        script = self.script
        if adapter is not None and adapter not in self.loaded:
            raise UnknownAdapter(adapter, self.loaded)
        if script.refuse is not None and len(self.submitted) >= script.refuse_from:
            raise script.refuse
        if len(prompt) >= self.max_len:
            raise PromptTooLong(len(prompt), self.max_len - 1)
        with self.changed:
            terms = Terms(priority=priority, timeout_s=timeout_s, adapter=adapter)
            self.submitted.append(Submitted(sequence_id, tuple(prompt), params, terms))
            self.changed.notify_all()
        Thread(target=self._speak, args=(sequence_id, prompt, params, sink), daemon=True).start()

    def cancel(self, sequence_id: str) -> None:
        with self.changed:
            self.cancelled.append(sequence_id)
            self.changed.notify_all()

    def wait_submitted(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.submitted) >= count, timeout=10)

    def wait_cancelled(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(set(self.cancelled)) >= count, timeout=10)

    def stats(self) -> EngineStats:
        return EngineStats(running=1, total_blocks=8, max_waiting=20, adapters=tuple(self.loaded))

    def load_adapter(self, name: str, directory: Path) -> None:
        if name in self.loaded:
            raise AdapterExists(name)
        self.loaded.append(name)

    def unload_adapter(self, name: str) -> Future[None]:
        if name not in self.loaded:
            raise UnknownAdapter(name, self.loaded)
        self.loaded.remove(name)
        gone: Future[None] = Future()
        gone.set_result(None)
        return gone

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def _speak(
        self, sequence_id: str, prompt: Sequence[int], params: SamplingParams, sink: Sink
    ) -> None:
        script = self.script
        ids = self._tokenizer.encode(script.text, add_special_tokens=False)
        eos = self._tokenizer.id_of(EOS)
        assert eos is not None
        if script.ends_with_eos:
            ids.append(eos)
        ids = ids[: params.max_tokens]

        def output(count: int, finish: FinishReason | None, **more: Any) -> EngineOutput:
            return EngineOutput(
                sequence_id=sequence_id,
                finish_reason=finish,
                prompt_tokens=len(prompt),
                completion_tokens=count,
                cached_tokens=3,
                **more,
            )

        for count, token_id in enumerate(ids, 1):
            if script.hold_after is not None and count > script.hold_after:
                with self.changed:
                    self.changed.wait_for(lambda: sequence_id in self.cancelled, timeout=10)
                sink(output(count, FinishReason.CANCELLED))
                return
            if script.error is not None and count == len(ids):
                sink(
                    output(
                        count,
                        FinishReason.ERROR,
                        error=script.error,
                        failure=script.failure,
                    )
                )
                return
            finish = None
            if count == len(ids):
                finish = FinishReason.STOP if token_id == eos else FinishReason.LENGTH
            logprobs = None
            if params.logprobs is not None:
                top = tuple(
                    (token_id + place, script.logprob - place) for place in range(params.logprobs)
                )
                logprobs = (TokenLogprobs(token_id, script.logprob, top),)
            scores = None
            if params.prompt_logprobs is not None and count == 1:
                scores = tuple(
                    TokenLogprobs(known, -0.25, ((known, -0.25),)) for known in prompt[1:]
                )
            sink(
                output(
                    count,
                    finish,
                    token_ids=(token_id,),
                    logprobs=logprobs,
                    prompt_logprobs=scores,
                )
            )


class LengthEmbedder:
    """A vector that says how long each sequence was."""

    dimensions = 3
    max_model_len = 32

    def embed(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        return [[float(len(ids)), 0.25, -1.5] for ids in token_ids]


def pair_tokenizer() -> TextTokenizer:
    """`byte_tokenizer`, with its end-of-sequence token after each text of a pair."""
    tokenizer = Tokenizer.from_str(byte_tokenizer().to_json())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}",
        pair=f"$A {EOS} $B:1 {EOS}:1",
        special_tokens=[(EOS, tokenizer.token_to_id(EOS))],
    )
    return TextTokenizer(tokenizer)


def common_letters(pairs: Sequence[TokenPair]) -> list[float]:
    """A judge: the share of the second text's letters that the first one has."""
    scores = []
    for pair in pairs:
        cut = list(pair.type_ids).index(1)
        query, document = set(pair.token_ids[: cut - 1]), list(pair.token_ids[cut:-1])
        scores.append(sum(letter in query for letter in document) / max(1, len(document)))
    return scores
