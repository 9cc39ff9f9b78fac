"""Streams completions from an OpenAI-compatible server in a closed loop, and times their pieces.

    .venv/bin/python tests/bench/load.py http://127.0.0.1:8000/v1 MODEL --tokenizer MODEL_DIR

The client shares the cores with the server it measures, so while it runs it only stamps the bytes
that arrive; HTTP and JSON are read afterwards. A connection is opened for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from figures import Figures, RequestTimes, figures
from workload import Prompts, Workload

REQUEST_TIMEOUT_S = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where to send: the base URL up to /v1, the model's name, headers (a key, a token), and what
    every request says besides."""

    url: str
    model: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, object] = dataclasses.field(default_factory=dict)


def run_workload(target: Target, workload: Workload, prompts: Prompts) -> Figures:
    """Raises RunFailed when a request is refused or answered short."""
    bodies = [_body(target, prompts.text(ids), workload.max_tokens) for ids in workload.prompts]
    requests, wall_s = uvloop.run(_closed_loop(target, bodies, workload.concurrency))
    return figures(requests, wall_s, workload.max_tokens)


def _body(target: Target, prompt: str, max_tokens: int) -> bytes:
    return json.dumps(
        {
            "model": target.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **target.fields,
        }
    ).encode()


async def _closed_loop(
    target: Target, bodies: list[bytes], concurrency: int
) -> tuple[list[RequestTimes], float]:
    waiting = bodies[::-1]
    answers: list[_Answer] = []

    async def client() -> None:
        while waiting:
            answers.append(await _send(target, waiting.pop()))

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    wall_s = time.perf_counter() - started
    return [read_answer(answer.sent, answer.pieces) for answer in answers], wall_s


class _Answer(asyncio.Protocol):
    """Keeps every piece of the answer with the time it came, until the server closes."""

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.pieces: list[tuple[float, bytes]] = []
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


async def _send(target: Target, body: bytes) -> _Answer:
    parts = urlsplit(target.url)
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **target.headers,
    }
    head = f"POST {parts.path}/completions HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in headers.items()
    )
    sent = time.perf_counter()
    transport, answer = await asyncio.get_running_loop().create_connection(
        lambda: _Answer(sent), parts.hostname, parts.port
    )
    transport.write(head.encode() + b"\r\n" + body)
    try:
        await asyncio.wait_for(answer.closed, REQUEST_TIMEOUT_S)
    finally:
        transport.close()
    return answer


def read_answer(sent: float, pieces: list[tuple[float, bytes]]) -> RequestTimes:
    """What a recorded answer holds: the time of each event with text, and the tokens of its usage.

    A server that reports no usage is taken to send one token an event.
    """
    raw = b"".join(data for _, data in pieces)
    head, _, _ = raw.partition(b"\r\n\r\n")
    status, _, fields = head.partition(b"\r\n")
    if status.split(b" ")[1:2] != [b"200"]:
        return RequestTimes(sent, (), 0, raw[:400].decode(errors="replace") or "no answer")
    arrivals: list[float] = []
    tokens = 0
    chunked = b"transfer-encoding: chunked" in fields.lower()
    for arrived, event in _events(raw, len(head) + 4, chunked, pieces):
        if event.get("error"):
            return RequestTimes(sent, (), 0, json.dumps(event["error"]))
        if any(choice.get("text") for choice in event.get("choices") or ()):
            arrivals.append(arrived)
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return RequestTimes(sent, tuple(arrivals), tokens or len(arrivals))


def _events(
    raw: bytes, start: int, chunked: bool, pieces: list[tuple[float, bytes]]
) -> Iterator[tuple[float, dict]]:
    """Every JSON event of the stream, with the time at which its last byte came."""
    ends = _end_times(pieces)
    end_of_piece, arrived = next(ends)
    line = b""
    for end, payload in _chunks(raw, start) if chunked else _as_it_came(raw, start, pieces):
        while end_of_piece < end:
            end_of_piece, arrived = next(ends)
        *whole, line = (line + payload).split(b"\n")
        for text in whole:
            data = text.strip().removeprefix(b"data:").strip()
            if text.startswith(b"data:") and data != b"[DONE]":
                yield arrived, json.loads(data)


def _end_times(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[int, float]]:
    end = 0
    for arrived, data in pieces:
        end += len(data)
        yield end, arrived


def _chunks(raw: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Each chunk of a chunked body with the offset in ``raw`` at which it ends."""
    while start < len(raw):
        size_end = raw.index(b"\r\n", start)
        size = int(raw[start:size_end].split(b";")[0], 16)
        if size == 0:
            return
        end = size_end + 2 + size
        yield end, raw[size_end + 2 : end]
        start = end + 2


def _as_it_came(
    raw: bytes, start: int, pieces: list[tuple[float, bytes]]
) -> Iterator[tuple[int, bytes]]:
    for end, _ in _end_times(pieces):
        if end > start:
            yield end, raw[start:end]
            start = end


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure an OpenAI-compatible server.")
    parser.add_argument("url", help="the base up to /v1")
    parser.add_argument("model")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="MODEL_DIR")
    parser.add_argument("-c", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--per-client", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-shared", action="store_true")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    arguments = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in arguments.header)
    target = Target(arguments.url.rstrip("/"), arguments.model, headers)
    prompts = Prompts.of(arguments.tokenizer, seed=time.time_ns())
    run_workload(target, prompts.warm_up(), prompts)
    for _ in range(arguments.repeat):
        workloads = [prompts.main(count, arguments.per_client) for count in arguments.c]
        for workload in workloads + ([] if arguments.no_shared else [prompts.shared()]):
            result = run_workload(target, workload, prompts)
            print(json.dumps({"work": workload.name, **dataclasses.asdict(result)}), flush=True)


if __name__ == "__main__":
    main()
