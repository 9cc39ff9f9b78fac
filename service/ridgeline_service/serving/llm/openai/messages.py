"""The messages of a chat, from OpenAI's form to what a chat template is given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ridgeline_service.serving.llm.errors import BadRequest
from ridgeline_service.serving.llm.fields import Body
from ridgeline_service.serving.llm.model import TextModel


class TextPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    name: str
    arguments: str = "{}"


class ToolCall(BaseModel):
    """A call that the assistant made earlier in the conversation."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BaseModel):
    """One turn. Parts of other kinds than text are not supported."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None

    def for_template(self, param: str) -> dict[str, object]:
        """Raises BadRequest for arguments of a call that are no JSON object."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "\n".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        # Templates may look at extra fields such as name, tool_call_id or reasoning_content.
        message: dict[str, object] = {**(self.model_extra or {}), "role": role, "content": content}
        if self.tool_calls:
            message["tool_calls"] = [
                _call(call, f"{param}.tool_calls.{place}")
                for place, call in enumerate(self.tool_calls)
            ]
        return message


class ConversationBody(Body):
    """How a conversation becomes a prompt: with the beginning of the model's turn, or with
    ``continue_final_message`` up to where the last message breaks off."""

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, object] | None = None

    def text(
        self,
        model: TextModel,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, object]] = (),
    ) -> str:
        """Messages as the model sees them. Raises BadRequest."""
        if self.continue_final_message and self.add_generation_prompt:
            raise BadRequest(
                "continue_final_message and add_generation_prompt cannot both be true.",
                param="continue_final_message",
                hint="Leave out one of the two.",
            )
        turn = not self.continue_final_message and self.add_generation_prompt is not False
        turns = [one.for_template(f"messages.{place}") for place, one in enumerate(messages)]
        variables = {"add_generation_prompt": turn, **(self.chat_template_kwargs or {})}
        text = model.chat_text(turns, variables, tools)
        return _until(text, str(turns[-1]["content"])) if self.continue_final_message else text


def _until(text: str, said: str) -> str:
    """A prompt without what the template puts behind the last message, and with the white space
    at its end if the template leaves it there."""
    place = text.rfind(said.strip())
    if not said.strip() or place < 0:
        raise BadRequest(
            "continue_final_message: the last message says nothing that could be continued.",
            param="continue_final_message",
        )
    kept = text.startswith(said.lstrip(), place)
    return text[: place + len(said.lstrip() if kept else said.strip())]


def refuse_media(messages: object) -> None:
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


def _call(call: ToolCall, param: str) -> dict[str, object]:
    """As templates expect it: arguments are an object there, a text in OpenAI's API."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(
            f"{param}.function.arguments: must be the text of a JSON object.",
            param=f"{param}.function.arguments",
            code="invalid_value",
        )
    made: dict[str, object] = {
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
    return made if call.id is None else {"id": call.id, **made}
