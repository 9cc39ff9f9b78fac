"""Requests whose replica breaks off: who is sent one again, and what one request may end."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import ClientError

from ridgeline_service.gateway.suspects import Suspects

from .conftest import Handler, World, echo, refused, route

POISON = b"poison"


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def dies_of_poison(request: web.Request) -> web.Response:
    return await (hang_up if await request.read() == POISON else echo)(request)


def serve(world: World, *handlers: Handler) -> list[Any]:
    fakes = [world.replica(handler) for handler in handlers]
    world.publish(route("e", *fakes))
    return fakes


def deaths(fakes: list[Any]) -> int:
    return sum(seen.body == POISON for fake in fakes for seen in fake.seen)


def test_a_client_that_retries_ends_two_replicas_and_no_more(world: World) -> None:
    fakes = serve(world, *[dies_of_poison] * 8)
    world.start_gateway()
    patient = Config(retries={"total_max_attempts": 5}, proxies={}, read_timeout=20)
    runtime = world.client("sagemaker-runtime", config=patient)
    with pytest.raises(ClientError) as killed:
        runtime.invoke_endpoint(EndpointName="e", Body=POISON)
    assert refused(killed) == ("ModelError", 424)
    assert "ridgeline logs e" in str(killed.value)
    assert deaths(fakes) == 2
    for stream in (False, True):
        before = deaths(fakes)
        call = runtime.invoke_endpoint_with_response_stream if stream else runtime.invoke_endpoint
        with pytest.raises(ClientError) as again:
            call(EndpointName="e", Body=POISON)
        assert refused(again) == ("ModelError", 424)
        assert deaths(fakes) == before + 1, "it is known by now, and ends the one that it is sent"
    assert runtime.invoke_endpoint(EndpointName="e", Body=b"x")["Body"].read() == b"echo:x"


def test_all_that_one_death_ends_are_sent_again(world: World) -> None:
    """Their bodies are equal, and they are not what killed it."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    async def is_killed(request: web.Request) -> web.Response:
        begun.release()
        await asyncio.to_thread(go_on.wait)
        return await hang_up(request)

    doomed, alive = world.replica(is_killed), world.replica(echo)
    both = route("e", doomed, alive)
    (variant,) = both.variants

    def routed(index: int) -> Any:
        return replace(both, variants=(replace(variant, replicas=(variant.replicas[index],)),))

    world.publish(routed(0))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(lambda: runtime.invoke_endpoint(EndpointName="e", Body=b"x"))
            for _ in range(4)
        ]
        for _ in calls:
            assert begun.acquire(timeout=10)
        world.publish(routed(1))
        go_on.set()
        assert [call.result()["Body"].read() for call in calls] == [b"echo:x"] * 4


def test_a_request_beside_another_is_not_called_what_ended_two_replicas(world: World) -> None:
    """It is told to come again, and is answered then."""
    poisoned = threading.Event()

    async def dies_with_company(request: web.Request) -> web.Response:
        if await request.read() == POISON:
            poisoned.set()
            return await hang_up(request)
        await asyncio.to_thread(poisoned.wait)
        await asyncio.sleep(0.05)
        return await hang_up(request)

    first, second = world.replica(dies_with_company), world.replica(dies_with_company)
    world.publish(route("e", first, second))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    with ThreadPoolExecutor(4) as pool:
        good = [
            pool.submit(runtime.invoke_endpoint, EndpointName="e", Body=f"{n}".encode())
            for n in range(3)
        ]
        time.sleep(0.2)
        pool.submit(runtime.invoke_endpoint, EndpointName="e", Body=POISON).exception()
        refusals = [call.exception() for call in good]
    assert {error.response["ResponseMetadata"]["HTTPStatusCode"] for error in refusals} == {503}


def test_a_suspicion_lasts_a_minute_and_holds_for_one_endpoint() -> None:
    now = 0.0
    suspects = Suspects(lambda: now)

    def broke(endpoint: str, replica: str) -> bool:
        return asyncio.run(suspects.broke(endpoint, b"x", replica))

    assert not broke("e", "r0")
    assert not broke("e", "r0")
    assert not broke("other", "r1")
    now = 59.0
    assert broke("e", "r1")
    now = 59.0 + 61.0
    assert not broke("e", "r2")
