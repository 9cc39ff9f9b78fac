"""How long the requests of a sample payload are, in tokens.

A payload is an archive (.tar.gz) of requests, or one request: a JSON body as endpoints take it
(messages, a prompt, or inputs), or text. Tokens are counted by the model's own tokenizer where its
files have one, else taken to be of four characters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean

from ridgeline_service.control.command_jobs.archives import files_of
from ridgeline_service.control.command_jobs.life import CommandFailed
from ridgeline_service.objects.reading import S3Reader

_CHARACTERS = 4
_LIMIT_BYTES = 8 << 20
_ANSWERS = ("max_tokens", "max_completion_tokens", "max_new_tokens")


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and of its answer, None where the sample does not say; of an encoder's
    request each of its `texts` has as many as a prompt."""

    prompt: int | None = None
    answer: int | None = None
    texts: int = 1


def payload_lengths(
    reader: S3Reader,
    uri: str,
    count: Callable[[str], int] | None,
    check: Callable[[], None] = lambda: None,
) -> Lengths:
    """The means over all requests of the payload. What ``check`` raises ends the reading. Raises
    S3Failed and CommandFailed."""
    found = [_request(body) for body in _bodies(reader, uri, check)]
    if not found:
        raise CommandFailed(f"ClientError: the sample payload {uri} holds no request.")
    size = count or (lambda text: len(text) // _CHARACTERS)
    answers = [answer for _, answer in found if answer]
    texts = [text for own, _ in found for text in own]
    return Lengths(
        prompt=max(1, round(mean(map(size, texts)))),
        answer=max(1, round(mean(answers))) if answers else None,
        texts=max(1, round(len(texts) / len(found))),
    )


def _bodies(reader: S3Reader, uri: str, check: Callable[[], None]) -> Iterator[bytes]:
    if not uri.endswith((".tar.gz", ".tgz")):
        yield reader.read(uri)
        return
    for name, file in files_of(reader, uri, "sample payloads", check):
        if not name.startswith("."):
            yield file.read(_LIMIT_BYTES)


def _request(body: bytes) -> tuple[list[str], int]:
    """A prompt, or the texts to encode, and the tokens of an answer; 0: not said."""
    text = body.decode(errors="replace")
    try:
        given = json.loads(text)
    except ValueError:
        return [text], 0
    if not isinstance(given, dict):
        return [text], 0
    parameters = given.get("parameters")
    settings = {**given, **(parameters if isinstance(parameters, dict) else {})}
    asked = [settings[name] for name in _ANSWERS if type(settings.get(name)) is int]
    return _texts(given) or [text], asked[0] if asked else 0


def _texts(given: Mapping[str, object]) -> list[str]:
    messages = given.get("messages")
    if isinstance(messages, list):
        contents = [one.get("content") for one in messages if isinstance(one, dict)]
        return ["\n".join(one for one in contents if isinstance(one, str))]
    query = given.get("query")
    if isinstance(query, str):
        # A cross-encoder reads the two together.
        judged = _strings(given.get("documents", given.get("texts")))
        return [f"{query} {one}" for one in judged]
    for name in ("prompt", "inputs", "input"):
        value = given.get(name)
        if isinstance(value, str):
            return [value]
        if found := _strings(value):
            return found
    return []


def _strings(value: object) -> list[str]:
    """Of a list of texts, or of objects that hold one each."""
    listed = value if isinstance(value, list) else []
    texts = [one.get("text") if isinstance(one, dict) else one for one in listed]
    return [one for one in texts if isinstance(one, str)]
