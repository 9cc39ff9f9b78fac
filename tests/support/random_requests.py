"""Random requests to a replica: whole and broken, sensible and not, from one seed.

A request is bytes and how to behave while they are answered; whoever sends it needs no judgement.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from ridgeline_service.serving.llm.openai.chat import ChatBody
from ridgeline_service.serving.llm.openai.completions import CompletionBody
from ridgeline_service.serving.llm.openai.embeddings import EmbeddingBody
from ridgeline_service.serving.llm.openai.tokens import DetokenizeBody, TokenizeBody
from ridgeline_service.serving.llm.parameters import InputsBody, Parameters

Make = Callable[[Random], object]

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
WORDS = (
    "Once upon a time",
    "",
    " ",
    "a" * 300,
    "é",
    "\U0001f600" * 9,
    "\0",
    "<|im_end|>",
    "\ud800",
)


class Manner(Enum):
    """How a client behaves once it has sent what it sends."""

    READS = auto()
    LEAVES_AT_ONCE = auto()
    LEAVES_IN_MID_ANSWER = auto()
    READS_SLOWLY = auto()
    SENDS_HALF = auto()


@dataclass(frozen=True)
class Request:
    raw: bytes
    manner: Manner
    about: str


def text(random: Random) -> str:
    return random.choice(WORDS)


def junk(random: Random, depth: int = 0) -> object:
    """Any JSON value, numbers beyond all bounds and lone surrogates among them."""
    kind = random.randrange(10 if depth < 3 else 8)
    if kind == 8:
        return [junk(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 9:
        names = ("role", "content", "type", "text", "name", "")
        return {random.choice(names): junk(random, depth + 1) for _ in range(random.randrange(4))}
    small, large = random.randrange(-3, 5), random.randrange(-(2**70), 2**70)
    values = (None, True, False, small, large, random.uniform(-2, 2), 1e308, text(random))
    return values[kind]


SENSIBLE: dict[str, Make] = {
    "messages": lambda r: [
        {"role": r.choice(("system", "user", "assistant")), "content": text(r)}
        for _ in range(r.randrange(1, 4))
    ],
    "prompt": lambda r: r.choice(
        (text(r), "Hi", ["a", "b"], [1, 2, 3], [[1, 2], [3]], list(range(40)))
    ),
    "inputs": lambda r: r.choice((text(r), "Hi", ["a", "b"])),
    "input": lambda r: r.choice((text(r), ["a", "b"], [1, 2])),
    "tokens": lambda r: [r.randrange(-1, 300) for _ in range(r.randrange(9))],
    "max_tokens": lambda r: r.randrange(1, 40),
    "max_completion_tokens": lambda r: r.randrange(1, 40),
    "max_new_tokens": lambda r: r.randrange(1, 40),
    "min_tokens": lambda r: r.randrange(0, 5),
    "n": lambda r: r.choice((1, 1, 2, 3, 128)),
    "temperature": lambda r: r.choice((0, 0.5, 1, 2)),
    "top_p": lambda r: r.choice((0.1, 0.9, 1)),
    "top_k": lambda r: r.choice((-1, 0, 1, 20)),
    "min_p": lambda r: r.choice((0, 0.1)),
    "seed": lambda r: r.randrange(1000),
    "stop": lambda r: r.choice(("a", ["b", "c"], ["\n"])),
    "stream": lambda r: r.random() < 0.6,
    "stream_options": lambda r: {"include_usage": True},
    "logprobs": lambda r: r.choice((True, 3)),
    "top_logprobs": lambda r: r.randrange(21),
    "presence_penalty": lambda r: r.uniform(-2, 2),
    "frequency_penalty": lambda r: r.uniform(-2, 2),
    "repetition_penalty": lambda r: r.uniform(0.5, 2),
    "logit_bias": lambda r: {str(r.randrange(288)): r.uniform(-100, 100)},
    "tools": lambda r: [TOOL],
    "tool_choice": lambda r: r.choice(("auto", "none", "required")),
    "response_format": lambda r: r.choice(
        (
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        )
    ),
    "guided_regex": lambda r: r.choice(("[ab]+", "(", "a{1,9}")),
    "guided_choice": lambda r: ["yes", "no"],
    "guided_json": lambda r: SCHEMA,
    "grammar": lambda r: {"type": "regex", "value": "[ab]+"},
    "echo": lambda r: True,
    "details": lambda r: True,
    "ignore_eos": lambda r: True,
    "parameters": lambda r: fields(r, Parameters),
}


def fields(random: Random, body: type) -> dict[str, object]:
    """Some of the fields that a schema has, mostly sensible."""
    names = sorted({*body.model_fields, *body.neutral, *body.harmless})
    chosen = random.sample(names, random.randrange(min(5, len(names))))
    return {name: value(random, name) for name in chosen}


def value(random: Random, name: str) -> object:
    if random.random() < 0.05:
        return junk(random)
    make = SENSIBLE.get(name)
    # Null is what a field that says nothing may always be.
    return None if make is None else make(random)


ROUTES: tuple[tuple[str, type, str], ...] = (
    ("/v1/chat/completions", ChatBody, "messages"),
    ("/v1/completions", CompletionBody, "prompt"),
    ("/invocations", InputsBody, "inputs"),
    ("/invocations", ChatBody, "messages"),
    ("/v1/embeddings", EmbeddingBody, "input"),
    ("/tokenize", TokenizeBody, "prompt"),
    ("/detokenize", DetokenizeBody, "tokens"),
)
OTHERS = (
    "/ping",
    "/metrics",
    "/ridgeline/metrics",
    "/v1/models",
    "/v1/rerank",
    "/score",
    "/nowhere",
)


def request(random: Random, token: str) -> Request:
    """The next one."""
    kind = random.random()
    if kind < 0.03:
        return Request(_no_http(random), Manner.READS, "no HTTP")
    if kind < 0.08:
        method = random.choice(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST"))
        path = random.choice((*OTHERS, *(route for route, _, _ in ROUTES)))
        key = random.choice((token, token, "wrong", ""))
        return Request(_http(method, path, key, b""), Manner.READS, f"{method} {path}")
    path, schema, needed = random.choice(ROUTES)
    if kind < 0.18:
        body = _no_json(random)
        about = f"{path} {body[:60]!r}"
    else:
        document = fields(random, schema)
        if random.random() < 0.97:
            document[needed] = value(random, needed)
        body = json.dumps(document).encode()
        about = f"{path} {body[:2000].decode()}"
    raw = _http("POST", path, token, body)
    manner = random.choices(tuple(Manner), (70, 6, 10, 8, 6))[0]
    if manner is Manner.SENDS_HALF:
        raw = raw[: random.randrange(len(raw))]
    return Request(raw, manner, f"{manner.name} {about}")


def _http(method: str, path: str, token: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Ridgeline-Token: {token}"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _no_http(random: Random) -> bytes:
    return random.choice(
        (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
            random.randbytes(200),
        )
    )


def _no_json(random: Random) -> bytes:
    """Bodies that are no JSON object, or that no parser likes."""
    kind = random.randrange(12)
    if kind == 0 and random.random() < 0.1:
        return b'{"prompt": "' + b"x" * (33 * 2**20) + b'"}'
    return (
        b'{"prompt": "' + b"long " * 60_000 + b'"}',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\\ud800\\udc00\\ud800"}',
        b'{"prompt": NaN, "temperature": Infinity}',
        b"[" * 100_000,
        b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}",
        b'{"prompt": "a", "prompt": "b", "max_tokens": 2}',
        b"null",
        b'"text"',
        b"",
        random.randbytes(random.randrange(1, 500)),
    )[kind]
