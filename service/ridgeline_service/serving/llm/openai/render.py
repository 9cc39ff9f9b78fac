"""The pieces that OpenAI's answers are made of."""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline_service.serving.llm.generation import Token, Usage
from ridgeline_service.serving.llm.text.tokenizer import TextTokenizer


def usage_object(usage: Usage) -> dict[str, object]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def chat_logprobs(tokens: Sequence[Token], tokenizer: TextTokenizer) -> dict[str, object]:
    """``choices[].logprobs`` of a chat completion: one entry a token, with its exact bytes."""
    content: list[dict[str, object]] = []
    for token in tokens:
        if token.logprobs is None or token.hidden:
            continue
        top = [_chat_token(tokenizer, *pair) for pair in token.logprobs.top]
        entry = _chat_token(tokenizer, token.token_id, token.logprobs.logprob)
        content.append({**entry, "top_logprobs": top})
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokens: Sequence[Token], tokenizer: TextTokenizer, offset: int
) -> tuple[dict[str, object], int]:
    """``choices[].logprobs`` of a completion, and the text offset where the next part begins."""
    shown = [token for token in tokens if not token.hidden and token.logprobs is not None]
    words, offsets, chosen, alternatives = [], [], [], []
    for token in shown:
        if token.logprobs is None:
            continue
        word = _written(tokenizer, token.token_id)
        words.append(word)
        offsets.append(offset)
        offset += len(word)
        chosen.append(token.logprobs.logprob)
        top = {_written(tokenizer, other): value for other, value in token.logprobs.top}
        top.setdefault(word, token.logprobs.logprob)
        alternatives.append(top)
    made: dict[str, object] = {
        "tokens": words,
        "token_logprobs": chosen,
        "top_logprobs": alternatives,
        "text_offset": offsets,
    }
    return made, offset


def _chat_token(tokenizer: TextTokenizer, token_id: int, logprob: float) -> dict[str, object]:
    data = tokenizer.piece(token_id).data
    return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}


def _written(tokenizer: TextTokenizer, token_id: int) -> str:
    """A token as text; part of a character as ``bytes:\\xe2\\x82``, so that keys stay distinct."""
    data = tokenizer.piece(token_id).data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
