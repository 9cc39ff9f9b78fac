"""The OpenAI routes through the unmodified openai client."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from aiohttp import web

from ridgeline_service.gateway.routing import Limits

from .conftest import BEARER, World, route

CHAT = [{"role": "user", "content": "hi"}]


async def chat(request: web.Request) -> web.StreamResponse:
    asked = json.loads(await request.read())
    if not asked.get("stream"):
        message = {"role": "assistant", "content": f"from {asked['model']}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(
            {"id": "c", "object": "chat.completion", "model": asked["model"], "choices": [choice]}
        )
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for word in ("one", "two"):
        await response.write(event(word))
    await response.write(b"data: [DONE]\n\n")
    return response


def event(word: str) -> bytes:
    choice = {"index": 0, "delta": {"content": word}}
    chunk = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def call(url: str, body: bytes | None, key: str = BEARER) -> tuple[int, Any]:
    """Status and JSON of a plain request; without a body it is a GET."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def served(world: World) -> Iterator[openai.OpenAI]:
    world.publish(
        route("smol", world.replica(chat), task="text-generation"),
        route("mini", world.replica(chat), task="text-embedding"),
        route("plain", world.replica(chat)),
        route("soon", world.replica(chat), task="text-generation", status="Creating"),
    )
    world.start_gateway()
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0) as client:
        yield client


def test_models(served: openai.OpenAI) -> None:
    assert [model.id for model in served.models.list()] == ["mini", "smol", "soon"]
    assert served.models.retrieve("smol").created == 1_700_000_000
    with pytest.raises(openai.NotFoundError, match="Did you mean 'smol'"):
        served.models.retrieve("smoll")


def test_models_tell_what_their_replicas_take(world: World) -> None:
    async def tells(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "model", "max_model_len": 2048}]})

    async def silent(request: web.Request) -> web.Response:
        return web.Response(status=503)

    telling = world.replica(tells)
    world.publish(
        route("a", telling, task="text-generation"),
        route("b", world.replica(silent), task="text-generation"),
        route("c", task="text-generation"),
    )
    world.start_gateway()
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0) as client:
        for _ in range(2):
            told = {model.id: model.max_model_len for model in client.models.list()}
            assert told == {"a": 2048, "b": None, "c": None}
        assert client.models.retrieve("a").max_model_len == 2048
    assert len(telling.seen) == 1, "an answer is kept"


def test_adapters_are_named_behind_their_endpoint(world: World) -> None:
    async def replica(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return await chat(request)
        own = {"id": "base", "max_model_len": 64}
        return web.json_response({"data": [own, {**own, "id": "poet", "parent": "base"}]})

    fake = world.replica(replica)
    world.publish(
        route("smol", fake, task="text-generation"),
        route("mini", world.replica(chat), task="text-embedding"),
    )
    world.start_gateway()
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0) as client:
        listed = {model.id: model for model in client.models.list()}
        assert list(listed) == ["mini", "smol", "smol:poet"]
        assert (listed["smol:poet"].parent, listed["smol:poet"].max_model_len) == ("smol", 64)
        assert client.models.retrieve("smol:poet") == listed["smol:poet"]
        with pytest.raises(openai.NotFoundError, match="smol:poet"):
            client.models.retrieve("smol:pot")

        for model in ("smol:poet", "smol:a:b", "smol"):
            answer = client.chat.completions.create(model=model, messages=CHAT)  # type: ignore[arg-type]
            assert answer.model == model
        sent = [json.loads(seen.body) for seen in fake.seen if seen.method == "POST"]
        assert [body.get("adapter") for body in sent] == ["poet", "a:b", None]
        assert all(body["messages"] == CHAT for body in sent)
        with pytest.raises(openai.NotFoundError, match="smol:"):
            client.chat.completions.create(model="smol:", messages=CHAT)  # type: ignore[arg-type]
        with pytest.raises(openai.NotFoundError, match="mini:poet"):
            client.embeddings.create(model="mini:poet", input="x")


def test_chat_and_stream(served: openai.OpenAI) -> None:
    answer = served.chat.completions.create(model="smol", messages=CHAT)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "from smol"
    stream = served.chat.completions.create(
        model="smol",
        messages=CHAT,  # type: ignore[arg-type]
        stream=True,
    )
    assert [chunk.choices[0].delta.content for chunk in stream] == ["one", "two"]


def test_refusals_have_openais_shape(served: openai.OpenAI, world: World) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        served.chat.completions.create(model="smo", messages=CHAT)  # type: ignore[arg-type]
    assert unknown.value.code == "model_not_found"
    assert "Did you mean 'smol'?" in str(unknown.value)
    with pytest.raises(openai.BadRequestError) as task:
        served.chat.completions.create(model="mini", messages=CHAT)  # type: ignore[arg-type]
    assert task.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        served.embeddings.create(model="smol", input="x")
    with pytest.raises(openai.BadRequestError):
        served.completions.create(model="plain", prompt="x")
    with pytest.raises(openai.InternalServerError) as unready:
        served.completions.create(model="soon", prompt="x")
    assert (unready.value.status_code, unready.value.code) == (503, "model_not_ready")
    assert int(unready.value.response.headers["retry-after"]) >= 1
    with pytest.raises(openai.AuthenticationError):
        served.with_options(api_key="wrong").models.list()
    for body in (b"{not json", b"[]", b"{}", b'{"model": 3}', b"[" * 100_000):
        status, said = call(f"{world.url}/v1/completions", body)
        assert (status, said["error"]["type"]) == (400, "invalid_request_error")
    assert call(f"{world.url}/v1/completions", None)[0] == 405
    assert call(f"{world.url}/v1/nothing", b"{}")[0] == 404
    status, said = call(f"{world.url}/v1/models", None, key="")
    assert (status, said["error"]["code"]) == (401, "missing_api_key")


def test_documents_are_ranked_by_models_that_can(served: openai.OpenAI, world: World) -> None:
    for path in ("rerank", "score"):
        body = {"query": "x", "documents": ["y"], "text_1": "x", "text_2": "y"}
        status, _ = call(f"{world.url}/v1/{path}", json.dumps({**body, "model": "mini"}).encode())
        assert status == 200
        status, said = call(
            f"{world.url}/v1/{path}", json.dumps({**body, "model": "smol"}).encode()
        )
        assert status == 400
        assert "text-ranking or text-embedding" in said["error"]["message"]


def test_an_endpoint_without_a_replica_is_waited_for(world: World) -> None:
    """After a restart: the route is here first, the replica and with it the task come later."""
    fake = world.replica(chat)
    world.publish(route("smol"))
    world.start_gateway(Limits(absent_wait_s=20))
    client = openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0)
    with ThreadPoolExecutor() as pool:
        answers = [
            pool.submit(client.chat.completions.create, model="smol", messages=CHAT)  # type: ignore[arg-type]
            for _ in range(3)
        ]
        wrong = pool.submit(client.embeddings.create, model="smol", input="x")
        deadline = time.monotonic() + 10
        while queued(world) < 4:
            assert time.monotonic() < deadline
        world.publish(route("smol", fake, task="text-generation"))
        assert {answer.result().choices[0].message.content for answer in answers} == {"from smol"}
        with pytest.raises(openai.BadRequestError) as refused:
            wrong.result()
    assert refused.value.code == "model_not_supported"
    assert all(seen.path == "/v1/chat/completions" for seen in fake.seen)


def queued(world: World) -> int:
    request = urllib.request.Request(
        f"{world.url}/metrics", headers={"Authorization": f"Bearer {BEARER}"}
    )
    text = urllib.request.urlopen(request).read().decode()
    lines = [line for line in text.splitlines() if line.startswith("ridgeline_queued{")]
    return int(float(lines[0].split()[-1])) if lines else 0


def test_an_endpoint_whose_replica_does_not_come(world: World) -> None:
    world.publish(route("unknown"), route("known", task="text-generation"))
    world.start_gateway(Limits(absent_wait_s=0.01))
    client = openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0)
    for model in ("unknown", "known"):
        with pytest.raises(openai.InternalServerError) as late:
            client.chat.completions.create(model=model, messages=CHAT)  # type: ignore[arg-type]
        assert (late.value.status_code, late.value.code) == (503, "service_unavailable")
        assert int(late.value.response.headers["retry-after"]) >= 1
    assert [model.id for model in client.models.list()] == ["known"]


def test_errors_of_the_model_server_pass_unchanged(world: World) -> None:
    async def refuse(request: web.Request) -> web.Response:
        error = {"message": "too long", "type": "invalid_request_error", "code": "context_length"}
        return web.json_response({"error": error}, status=400)

    world.publish(route("smol", world.replica(refuse), task="text-generation"))
    world.start_gateway()
    client = openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="smol", messages=CHAT)  # type: ignore[arg-type]
    assert refused.value.code == "context_length"


def test_events_are_flushed_and_a_broken_stream_says_so(world: World) -> None:
    go_on = threading.Event()

    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event("one"))
        await asyncio.to_thread(go_on.wait)
        await response.write(event("two")[:-9])
        assert request.transport is not None
        request.transport.close()
        return response

    world.publish(route("smol", world.replica(die), task="text-generation"))
    world.start_gateway()
    client = openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0)
    stream = client.chat.completions.create(
        model="smol",
        messages=CHAT,  # type: ignore[arg-type]
        stream=True,
    )
    assert next(stream).choices[0].delta.content == "one"
    go_on.set()
    request = urllib.request.Request(
        f"{world.url}/v1/chat/completions",
        data=b'{"model": "smol", "stream": true}',
        headers={"Authorization": f"Bearer {BEARER}"},
    )
    with urllib.request.urlopen(request) as raw:
        events = raw.read().split(b"\n\n")
    last = json.loads(events[-2].removeprefix(b"data: "))
    assert last["error"]["type"] == "server_error"
    assert last["error"]["code"] == "replica_lost"
    stream.close()


def test_a_whole_broken_event_raises_in_the_client(world: World) -> None:
    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(event("one"))
        assert request.transport is not None
        request.transport.close()
        return response

    world.publish(route("smol", world.replica(die), task="text-generation"))
    world.start_gateway()
    client = openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0)
    stream = client.chat.completions.create(
        model="smol",
        messages=CHAT,  # type: ignore[arg-type]
        stream=True,
    )
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)
