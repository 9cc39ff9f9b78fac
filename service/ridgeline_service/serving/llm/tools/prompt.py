"""Telling a model of tools when its chat template cannot.

The words are those of the Hermes format, which most models have seen: the calls that they ask for
are what `Family.HERMES` reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ridgeline_service.serving.llm.text.template import Message

_INTRODUCTION = (
    "You can call functions to help with the user's request. These are their signatures, inside "
    "<tools></tools>:"
)
_MANNER = (
    "For each call, answer with a JSON object of the function's name and its arguments inside "
    "<tool_call></tool_call>, like this:\n"
    '<tool_call>\n{"name": "function", "arguments": {"argument": "value"}}\n</tool_call>\n'
    "The results come inside <tool_response></tool_response>. If no function is of help, answer "
    "in plain words."
)


def with_tools(
    messages: Sequence[Message], tools: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """The conversation in plain turns: tools in the system message, calls and results as text."""
    plain = [_plain(message) for message in messages]
    if not tools:
        return plain
    block = system_block(tools)
    if plain and plain[0]["role"] == "system":
        given = str(plain[0]["content"])
        return [{**plain[0], "content": f"{given}\n\n{block}" if given else block}, *plain[1:]]
    return [{"role": "system", "content": block}, *plain]


def system_block(tools: Sequence[Mapping[str, object]]) -> str:
    lines = [json.dumps(tool, ensure_ascii=False) for tool in tools]
    return "\n".join([_INTRODUCTION, "<tools>", *lines, "</tools>", _MANNER])


def _plain(message: Message) -> dict[str, object]:
    if message["role"] == "tool":
        return {
            "role": "user",
            "content": f"<tool_response>\n{message['content']}\n</tool_response>",
        }
    calls = message.get("tool_calls")
    kept = {name: value for name, value in message.items() if name != "tool_calls"}
    if not isinstance(calls, list):
        return kept
    written = [
        f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"
        for call in calls
    ]
    return {**kept, "content": "\n".join([*filter(None, [str(message["content"])]), *written])}
