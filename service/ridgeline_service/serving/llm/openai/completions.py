"""``/v1/completions``: prompts of text or token ids, several at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, Len

from ridgeline_service.serving.llm.answers import (
    DONE,
    EVENT_STREAM,
    Answer,
    StreamAnswer,
    event,
    json_answer,
)
from ridgeline_service.serving.llm.errors import BadRequest, ErrorStyle, UnsupportedParameter
from ridgeline_service.serving.llm.fields import texts_or_tokens
from ridgeline_service.serving.llm.generation import (
    Completed,
    Finish,
    FinishCause,
    Generation,
    Token,
    Usage,
    fan_out,
    total_usage,
)
from ridgeline_service.serving.llm.model import TextModel
from ridgeline_service.serving.llm.openai.render import (
    CompletionLogprobs,
    Spelling,
    UsageTold,
    token_ids,
    usage_object,
)
from ridgeline_service.serving.llm.openai.sampling import MAX_LOGPROBS, SamplingBody

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for this route."""

MAX_PROMPTS = 256

Prompts = Annotated[list[str], Len(min_length=1, max_length=MAX_PROMPTS)]
TokenPrompts = Annotated[list[list[int]], Len(min_length=1, max_length=MAX_PROMPTS)]


class CompletionBody(SamplingBody):
    prompt: str | Prompts | list[int] | TokenPrompts
    logprobs: Annotated[int, Ge(0), Le(MAX_LOGPROBS)] | None = None
    # Nothing is generated where an echoed prompt is to be scored alone.
    max_tokens: Annotated[int, Ge(0)] | None = None
    echo: bool | None = None
    best_of: int | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **SamplingBody.neutral,
        "suffix": ("",),
        "add_special_tokens": (True,),
    }


@dataclass(frozen=True, slots=True)
class _Prompt:
    token_ids: list[int]
    echo: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What rendering needs to know of a request. ``prompts``: one for each choice."""

    model: TextModel
    head: Mapping[str, object]
    prompts: Sequence[_Prompt]
    n: int
    logprobs: bool
    echo: bool
    usage: UsageTold
    nothing: bool
    spelling: Spelling
    token_ids: bool

    def of_tokens(self, index: int, tokens: Sequence[Token], *, first: bool) -> dict[str, object]:
        """The token ids of choice ``index``, where they are to be shown."""
        if not self.token_ids:
            return {}
        made: dict[str, object] = {"token_ids": token_ids(tokens)}
        if first:
            made["prompt_token_ids"] = self.prompts[index].token_ids
        return made


async def completions(model: TextModel, body: Mapping[str, object]) -> Answer | StreamAnswer:
    """Answer one request. Raises BadRequest and the engine's refusals."""
    request = CompletionBody.read(body)
    n = request.n or 1
    _check(request, n)
    echo = bool(request.echo)
    usage_told, form = request.usage_told, request.text_form(model)
    grammar = await model.grammar(request.form)
    prompts = await _read_prompts(model, request)
    wanted = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    params = [
        request.params(
            model,
            prompt.token_ids,
            # An engine makes one token at least; it is left out where none was asked for.
            max_tokens=max(1, wanted),
            logprobs=request.logprobs,
            prompt_logprobs=request.logprobs if echo else None,
            grammar=grammar,
        )
        for prompt in prompts
    ]
    token_ids = [prompt.token_ids for prompt in prompts]
    generation = model.start(fan_out(token_ids, params, form, request.terms(model), n))
    head = {
        "id": f"cmpl-{model.seams.new_id()}",
        "object": "text_completion",
        "created": int(model.seams.now()),
        "model": request.model or model.name,
    }
    asked = _Asked(
        model=model,
        head=head,
        prompts=[prompt for prompt in prompts for _ in range(n)],
        n=n,
        logprobs=request.logprobs is not None,
        echo=echo,
        usage=usage_told,
        nothing=wanted == 0,
        spelling=request.spelling(model),
        token_ids=bool(request.return_token_ids),
    )
    if request.stream:
        parts = _stream(asked, generation)
        return StreamAnswer(parts, EVENT_STREAM, ErrorStyle.OPENAI, event, generation.cancel)
    with generation:
        done = [_without(one) if asked.nothing else one for one in await generation.completed()]
    choices = []
    for index, sequence in enumerate(done):
        prompt = asked.prompts[index]
        scored = CompletionLogprobs(asked.spelling)
        if sequence.prompt_logprobs is not None:
            scored.prompt(prompt.token_ids, sequence.prompt_logprobs)
        scored.tokens(sequence.tokens)
        choices.append(
            {
                "index": index,
                "text": prompt.echo + sequence.text,
                "logprobs": scored.take() if asked.logprobs else None,
                "finish_reason": sequence.finish.cause.openai,
                **asked.of_tokens(index, sequence.tokens, first=True),
            }
        )
    usage = total_usage([sequence.finish.usage for sequence in done], n)
    return json_answer({**head, "choices": choices, "usage": usage_object(usage)})


def _check(request: CompletionBody, n: int) -> None:
    if request.best_of is not None and request.best_of != n:
        raise UnsupportedParameter(
            "best_of is not supported by this endpoint.",
            param="best_of",
            hint="Ask for n sequences and choose among them.",
        )
    if request.max_tokens == 0 and not request.echo:
        raise BadRequest(
            "max_tokens must be at least 1 unless echo is true.",
            param="max_tokens",
            code="invalid_value",
        )


async def _read_prompts(model: TextModel, request: CompletionBody) -> list[_Prompt]:
    texts, token_lists = texts_or_tokens(request.prompt)
    keep = request.keep
    if texts:
        encoded = await model.encode_all(texts, add_special_tokens=True, param="prompt", keep=keep)
    else:
        encoded = [model.known_ids(ids, "prompt", keep) for ids in token_lists]
    if not request.echo:
        return [_Prompt(ids, "") for ids in encoded]
    if texts and keep is None:
        return [_Prompt(ids, text) for ids, text in zip(encoded, texts, strict=True)]
    return [_Prompt(ids, model.tokenizer.decode(ids)) for ids in encoded]


def _without(sequence: Completed) -> Completed:
    """The sequence before its first token, for a request that wanted none."""
    return replace(sequence, text="", tokens=(), finish=_unused(sequence.finish))


def _unused(finish: Finish) -> Finish:
    return Finish(FinishCause.LENGTH, _unmade(finish.usage))


def _unmade(usage: Usage) -> Usage:
    return replace(usage, completion_tokens=0)


async def _stream(asked: _Asked, generation: Generation) -> AsyncIterator[bytes]:
    def usages() -> list[Usage]:
        return [_unmade(one) if asked.nothing else one for one in generation.usages]

    pending = [prompt.echo for prompt in asked.prompts]
    scored = [CompletionLogprobs(asked.spelling) for _ in asked.prompts]
    opened: set[int] = set()
    async for given in generation.chunks():
        news = given
        if asked.nothing:
            finish = given.finish and _unused(given.finish)
            news = replace(given, text="", tokens=(), finish=finish)
        index = news.index
        if news.prompt_logprobs is not None:
            scored[index].prompt(asked.prompts[index].token_ids, news.prompt_logprobs)
        scored[index].tokens(news.tokens)
        logprobs = scored[index].take() if asked.logprobs else None
        text, pending[index] = pending[index] + news.text, ""
        ids = asked.of_tokens(index, news.tokens, first=index not in opened)
        if not (text or news.finish or (logprobs and logprobs["tokens"]) or ids):
            continue
        opened.add(index)
        choice = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": news.finish.cause.openai if news.finish else None,
            **ids,
        }
        usage = asked.usage.beside(usages, asked.n)
        yield event({**asked.head, "choices": [choice], **usage})
    if asked.usage is not UsageTold.NEVER:
        total = total_usage(usages(), asked.n)
        yield event({**asked.head, "choices": [], "usage": usage_object(total)})
    yield DONE
