"""``/v1/completions``: prompts of text or token ids, several at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
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
from ridgeline_service.serving.llm.errors import ErrorStyle, UnsupportedParameter
from ridgeline_service.serving.llm.fields import texts_or_tokens
from ridgeline_service.serving.llm.generation import Finish, Generation, fan_out, total_usage
from ridgeline_service.serving.llm.model import TextModel
from ridgeline_service.serving.llm.openai.render import completion_logprobs, usage_object
from ridgeline_service.serving.llm.openai.sampling import MAX_LOGPROBS, SamplingBody

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for this route."""

MAX_PROMPTS = 256

Prompts = Annotated[list[str], Len(min_length=1, max_length=MAX_PROMPTS)]
TokenPrompts = Annotated[list[list[int]], Len(min_length=1, max_length=MAX_PROMPTS)]


class CompletionBody(SamplingBody):
    prompt: str | Prompts | list[int] | TokenPrompts
    logprobs: Annotated[int, Ge(0), Le(MAX_LOGPROBS)] | None = None
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


async def completions(model: TextModel, body: Mapping[str, object]) -> Answer | StreamAnswer:
    """Answer one request. Raises BadRequest and the engine's refusals."""
    request = CompletionBody.read(body)
    n = request.n or 1
    _refuse_unsupported(request, n)
    include_usage, stops = request.include_usage, request.stops
    prompts = await _read_prompts(model, request.prompt, echo=bool(request.echo))
    wanted = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    params = [
        request.params(model, prompt.token_ids, max_tokens=wanted, logprobs=request.logprobs)
        for prompt in prompts
    ]
    plans = fan_out([prompt.token_ids for prompt in prompts], params, stops, n)
    generation = model.start(plans)
    head = {
        "id": f"cmpl-{model.seams.new_id()}",
        "object": "text_completion",
        "created": int(model.seams.now()),
        "model": request.model or model.name,
    }
    echoes = [prompt.echo for prompt in prompts for _ in range(n)]
    with_logprobs = request.logprobs is not None
    if request.stream:
        parts = _stream(model, generation, head, echoes, n, with_logprobs, include_usage)
        return StreamAnswer(parts, EVENT_STREAM, ErrorStyle.OPENAI, event, generation.cancel)
    with generation:
        done = await generation.completed()
    choices = []
    for index, sequence in enumerate(done):
        logprobs = None
        if with_logprobs:
            logprobs, _ = completion_logprobs(sequence.tokens, model.tokenizer, 0)
        choices.append(
            {
                "index": index,
                "text": echoes[index] + sequence.text,
                "logprobs": logprobs,
                "finish_reason": sequence.finish.cause.openai,
            }
        )
    usage = total_usage([sequence.finish for sequence in done], n)
    return json_answer({**head, "choices": choices, "usage": usage_object(usage)})


def _refuse_unsupported(request: CompletionBody, n: int) -> None:
    if request.best_of is not None and request.best_of != n:
        raise UnsupportedParameter(
            "best_of is not supported by this endpoint.",
            param="best_of",
            hint="Ask for n sequences and choose among them.",
        )
    if request.echo and request.logprobs is not None:
        raise UnsupportedParameter(
            "logprobs cannot be combined with echo: log-probabilities of a prompt are not kept.",
            param="logprobs",
            hint="Leave out one of the two.",
        )


async def _read_prompts(
    model: TextModel, given: str | list[str] | list[int] | list[list[int]], *, echo: bool
) -> list[_Prompt]:
    texts, token_lists = texts_or_tokens(given)
    if texts:
        encoded = await model.encode_all(texts, add_special_tokens=True, param="prompt")
        pairs = zip(encoded, texts, strict=True)
        return [_Prompt(ids, text if echo else "") for ids, text in pairs]
    known = [model.known_ids(ids, "prompt") for ids in token_lists]
    return [_Prompt(ids, model.tokenizer.decode(ids) if echo else "") for ids in known]


async def _stream(
    model: TextModel,
    generation: Generation,
    head: Mapping[str, object],
    echoes: Sequence[str],
    n: int,
    with_logprobs: bool,
    include_usage: bool,
) -> AsyncIterator[bytes]:
    no_usage = {"usage": None} if include_usage else {}
    pending = list(echoes)
    offsets = [0] * len(echoes)
    finishes: list[Finish | None] = [None] * len(echoes)
    async for news in generation.chunks():
        index = news.index
        logprobs: dict[str, object] | None = None
        if with_logprobs:
            logprobs, offsets[index] = completion_logprobs(
                news.tokens, model.tokenizer, offsets[index]
            )
        text, pending[index] = pending[index] + news.text, ""
        finishes[index] = news.finish
        if not (text or news.finish or (logprobs and logprobs["tokens"])):
            continue
        choice = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": news.finish.cause.openai if news.finish else None,
        }
        yield event({**head, "choices": [choice], **no_usage})
    if include_usage:
        usage = total_usage([finish for finish in finishes if finish is not None], n)
        yield event({**head, "choices": [], "usage": usage_object(usage)})
    yield DONE
