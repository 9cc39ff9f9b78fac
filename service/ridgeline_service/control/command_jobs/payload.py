"""How long the requests of a sample payload are, in tokens.

A payload is an archive (.tar.gz) of requests, or one request: a JSON body as endpoints take it
(messages, a prompt, or inputs), or text. Tokens are counted by the model's own tokenizer where its
files have one, else taken to be of four characters.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from ridgeline_service.control.command_jobs.life import CommandFailed
from ridgeline_service.objects.reading import S3Reader, parse_uri

PROMPT, ANSWER = 512, 128
"""Tokens of a request that nobody gave a sample of."""

_CHARACTERS = 4
_LIMIT_BYTES = 8 << 20
_ANSWERS = ("max_tokens", "max_completion_tokens", "max_new_tokens")


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and of its answer."""

    prompt: int = PROMPT
    answer: int = ANSWER


def payload_lengths(reader: S3Reader, uri: str, count: Callable[[str], int] | None) -> Lengths:
    """The means over all requests of the payload. Raises S3Failed and CommandFailed."""
    found = [_request(body) for body in _bodies(reader, uri)]
    if not found:
        raise CommandFailed(f"ClientError: the sample payload {uri} holds no request.")
    size = count or (lambda text: len(text) // _CHARACTERS)
    answers = [answer for _, answer in found if answer]
    return Lengths(
        prompt=max(1, round(mean(size(text) for text, _ in found))),
        answer=max(1, round(mean(answers))) if answers else ANSWER,
    )


def _bodies(reader: S3Reader, uri: str) -> Iterator[bytes]:
    if not uri.endswith((".tar.gz", ".tgz")):
        yield reader.read(uri)
        return
    bucket, key = parse_uri(uri)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "payload.tar.gz"
        reader.download(bucket, key, archive, lambda count: None)
        try:
            with tarfile.open(archive) as packed:
                for member in packed:
                    file = packed.extractfile(member) if member.isfile() else None
                    if file is not None and not Path(member.name).name.startswith("."):
                        yield file.read(_LIMIT_BYTES)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise CommandFailed(
                f"ClientError: {uri} is no archive (.tar.gz) of sample payloads: {error}."
            ) from error


def _request(body: bytes) -> tuple[str, int]:
    """The text of a prompt, and the tokens of its answer; 0: not said."""
    text = body.decode(errors="replace")
    try:
        given = json.loads(text)
    except ValueError:
        return text, 0
    if not isinstance(given, dict):
        return text, 0
    parameters = given.get("parameters")
    settings = {**given, **(parameters if isinstance(parameters, dict) else {})}
    asked = [settings[name] for name in _ANSWERS if type(settings.get(name)) is int]
    return _prompt(given, text), asked[0] if asked else 0


def _prompt(given: Mapping[str, object], text: str) -> str:
    messages = given.get("messages")
    if isinstance(messages, list):
        contents = [one.get("content") for one in messages if isinstance(one, dict)]
        return "\n".join(one for one in contents if isinstance(one, str))
    for name in ("prompt", "inputs"):
        value = given.get(name)
        if isinstance(value, str):
            return value
    return text
