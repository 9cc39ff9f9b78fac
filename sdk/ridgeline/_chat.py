"""Chat over InvokeEndpoint: the request body, and the text in the answers of LLM images.

LMI, TGI and vLLM images answer in the OpenAI form or in their own, whole or as lines (JSON lines or
server-sent events). Text is found in each of them here, once. Opens no connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ridgeline._translate import error_from
from ridgeline.errors import InvalidInput, InvocationFailed

Message = Mapping[str, Any]


def chat_body(
    messages: str | Sequence[Message],
    *,
    system: str | None,
    stream: bool,
    options: Mapping[str, Any],
) -> bytes:
    """The JSON body of a chat request; options that are None are left to the model."""
    if isinstance(messages, str):
        turns: list[Message] = [{"role": "user", "content": messages}]
    else:
        turns = list(messages)
    for turn in turns:
        if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
            raise InvalidInput(
                f"A message must have 'role' and 'content', got {turn!r}.",
                hint='Like {"role": "user", "content": "Hello"}; one string will do as well.',
            )
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    body: dict[str, Any] = {"messages": turns}
    if stream:
        body["stream"] = True
    body.update((name, value) for name, value in options.items() if value is not None)
    return json.dumps(body).encode()


def whole_text(data: bytes) -> str:
    """The text of a whole answer. Raises InvocationFailed if there is none in it."""
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    _raise_error(body)
    text = _text_of(body, delta=False)
    if text is None:
        raise InvocationFailed(
            f"The answer holds no text; it begins with {data[:200].decode(errors='replace')!r}.",
            hint="Is this endpoint a text-generation model? predict() gives the raw answer.",
        )
    return text


def streamed_text(parts: Iterable[bytes]) -> Iterator[str]:
    """The pieces of text in a stream, as they come.

    Raises InvocationFailed (or what the code says) if an error comes within the stream, or if the
    stream held something, but no text at all.
    """
    found = False
    first = b""
    for line in _lines(parts):
        first = first or line
        try:
            event = json.loads(line)
        except ValueError:
            continue
        _raise_error(event)
        text = _text_of(event, delta=True)
        if text is not None:
            found = True
            if text:
                yield text
    if first and not found:
        whole_text(first)


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a stream that is cut anywhere, without the framing of server-sent events."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            if (kept := _payload(line)) is not None:
                yield kept
    if (kept := _payload(rest)) is not None:
        yield kept


def _payload(line: bytes) -> bytes | None:
    line = line.strip()
    if line.startswith(b"data:"):
        line = line[5:].strip()
    elif line.startswith((b":", b"event:", b"id:", b"retry:")):
        return None
    return line if line and line != b"[DONE]" else None


def _text_of(event: Any, *, delta: bool) -> str | None:
    if isinstance(event, list) and event:
        event = event[0]
    if not isinstance(event, Mapping):
        return None
    choices = event.get("choices")
    if isinstance(choices, list):
        if not choices:
            return ""
        choice = choices[0]
        turn = choice.get("delta") if delta and "delta" in choice else choice.get("message")
        if isinstance(turn, Mapping):
            return str(turn.get("content") or "")
        return str(choice["text"]) if "text" in choice else None
    token = event.get("token")
    if delta and isinstance(token, Mapping):
        return "" if token.get("special") else str(token.get("text", ""))
    if "generated_text" in event:
        return str(event["generated_text"] or "")
    return None


def _raise_error(event: Any) -> None:
    if not isinstance(event, Mapping) or not event.get("error"):
        return
    error = event["error"]
    if isinstance(error, Mapping):
        raise error_from(
            str(error.get("code") or "ModelError"),
            str(error.get("message") or error),
            424,
            hint=str(error.get("hint") or ""),
        )
    raise InvocationFailed(str(error))
