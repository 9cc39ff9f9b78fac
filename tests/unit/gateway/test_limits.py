"""Limits of a key: 429 with OpenAI's headers, tokens as they were used, both ways of signing."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import openai
import pytest
from aiohttp import web
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.gateway.limits import duration
from ridgeline_service.replica_protocol import USAGE_HEADER, USAGE_MARK, Usage
from ridgeline_service.snapshot import KeyLimits

from .conftest import BEARER, KEY, World, route

CHAT = [{"role": "user", "content": "hi"}]


@dataclass
class Model:
    """A replica that uses ``used`` tokens a request, and says so to whoever asks."""

    used: Usage = field(default_factory=lambda: Usage(10, 20))
    status: int = 200
    asked: list[bool] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        asks = USAGE_HEADER in request.headers
        self.asked.append(asks)
        said = self.used.encoded() if asks else b""
        body = json.loads(await request.read())
        if not body.get("stream"):
            headers = {USAGE_HEADER: said.decode()} if asks else {}
            answer = {"id": "c", "object": "chat.completion", "model": "m", "choices": []}
            return web.json_response(answer, headers=headers, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": []}\n\n')
        if body.get("user") == "break":
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(b"data: [DONE]\n\n" + (USAGE_MARK + said[:9] if asks else b""))
        await response.write(said[9:])
        return response


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Limited:
    """A gateway whose key has limits."""

    world: World
    model: Model
    clock: Clock

    def limit(self, requests: int | None = None, tokens: int | None = None) -> None:
        limits = (KeyLimits("key-1", KEY.access_key_id, requests, tokens),)
        self.world.snapshot = replace(self.world.snapshot, limits=limits)
        self.world.publish(*self.world.snapshot.endpoints.values())

    def chat(self, **more: object) -> tuple[int, Mapping[str, str], Any]:
        body = json.dumps({"model": "smol", "messages": CHAT, **more}).encode()
        url = f"{self.world.url}/v1/chat/completions"
        headers = {"Authorization": f"Bearer {BEARER}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def left(self, what: str = "tokens") -> int:
        """Of a request that uses nothing."""
        self.model.used = Usage(0, 0)
        return int(self.chat()[1][f"x-ratelimit-remaining-{what}"])


@pytest.fixture
def limited(world: World) -> Limited:
    model, clock = Model(), Clock()
    world.publish(route("smol", world.replica(model), task="text-generation"))
    world.start_gateway(clock=clock)
    return Limited(world, model, clock)


def test_a_key_without_limits_is_told_nothing_of_them(limited: Limited) -> None:
    status, headers, _ = limited.chat()
    assert status == 200
    assert not [name for name in headers if name.lower().startswith("x-ratelimit")]
    assert limited.model.asked == [False]


def test_requests_per_minute(limited: Limited) -> None:
    limited.limit(requests=2)
    _, headers, _ = limited.chat()
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"] == "30s"
    assert limited.chat()[0] == 200
    status, headers, body = limited.chat()
    error = json.loads(body)["error"]
    assert status == 429
    assert headers["retry-after"] == "30"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    for said in ("key-1", "requests per minute", "Limit 2", "current 2", "30s", "1m0s"):
        assert said in error["message"]
    limited.clock.now += 29.9
    assert limited.chat()[0] == 429
    limited.clock.now += 0.2
    assert limited.chat()[0] == 200


def test_only_inference_is_limited(limited: Limited) -> None:
    limited.limit(requests=1)
    with openai.OpenAI(base_url=f"{limited.world.url}/v1", api_key=BEARER) as client:
        for _ in range(3):
            assert [model.id for model in client.models.list()] == ["smol"]
    assert limited.chat()[0] == 200


def test_the_openai_client_knows_the_error(limited: Limited) -> None:
    limited.limit(requests=1)
    limited.chat()
    url = f"{limited.world.url}/v1"
    client = openai.OpenAI(base_url=url, api_key=BEARER, max_retries=0)
    with client, pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model="smol", messages=CHAT)  # type: ignore[arg-type]
    assert raised.value.code == "rate_limit_exceeded"


def test_a_key_is_one_however_it_signs(limited: Limited) -> None:
    limited.limit(requests=2)
    runtime = limited.world.client("sagemaker-runtime")
    runtime.invoke_endpoint(EndpointName="smol", Body=b"{}", ContentType="application/json")
    assert limited.chat()[0] == 200
    for call in (runtime.invoke_endpoint, runtime.invoke_endpoint_with_response_stream):
        with pytest.raises(ClientError) as raised:
            call(EndpointName="smol", Body=b"{}", ContentType="application/json")
        answer = raised.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert answer["Error"]["Code"] == "ThrottlingException", "which AWS's clients retry"
        assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "30"


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_count_as_they_were_used(limited: Limited, stream: bool) -> None:
    limited.limit(tokens=1000)
    status, _, body = limited.chat(stream=stream)
    assert status == 200
    assert USAGE_MARK not in body
    assert b"completion_tokens" not in body
    estimate = len(json.dumps({"model": "smol", "messages": CHAT})) // 4
    assert limited.left() == 1000 - 30 - estimate


def test_a_key_may_overdraw_and_waits_for_it(limited: Limited) -> None:
    limited.limit(tokens=600)
    limited.model.used = Usage(100, 800)
    assert limited.chat()[0] == 200
    status, headers, body = limited.chat()
    error = json.loads(body)["error"]
    assert (status, error["type"]) == (429, "tokens")
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    # 300 in debt, and about 13 wanted, at 10 a second.
    assert int(headers["retry-after"]) == 32
    limited.clock.now += 32
    assert limited.chat()[0] == 200


def test_what_a_request_asks_for_is_set_aside(limited: Limited) -> None:
    limited.limit(tokens=100)
    _, headers, _ = limited.chat(max_tokens=40, n=2)
    assert int(headers["x-ratelimit-remaining-tokens"]) < 10
    assert limited.left() > 50, "what was not used came back"
    assert limited.chat(max_tokens=10**9)[0] == 429, "it needs all of a minute's"
    limited.clock.now += 60
    assert limited.chat(max_tokens=10**9)[0] == 200


def test_a_refusal_of_the_model_costs_no_tokens(limited: Limited) -> None:
    limited.limit(tokens=1000)
    limited.model.status = 400
    limited.model.used = Usage(0, 0)
    limited.chat(max_tokens=500)
    assert limited.left() > 970


def test_a_stream_that_breaks_costs_what_was_set_aside(limited: Limited) -> None:
    limited.limit(tokens=1000)
    limited.chat(stream=True, user="break", max_tokens=500)
    assert limited.left() < 500


def test_refusals_are_counted(limited: Limited) -> None:
    limited.limit(requests=1)
    limited.chat()
    limited.chat()
    request = urllib.request.Request(
        f"{limited.world.url}/metrics", headers={"Authorization": f"Bearer {BEARER}"}
    )
    with urllib.request.urlopen(request) as answer:
        assert 'ridgeline_rate_limited_total{limit="requests"} 1.0' in answer.read().decode()


def test_limits_change_with_the_snapshot(limited: Limited) -> None:
    limited.limit(requests=1)
    assert [limited.chat()[0] for _ in range(2)] == [200, 429]
    limited.world.snapshot = replace(limited.world.snapshot, limits=())
    limited.world.publish(*limited.world.snapshot.endpoints.values())
    assert limited.chat()[0] == 200


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (1.52, "1.6s"), (59.96, "1m0s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_does(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.binary() | st.from_regex(r'\{"prompt_tokens": .*\}').map(str.encode))
def test_a_container_may_say_what_it_likes(raw: bytes) -> None:
    said = Usage.decoded(raw)
    assert said is None or said.total >= 0
