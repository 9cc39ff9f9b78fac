"""The pieces that OpenAI's answers are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from ridgeline_backends.engine import TokenLogprobs
from ridgeline_service.serving.llm.answers import written_logprob
from ridgeline_service.serving.llm.generation import Token, Usage, total_usage
from ridgeline_service.serving.llm.model import Model, TextModel
from ridgeline_service.serving.llm.simulated import simulated_object
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer
from ridgeline_service.serving.llm.tools.calls import CallDelta
from ridgeline_service.serving.llm.tools.parsing import Delta


class UsageTold(Enum):
    """Where a stream tells the usage of its request."""

    NEVER = "never"
    LAST = "in its last chunk"
    THROUGHOUT = "in every chunk, so far"

    def beside(self, usages: Callable[[], Sequence[Usage]], n: int) -> dict[str, object]:
        """What a chunk with choices says of it; ``usages`` of all sequences so far."""
        if self is UsageTold.NEVER:
            return {}
        throughout = self is UsageTold.THROUGHOUT
        return {"usage": usage_object(total_usage(usages(), n)) if throughout else None}


def usage_object(usage: Usage) -> dict[str, object]:
    """OpenAI's, and under "ridgeline" what one sequence would have taken where that is known."""
    simulated = usage.simulated
    more = {"ridgeline": simulated_object(simulated, usage.completion_tokens)} if simulated else {}
    return {
        **more,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def model_list(model: Model) -> dict[str, object]:
    """``GET /v1/models`` of a replica: its one model, with the context length as vLLM has it, and
    the LoRA adapters that are loaded on it."""
    own: dict[str, object] = {
        "id": model.name,
        "object": "model",
        "created": int(model.seams.now()),
        "owned_by": "ridgeline",
        "max_model_len": model.limits.max_model_len,
    }
    if not isinstance(model, TextModel):
        return {"object": "list", "data": [own]}
    adapters = [
        {**own, "id": name, "root": model.adapters.get(name, name), "parent": model.name}
        for name in model.engine.stats().adapters
    ]
    return {"object": "list", "data": [own, *adapters]}


def chat_message(
    delta: Delta, new_id: Callable[[], str], *, forced: bool = False
) -> dict[str, object]:
    """``choices[].message`` of a whole answer. Content is null where there are calls alone, and
    where there was to be nothing else."""
    calls: list[dict[str, str]] = []
    for part in delta.calls:
        if part.name is not None:
            calls.append({"name": part.name, "arguments": ""})
        calls[-1]["arguments"] += part.arguments
    content = None if (calls or forced) and not delta.text else delta.text
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{new_id()}", "type": "function", "function": call} for call in calls
        ]
    return message


def call_deltas(calls: Sequence[CallDelta], new_id: Callable[[], str]) -> list[dict[str, object]]:
    """``choices[].delta.tool_calls``: the first of each call has its id and name."""
    made: list[dict[str, object]] = []
    for call in calls:
        part: dict[str, object] = {"index": call.index, "function": {"arguments": call.arguments}}
        if call.name is not None:
            function = {"name": call.name, "arguments": call.arguments}
            part = {
                "index": call.index,
                "id": f"call_{new_id()}",
                "type": "function",
                "function": function,
            }
        made.append(part)
    return made


class Spelling:
    """How log-probabilities name tokens: by their text or, ``by_id``, as vLLM does for
    ``return_tokens_as_token_ids``."""

    def __init__(self, tokenizer: TextTokenizer, *, by_id: bool = False) -> None:
        self._tokenizer = tokenizer
        self._by_id = by_id

    def data(self, token_id: int) -> bytes:
        return self._tokenizer.piece(token_id).data

    def special(self, token_id: int) -> bool:
        return self._tokenizer.piece(token_id).special

    def text(self, token_id: int) -> str:
        """With a mark in place of what is no character by itself."""
        return self._id(token_id) or self.data(token_id).decode(errors="replace")

    def key(self, token_id: int) -> str:
        return self._id(token_id) or self.written(token_id)

    def written(self, token_id: int) -> str:
        """Part of a character as ``bytes:\\xe2\\x82``, so that keys stay distinct."""
        data = self.data(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def _id(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._by_id else ""


def token_ids(tokens: Sequence[Token]) -> list[int]:
    """Of generated tokens, for ``return_token_ids``; the one that ended the text included."""
    return [token.token_id for token in tokens]


def chat_logprobs(tokens: Sequence[Token], spelling: Spelling) -> dict[str, object]:
    """``choices[].logprobs`` of a chat completion: one entry a token, with its exact bytes."""
    content: list[dict[str, object]] = []
    for token in tokens:
        if token.logprobs is None or token.hidden:
            continue
        top = [_chat_token(spelling, *pair) for pair in token.logprobs.top]
        entry = _chat_token(spelling, token.token_id, token.logprobs.logprob)
        content.append({**entry, "top_logprobs": top})
    return {"content": content, "refusal": None}


class CompletionLogprobs:
    """``choices[].logprobs`` of one completion, part by part; offsets count from its beginning."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._offset = 0
        self._reset()

    def prompt(self, token_ids: Sequence[int], scores: Sequence[TokenLogprobs]) -> None:
        """Add an echoed prompt. Nothing comes before its first token, so that has no score."""
        self._add(token_ids[0], None)
        for score in scores:
            self._add(score.token_id, score)

    def tokens(self, tokens: Sequence[Token]) -> None:
        """Add generated tokens."""
        for token in tokens:
            if not token.hidden and token.logprobs is not None:
                self._add(token.token_id, token.logprobs)

    def take(self) -> dict[str, object]:
        """What was added since the last time."""
        made: dict[str, object] = {
            "tokens": self._words,
            "token_logprobs": self._chosen,
            "top_logprobs": self._top,
            "text_offset": self._offsets,
        }
        self._reset()
        return made

    def _reset(self) -> None:
        self._words: list[str] = []
        self._offsets: list[int] = []
        self._chosen: list[float | None] = []
        self._top: list[dict[str, float] | None] = []

    def _add(self, token_id: int, score: TokenLogprobs | None) -> None:
        word = self._spelling.key(token_id)
        self._words.append(word)
        self._offsets.append(self._offset)
        # A special token is written here and has no place in the text.
        width = len(self._spelling.written(token_id))
        self._offset += 0 if self._spelling.special(token_id) else width
        self._chosen.append(None if score is None else written_logprob(score.logprob))
        if score is None:
            self._top.append(None)
            return
        top = {self._spelling.key(other): written_logprob(value) for other, value in score.top}
        top.setdefault(word, written_logprob(score.logprob))
        self._top.append(top)


def _chat_token(spelling: Spelling, token_id: int, logprob: float) -> dict[str, object]:
    return {
        "token": spelling.text(token_id),
        "logprob": written_logprob(logprob),
        "bytes": list(spelling.data(token_id)),
    }
