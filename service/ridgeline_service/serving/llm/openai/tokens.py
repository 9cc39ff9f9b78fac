"""``/tokenize`` and ``/detokenize``, in vLLM's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Len

from ridgeline_service.serving.llm.answers import Answer, json_answer
from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.model import Model, TextModel
from ridgeline_service.serving.llm.openai.messages import (
    ChatMessage,
    ConversationBody,
    refuse_media,
)
from ridgeline_service.serving.llm.tools.definitions import Tools

MAX_TOKENS = 2**20
"""Tokens in a request to spell them."""


class TokenizeBody(ConversationBody):
    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Len(min_length=1)] | None = None
    tools: Tools | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    model: str | None = None
    tokens: Annotated[list[int], Len(max_length=MAX_TOKENS)]


async def tokenize(model: Model, body: Mapping[str, object]) -> Answer:
    """The tokens of a prompt, or of a conversation as the model would see it. A prompt gets its
    special tokens unless ``add_special_tokens`` is false, a conversation's are in its template."""
    refuse_media(body.get("messages"))
    request = TokenizeBody.read(body)
    if (request.prompt is None) == (request.messages is None):
        raise BadRequest("Send either prompt or messages.", param="prompt")
    if request.messages is None:
        text, special = request.prompt or "", request.add_special_tokens is not False
    else:
        if not isinstance(model, TextModel):
            raise BadRequest(
                f"{model.name} is an embedding model and takes no messages.", param="messages"
            )
        declared = [tool.model_dump(exclude_none=True) for tool in request.tools or ()]
        text = request.text(model, request.messages, declared)
        special = bool(request.add_special_tokens)
    [ids] = await model.encode_unchecked([text], add_special_tokens=special)
    return json_answer(
        {
            "count": len(ids),
            "max_model_len": model.limits.max_model_len,
            "tokens": ids,
            "token_strs": [
                model.tokenizer.piece(token_id).data.decode(errors="replace") for token_id in ids
            ]
            if request.return_token_strs
            else None,
        }
    )


async def detokenize(model: Model, body: Mapping[str, object]) -> Answer:
    """The text of tokens, special ones included."""
    request = DetokenizeBody.read(body)
    model.check_ids(request.tokens, "tokens")
    return json_answer({"prompt": model.tokenizer.decode(request.tokens, special=True)})
