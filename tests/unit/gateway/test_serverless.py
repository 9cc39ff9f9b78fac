"""MaxConcurrency of serverless variants, as each kind of client meets it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import openai
import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from .conftest import BEARER, World, refused, route


def test_what_is_beyond_max_concurrency_is_throttled_and_not_queued(world: World) -> None:
    gate, begun = threading.Event(), threading.Event()

    async def slow(request: web.Request) -> web.Response:
        begun.set()
        await asyncio.to_thread(gate.wait)
        return web.Response(body=await request.read())

    made = route("e", world.replica(slow), task="text-generation")
    serverless = tuple(replace(variant, max_concurrency=1) for variant in made.variants)
    world.publish(replace(made, variants=serverless))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    client = openai.OpenAI(base_url=f"{world.url}/v1", api_key=BEARER, max_retries=0)

    with ThreadPoolExecutor(1) as pool, client:
        first = pool.submit(runtime.invoke_endpoint, EndpointName="e", Body=b"first")
        assert begun.wait(20)
        try:
            for call in (
                runtime.invoke_endpoint,
                runtime.invoke_endpoint_with_response_stream,
            ):
                with pytest.raises(ClientError, match="MaxConcurrency") as caught:
                    call(EndpointName="e", Body=b"more")
                assert refused(caught) == ("ThrottlingException", 429)
            with pytest.raises(openai.RateLimitError) as limited:
                client.completions.create(model="e", prompt="x")
            assert limited.value.code == "rate_limit_exceeded"
        finally:
            gate.set()
        assert first.result()["Body"].read() == b"first"
    assert runtime.invoke_endpoint(EndpointName="e", Body=b"next")["Body"].read() == b"next"


def test_a_stream_counts_until_its_end(world: World) -> None:
    gate = threading.Event()

    async def words(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await asyncio.to_thread(gate.wait)
        return response

    made = route("e", world.replica(words))
    serverless = tuple(replace(variant, max_concurrency=1) for variant in made.variants)
    world.publish(replace(made, variants=serverless))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    try:
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName="e", Body=b"x")
        stream = iter(answer["Body"])
        assert next(stream)["PayloadPart"]["Bytes"] == b"one"
        with pytest.raises(ClientError, match="MaxConcurrency"):
            runtime.invoke_endpoint(EndpointName="e", Body=b"x")
    finally:
        gate.set()
    assert list(stream) == []
    assert runtime.invoke_endpoint(EndpointName="e", Body=b"x")["Body"].read() == b"one"
