"""``/v1/chat/completions``."""

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
from ridgeline_service.serving.llm.errors import BadRequest, ErrorStyle
from ridgeline_service.serving.llm.generation import (
    Chunk,
    Finish,
    FinishCause,
    Generation,
    fan_out,
    total_usage,
)
from ridgeline_service.serving.llm.grammar import GrammarSpec
from ridgeline_service.serving.llm.model import TextModel
from ridgeline_service.serving.llm.openai.messages import (
    ChatMessage,
    ConversationBody,
    refuse_media,
)
from ridgeline_service.serving.llm.openai.render import (
    Spelling,
    UsageTold,
    call_deltas,
    chat_logprobs,
    chat_message,
    token_ids,
    usage_object,
)
from ridgeline_service.serving.llm.openai.sampling import MAX_LOGPROBS, SamplingBody
from ridgeline_service.serving.llm.tools.definitions import (
    ToolChoice,
    Tools,
    ToolUse,
    read_tool_use,
)
from ridgeline_service.serving.llm.tools.reading import AnswerReader


class ChatBody(ConversationBody, SamplingBody):
    messages: Annotated[list[ChatMessage], Len(min_length=1)]
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Ge(0), Le(MAX_LOGPROBS)] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None

    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **SamplingBody.neutral,
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "reasoning_effort": ("none",),
        "verbosity": (),
        "web_search_options": (),
        "chat_template": (),
        "documents": ([],),
        "add_special_tokens": (False,),
        "echo": (False,),
    }

    @property
    def logprob_count(self) -> int | None:
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise BadRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
        return None

    @property
    def tool_use(self) -> ToolUse | None:
        return read_tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What rendering needs to know of a request. ``prompt``: where token ids are to be shown."""

    model: TextModel
    head: Mapping[str, object]
    n: int
    logprobs: bool
    usage: UsageTold
    tools: ToolUse | None
    spelling: Spelling
    prompt: Sequence[int] | None

    @property
    def token_ids(self) -> bool:
        return self.prompt is not None

    @property
    def prompt_token_ids(self) -> dict[str, object]:
        return {} if self.prompt is None else {"prompt_token_ids": list(self.prompt)}

    def reader(self) -> AnswerReader:
        return AnswerReader(self.tools, self.model.tool_family)


async def chat_completions(model: TextModel, body: Mapping[str, object]) -> Answer | StreamAnswer:
    """Answer one request. Raises BadRequest and the engine's refusals."""
    refuse_media(body.get("messages"))
    request = ChatBody.read(body)
    usage_told, logprobs, use = request.usage_told, request.logprob_count, request.tool_use
    form = request.text_form(model, _marks(model) if use else frozenset())
    grammar = await model.grammar(_form(request, use))
    declared = use.declared if use else []
    text = request.text(model, request.messages, declared)
    [prompt] = await model.encode_all(
        [text], add_special_tokens=False, param="messages", keep=request.keep
    )
    newer = request.max_completion_tokens is not None
    params = request.params(
        model,
        prompt,
        max_tokens=request.max_completion_tokens if newer else request.max_tokens,
        max_tokens_name="max_completion_tokens" if newer else "max_tokens",
        logprobs=logprobs,
        grammar=grammar,
    )
    n = request.n or 1
    generation = model.start(fan_out([prompt], [params], form, request.terms(model), n))
    head = {
        "id": f"chatcmpl-{model.seams.new_id()}",
        "created": int(model.seams.now()),
        "model": request.model or model.name,
    }
    asked = _Asked(
        model,
        head,
        n,
        logprobs is not None,
        usage_told,
        use,
        request.spelling(model),
        prompt if request.return_token_ids else None,
    )
    if request.stream:
        parts = _stream(asked, generation)
        return StreamAnswer(parts, EVENT_STREAM, ErrorStyle.OPENAI, event, generation.cancel)
    with generation:
        done = await generation.completed()
    choices = []
    for index, sequence in enumerate(done):
        reader = asked.reader()
        delta = reader.push(sequence.text, final=True)
        shown = chat_logprobs(sequence.tokens, asked.spelling) if asked.logprobs else None
        choices.append(
            {
                "index": index,
                "message": chat_message(delta, model.seams.new_id, forced=reader.forced),
                "logprobs": shown,
                "finish_reason": _reason(sequence.finish, reader),
                **({"token_ids": token_ids(sequence.tokens)} if asked.token_ids else {}),
            }
        )
    usage = total_usage([sequence.finish.usage for sequence in done], n)
    return json_answer(
        {
            **head,
            "object": "chat.completion",
            "choices": choices,
            "usage": usage_object(usage),
            **asked.prompt_token_ids,
        }
    )


def _form(request: ChatBody, use: ToolUse | None) -> GrammarSpec | None:
    """The form of the answer: a call that must be made goes before what the request says."""
    spec = request.form
    return (use.grammar() if use else None) or spec


def _marks(model: TextModel) -> frozenset[int]:
    """The special tokens with which this model marks calls."""
    found = (model.tokenizer.id_of(mark) for mark in model.tool_family.marks)
    return frozenset(token for token in found if token is not None)


def _reason(finish: Finish, reader: AnswerReader) -> str:
    # A stop string may stand behind a call, or cut it off as the length does.
    cut = finish.cause is FinishCause.LENGTH or (
        finish.cause is FinishCause.STOP and not reader.whole
    )
    return "tool_calls" if reader.called and not cut else finish.cause.openai


async def _stream(asked: _Asked, generation: Generation) -> AsyncIterator[bytes]:
    head = {**asked.head, "object": "chat.completion.chunk"}
    readers = [asked.reader() for _ in range(asked.n)]
    opened: set[int] = set()
    sent: list[bool] = []
    nothing = None if asked.tools is not None and asked.tools.forced else ""

    def chunk(
        index: int, delta: object, more: Mapping[str, object], finish: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        prompt = {} if sent else asked.prompt_token_ids
        sent.append(True)
        usage = asked.usage.beside(lambda: generation.usages, asked.n)
        return event({**head, "choices": [{**choice, **more}], **usage, **prompt})

    def of_tokens(news: Chunk) -> dict[str, object]:
        """What is told of the tokens themselves."""
        more: dict[str, object] = {}
        if asked.logprobs:
            more["logprobs"] = chat_logprobs(news.tokens, asked.spelling)
        if asked.token_ids:
            more["token_ids"] = token_ids(news.tokens)
        return more

    def shown(news: Chunk) -> list[dict[str, object]]:
        """What the reader of this choice is told: content and calls apart."""
        delta = readers[news.index].push(news.text, final=news.finish is not None)
        parts: list[dict[str, object]] = [{"content": delta.text}] if delta.text else []
        if delta.calls:
            parts.append({"tool_calls": call_deltas(delta.calls, asked.model.seams.new_id)})
        return parts

    async for news in generation.chunks():
        if news.index not in opened:
            opened.add(news.index)
            yield chunk(news.index, {"role": "assistant", "content": nothing}, {})
        more = of_tokens(news)
        parts = shown(news)
        if not parts and any(not token.hidden for token in news.tokens) and more:
            parts = [{"content": nothing}]
        for part in parts:
            yield chunk(news.index, part, more)
            more = {}
        if news.finish is not None:
            reason = _reason(news.finish, readers[news.index])
            yield chunk(news.index, {}, {} if parts else more, reason)
    if asked.usage is not UsageTold.NEVER:
        usage = total_usage(generation.usages, asked.n)
        yield event({**head, "choices": [], "usage": usage_object(usage)})
    yield DONE
