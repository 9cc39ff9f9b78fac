"""OpenAI's and vLLM's clients whose base URL has no /v1: never answered in the words of S3."""

from __future__ import annotations

import json

import openai
import pytest
from aiohttp import web

from .conftest import BEARER, World, route
from .test_openai import CHAT, call


@pytest.mark.parametrize("path", ["/chat/completions", "/embeddings", "/v1", "/"])
def test_a_bearer_key_never_reaches_the_object_store(world: World, path: str) -> None:
    world.start_gateway()
    for body in (None, b"{}"):
        status, said = call(world.url + path, body)
        assert (status, said["error"]["code"]) == (404, "unknown_url")
        assert f" {path}. " in said["error"]["message"]
        assert "base URL ends in /v1" in said["error"]["message"]
    status, said = call(world.url + path, b"{}", key="rl-wrong")
    assert (status, said["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("path", ["/health", "/ping", "/version"])
def test_whoever_asks_for_health_elsewhere_is_told_where_it_is(world: World, path: str) -> None:
    world.start_gateway()
    for body in (None, b"{}"):
        status, said = call(world.url + path, body)
        assert (status, said["error"]["code"]) == (404, "unknown_url")
        assert "GET /healthz" in said["error"]["message"]
        assert "base URL" not in said["error"]["message"]


@pytest.mark.parametrize("base", ["//v1", "/v1/v1", "/v1//v1"])
def test_a_base_url_with_too_much_in_it(world: World, base: str) -> None:
    world.start_gateway()
    status, said = call(f"{world.url}{base}/chat/completions", b"{}")
    assert (status, said["error"]["code"]) == (404, "unknown_url")
    assert "base URL ends in one /v1, after one slash" in said["error"]["message"]


def test_the_openai_client_says_where_the_api_is(world: World) -> None:
    world.start_gateway()
    client = openai.OpenAI(base_url=world.url, api_key=BEARER, max_retries=0)
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.chat.completions.create(model="smol", messages=CHAT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/rerank", "/v1/rerank"),
        ("/v2/rerank", "/v1/rerank"),
        ("/score", "/v1/score"),
        ("/tokenize", "/v1/tokenize"),
        ("/detokenize", "/v1/detokenize"),
    ],
)
def test_routes_that_vllm_has_beside_v1(world: World, path: str, asked: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"asked": request.path})

    world.publish(route("ranks", world.replica(answer), task="text-ranking"))
    world.start_gateway()
    body = json.dumps({"model": "ranks", "prompt": "x"}).encode()
    assert call(world.url + path, body) == (200, {"asked": asked})
