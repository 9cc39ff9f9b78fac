"""A loaded model as the routes see it: what it can do, and within which limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ridgeline_backends.device_time import SimulatedHardware
from ridgeline_backends.encoding import TokenPair
from ridgeline_backends.engine import Engine, Grammar, InvalidSampling, SamplingParams
from ridgeline_backends.engine.api import StepRecord
from ridgeline_service.serving.llm.batches import Batches
from ridgeline_service.serving.llm.embedding import Embedder
from ridgeline_service.serving.llm.errors import BadRequest, ContextLengthExceeded
from ridgeline_service.serving.llm.generation import Generation, Mailbox, SequencePlan
from ridgeline_service.serving.llm.grammar import GrammarCompiler, GrammarSpec
from ridgeline_service.serving.llm.text.template import ChatTemplate, Message
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer
from ridgeline_service.serving.llm.tools.parsing import Family, family_of
from ridgeline_service.serving.llm.tools.prompt import with_tools

INLINE_CHARACTERS = 2048
"""A request's text up to this length is tokenised on the event loop (about a millisecond)."""

TOKENIZING = 2
"""Requests whose text is tokenised at once: behind a long one there is a way for others."""


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What generation_config.json recommends where a request says nothing."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Tokens a request may bring. ``max_input_tokens`` leaves room for at least one new token."""

    max_model_len: int
    max_input_tokens: int


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of a text that is too long: ``count`` tokens (None: as many as the model takes),
    from its beginning or, with ``end``, from its end."""

    count: int | None = None
    end: bool = False


@dataclass(frozen=True, slots=True)
class Seams:
    """Ids and time, injected so that tests know both, and who hears of the engine's steps."""

    new_id: Callable[[], str]
    now: Callable[[], float]
    on_step: Callable[[StepRecord], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Textual:
    """What all kinds of model share. ``hardware``: the simulated device that it runs on."""

    name: str
    tokenizer: TextTokenizer
    limits: Limits
    seams: Seams
    hardware: SimulatedHardware | None = None
    tokenize_pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(TOKENIZING, thread_name_prefix="tokenize")
    )

    @property
    def broken(self) -> str:
        """Why it can serve no longer, "" while it can."""
        return "" if self.hardware is None else self.hardware.broken

    async def encode_all(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool,
        param: str,
        keep: Keep | None = None,
    ) -> list[list[int]]:
        """Texts as token ids; long ones on a thread of their own, so that no step waits for them,
        and those that are too long whatever their tokens not at all.

        Raises BadRequest, ContextLengthExceeded; ``keep`` cuts a long text instead.
        """
        if keep is None:
            self._refuse_too_long(texts, param)
        encoded = await self.encode_unchecked(texts, add_special_tokens=add_special_tokens)
        return [self.checked(self.cut(ids, keep), param) for ids in encoded]

    async def encode_unchecked(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> list[list[int]]:
        """Texts as token ids, of any number."""

        def encode() -> list[list[int]]:
            return self.tokenizer.encode_all(texts, add_special_tokens=add_special_tokens)

        if sum(map(len, texts)) <= INLINE_CHARACTERS:
            return encode()
        return await asyncio.get_running_loop().run_in_executor(self.tokenize_pool, encode)

    def _refuse_too_long(self, texts: Iterable[str], param: str) -> None:
        """Raises ContextLengthExceeded for a text that so few tokens cannot stand for, whatever
        they are."""
        coverage, limit = self.tokenizer.coverage, self.limits.max_input_tokens
        if coverage is not None and any(coverage.exceeds(text, limit) for text in texts):
            raise ContextLengthExceeded(None, limit, param=param)

    def cut(self, ids: list[int], keep: Keep | None) -> list[int]:
        """What is kept of a text; the special token that closes one stays when its end goes."""
        if keep is None:
            return ids
        count = self.limits.max_input_tokens if keep.count is None else keep.count
        if len(ids) <= count:
            return ids
        if keep.end:
            return ids[-count:]
        closing = ids[-1:] if self.tokenizer.piece(ids[-1]).special else []
        return ids[: count - len(closing)] + closing

    def checked(self, ids: Sequence[int], param: str) -> list[int]:
        """Token ids that the model can take. Raises BadRequest, ContextLengthExceeded."""
        if not ids:
            raise BadRequest(f"{param} is empty: there is nothing to start from.", param=param)
        if len(ids) > self.limits.max_input_tokens:
            raise ContextLengthExceeded(len(ids), self.limits.max_input_tokens, param=param)
        return list(ids)

    def known_ids(self, ids: list[int], param: str, keep: Keep | None = None) -> list[int]:
        """Ids that came from outside. Raises BadRequest for one that is no token."""
        self.check_ids(ids, param)
        return self.checked(self.cut(ids, keep), param)

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Raises BadRequest for an id that is no token."""
        size = self.tokenizer.vocabulary_size
        if not ids or (min(ids) >= 0 and max(ids) < size):
            return
        strange = next(token_id for token_id in ids if not 0 <= token_id < size)
        raise BadRequest(
            f"{param}: {strange} is no token; ids go from 0 to {size - 1}.", param=param
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel(_Textual):
    """Generates text."""

    engine: Engine
    mailbox: Mailbox
    template: ChatTemplate | None
    eos_token_ids: frozenset[int]
    grammars: GrammarCompiler
    defaults: SamplingDefaults = SamplingDefaults()
    grammar_pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="grammar")
    )
    adapters: dict[str, str] = field(default_factory=dict)
    """Where every LoRA adapter came from that was ever loaded, by name."""

    def chat_text(
        self,
        messages: Sequence[Message],
        extra: Mapping[str, object],
        tools: Sequence[Mapping[str, object]] = (),
    ) -> str:
        """A conversation as the model sees it. Raises BadRequest."""
        if self.template is None:
            raise BadRequest(
                "This model has no chat template, so it cannot take messages.",
                param="messages",
                hint="Use /v1/completions with a prompt, or deploy an instruct model.",
            )
        if self.template.knows_tools:
            return self.template.render(messages, extra, tools)
        return self.template.render(with_tools(messages, tools), extra)

    @property
    def tool_family(self) -> Family:
        """How this model writes tool calls."""
        return family_of("" if self.template is None else self.template.source)

    async def grammar(self, spec: GrammarSpec | None) -> Grammar | None:
        """The form of an answer, ready for the engine. Raises BadRequest."""
        if spec is None:
            return None
        if (known := self.grammars.known(spec)) is not None:
            return known
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.grammar_pool, self.grammars.compile, spec)

    def room(self, prompt: Sequence[int], wanted: int | None, least: int | None, param: str) -> int:
        """How many new tokens a sequence gets: what was asked for, within the context length.
        Raises BadRequest, naming ``param``, where ``least`` of them do not fit there."""
        left = self.limits.max_model_len - len(prompt)
        if least is not None and left < least <= (least if wanted is None else wanted):
            raise BadRequest(
                f"{param} is {least}, but behind the {len(prompt)} tokens of the prompt the "
                f"context length of {self.limits.max_model_len} leaves room for {left}.",
                param=param,
                hint="Lower it, or shorten the prompt.",
                code="context_length_exceeded",
            )
        return left if wanted is None else min(wanted, left)

    def stop_ids(self, extra: Sequence[int], *, ignore_eos: bool) -> frozenset[int]:
        return frozenset(extra) | (frozenset() if ignore_eos else self.eos_token_ids)

    def biases(self, given: Mapping[str, float], param: str) -> tuple[tuple[int, float], ...]:
        """What is added to the logits of tokens. Raises BadRequest for an id that is no token."""
        size = self.tokenizer.vocabulary_size
        for token in given:
            if not (token.isascii() and token.isdigit() and int(token) < size):
                raise BadRequest(
                    f"{param}: {token[:40]!r} is no token; ids go from 0 to {size - 1}.",
                    param=param,
                    code="invalid_value",
                )
        return tuple((int(token), bias) for token, bias in given.items())

    def adapter(self, name: str | None) -> str | None:
        """The LoRA adapter that a request's `model` names, if it names one.

        One that was loaded once stays an adapter's name: to answer with the model itself when it
        has been unloaded would be another answer than the one asked for.
        """
        return name if name in self.adapters else None

    def start(self, plans: Sequence[SequencePlan]) -> Generation:
        """Submit sequences to the engine.

        Raises what `Engine.submit` raises, and BadRequest for more sequences than its queue holds.
        """
        most = self.engine.stats().max_waiting
        if len(plans) > most:
            raise BadRequest(
                f"The request asks for {len(plans)} sequences; at most {most} can be queued.",
                hint="Send fewer prompts at once, or a smaller n.",
            )
        ids = [self.seams.new_id() for _ in plans]
        return Generation(self.engine, self.tokenizer, self.mailbox, plans, ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel(_Textual):
    """Turns texts into vectors."""

    embedder: Embedder


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankModel(_Textual):
    """Judges how well the second text of a pair answers the first."""

    judge: Batches[TokenPair, float]

    async def encode_pairs(
        self, pairs: Sequence[tuple[str, str]], param: str, *, truncate: bool
    ) -> list[TokenPair]:
        """Pairs as token ids, on a thread of their own. With ``truncate`` second texts are cut.

        Raises ContextLengthExceeded.
        """
        limit = self.limits.max_input_tokens
        if not truncate:
            self._refuse_too_long((text for pair in pairs for text in pair), param)

        def encode() -> list[TokenPair]:
            return self.tokenizer.encode_pairs(pairs, at_most=limit if truncate else None)

        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(self.tokenize_pool, encode)
        longest = max(len(pair.token_ids) for pair in encoded)
        if longest > limit:
            raise ContextLengthExceeded(longest, limit, param=param)
        return encoded


Model = TextModel | EmbeddingModel | RerankModel


def queue_of(model: EmbeddingModel | RerankModel) -> Batches[Any, Any]:
    """Where the requests of a model without an engine wait."""
    return model.embedder.queue if isinstance(model, EmbeddingModel) else model.judge


def sampling(names: Mapping[str, str], **values: object) -> SamplingParams:
    """SamplingParams of a request, with the engine's complaints under the request's own names.

    ``names`` maps the engine's field names to the request's where they differ.
    """
    try:
        return SamplingParams(**values)  # type: ignore[arg-type]
    except InvalidSampling as error:
        name = names.get(error.field, error.field)
        message = error.message.replace(error.field, name, 1)
        raise BadRequest(message, param=name, code="invalid_value") from None
