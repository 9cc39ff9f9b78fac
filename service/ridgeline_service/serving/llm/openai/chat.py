"""``/v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, Len
from pydantic import BaseModel, ConfigDict, Field

from ridgeline_service.serving.llm.answers import (
    DONE,
    EVENT_STREAM,
    Answer,
    StreamAnswer,
    event,
    json_answer,
)
from ridgeline_service.serving.llm.errors import BadRequest, ErrorStyle
from ridgeline_service.serving.llm.generation import Finish, Generation, fan_out, total_usage
from ridgeline_service.serving.llm.model import TextModel
from ridgeline_service.serving.llm.openai.render import chat_logprobs, usage_object
from ridgeline_service.serving.llm.openai.sampling import MAX_LOGPROBS, SamplingBody


class TextPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn. Parts of other kinds than text, and tools, are not supported."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    def for_template(self) -> dict[str, object]:
        content = self.content or ""
        if not isinstance(content, str):
            content = "\n".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        # Templates may look at extra fields such as name or reasoning_content.
        return {**(self.model_extra or {}), "role": role, "content": content}


class ChatBody(SamplingBody):
    messages: Annotated[list[ChatMessage], Len(min_length=1)]
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Ge(0), Le(MAX_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, object] = Field(default_factory=dict)

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **SamplingBody.neutral,
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "reasoning_effort": ("none",),
        "verbosity": (),
        "web_search_options": (),
        "chat_template": (),
        "documents": ([],),
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "add_special_tokens": (False,),
        "echo": (False,),
    }
    harmless: ClassVar[frozenset[str]] = SamplingBody.harmless | {"parallel_tool_calls"}

    @property
    def logprob_count(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise BadRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
        return None


async def chat_completions(model: TextModel, body: Mapping[str, object]) -> Answer | StreamAnswer:
    """Answer one request. Raises BadRequest and the engine's refusals."""
    _refuse_media(body.get("messages"))
    request = ChatBody.read(body)
    for place, message in enumerate(request.messages):
        if (message.model_extra or {}).get("tool_calls"):
            raise BadRequest("Tool calls are not supported.", param=f"messages.{place}.tool_calls")
    include_usage, logprobs, stops = request.include_usage, request.logprob_count, request.stops
    prompt = await model.chat_prompt(
        [message.for_template() for message in request.messages], request.chat_template_kwargs
    )
    newer = request.max_completion_tokens is not None
    params = request.params(
        model,
        prompt,
        max_tokens=request.max_completion_tokens if newer else request.max_tokens,
        max_tokens_name="max_completion_tokens" if newer else "max_tokens",
        logprobs=logprobs,
    )
    n = request.n or 1
    generation = model.start(fan_out([prompt], [params], stops, n))
    head = {
        "id": f"chatcmpl-{model.seams.new_id()}",
        "created": int(model.seams.now()),
        "model": request.model or model.name,
    }
    with_logprobs = logprobs is not None
    if request.stream:
        parts = _stream(model, generation, head, n, with_logprobs, include_usage)
        return StreamAnswer(parts, EVENT_STREAM, ErrorStyle.OPENAI, event, generation.cancel)
    with generation:
        done = await generation.completed()
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": sequence.text, "refusal": None},
            "logprobs": chat_logprobs(sequence.tokens, model.tokenizer) if with_logprobs else None,
            "finish_reason": sequence.finish.cause.openai,
        }
        for index, sequence in enumerate(done)
    ]
    usage = total_usage([sequence.finish for sequence in done], n)
    return json_answer(
        {**head, "object": "chat.completion", "choices": choices, "usage": usage_object(usage)}
    )


def _refuse_media(messages: object) -> None:
    """Pictures and sound are well formed, so they deserve more than a complaint about a field."""
    for place, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        for index, part in enumerate(content if isinstance(content, list) else []):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                param = f"messages.{place}.content.{index}.type"
                raise BadRequest(
                    f"{param}: this model takes text only, not {kind[:40]!r}.",
                    param=param,
                    hint='Send parts as {"type": "text", "text": "..."}.',
                    code="invalid_value",
                )


async def _stream(
    model: TextModel,
    generation: Generation,
    head: Mapping[str, object],
    n: int,
    with_logprobs: bool,
    include_usage: bool,
) -> AsyncIterator[bytes]:
    head = {**head, "object": "chat.completion.chunk"}
    no_usage = {"usage": None} if include_usage else {}
    finishes: list[Finish | None] = [None] * n
    opened: set[int] = set()

    def chunk(index: int, delta: object, logprobs: object, finish: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event({**head, "choices": [choice], **no_usage})

    async for news in generation.chunks():
        if news.index not in opened:
            opened.add(news.index)
            yield chunk(news.index, {"role": "assistant", "content": ""}, None, None)
        logprobs = chat_logprobs(news.tokens, model.tokenizer) if with_logprobs else None
        if news.text or (logprobs and logprobs["content"]):
            yield chunk(news.index, {"content": news.text}, logprobs, None)
        if news.finish is not None:
            finishes[news.index] = news.finish
            yield chunk(news.index, {}, None, news.finish.cause.openai)
    if include_usage:
        usage = total_usage([finish for finish in finishes if finish is not None], n)
        yield event({**head, "choices": [], "usage": usage_object(usage)})
    yield DONE
