"""Inference through an unmodified boto3 client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web
from botocore.exceptions import ClientError, EventStreamError

from ridgeline_service.gateway.routing import Limits
from ridgeline_service.replica_protocol import UNSERVED_HEADER

from .conftest import TOKEN, Fake, World, echo, refused, route


def test_invoke_passes_headers_and_bodies(world: World) -> None:
    fake = world.replica(echo)
    world.publish(route("e", fake))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="e",
        Body=b"in",
        ContentType="text/csv",
        Accept="application/json",
        CustomAttributes="c=1",
        InferenceId="id-7",
    )
    assert answer["Body"].read() == b"echo:in"
    assert answer["ContentType"] == "application/x-echo"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "from-model"
    (seen,) = fake.seen
    got = {name.lower(): value for name, value in seen.headers.items()}
    assert seen.path == "/invocations"
    assert got["content-type"] == "text/csv"
    assert got["accept"] == "application/json"
    assert got["x-amzn-sagemaker-custom-attributes"] == "c=1"
    assert got["x-amzn-sagemaker-inference-id"] == "id-7"
    assert got["x-ridgeline-token"] == TOKEN
    assert "authorization" not in got


def test_model_error(world: World) -> None:
    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=503, text="out of memory")

    world.publish(route("e", world.replica(broken)))
    world.start_gateway()
    with pytest.raises(ClientError) as caught:
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(caught) == ("ModelError", 424)
    response = caught.value.response
    assert response["OriginalStatusCode"] == 503
    assert response["OriginalMessage"] == "out of memory"
    assert response["LogStreamArn"].endswith(
        "log-group:/aws/sagemaker/Endpoints/e:log-stream:AllTraffic/r0"
    )


def test_a_full_model_server_is_throttling(world: World) -> None:
    async def full(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "7"}, text="queue full")

    world.publish(route("e", world.replica(full)))
    world.start_gateway()
    with pytest.raises(ClientError) as caught:
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(caught) == ("ThrottlingException", 429)
    headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert headers["retry-after"] == "7"


@pytest.mark.parametrize("status", ["Creating", "Failed", "Deleting"])
def test_endpoints_that_do_not_serve(world: World, status: str) -> None:
    world.publish(route("e", world.replica(echo), status=status))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    with pytest.raises(ClientError) as unready:
        runtime.invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(unready) == ("ValidationError", 400)
    assert status in str(unready.value)
    with pytest.raises(ClientError) as unknown:
        runtime.invoke_endpoint(EndpointName="nope", Body=b"x")
    assert refused(unknown) == ("ValidationError", 400)
    assert "nope" in str(unknown.value)


def test_target_variant(world: World) -> None:
    first, second = world.replica(echo), world.replica(echo)
    world.publish(route("e", first, second, variants={"A": 1.0, "B": 0.0}))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    for _ in range(3):
        plain = runtime.invoke_endpoint(EndpointName="e", Body=b"x")
        assert plain["InvokedProductionVariant"] == "A"
    aimed = runtime.invoke_endpoint(EndpointName="e", Body=b"x", TargetVariant="B")
    assert aimed["InvokedProductionVariant"] == "B"
    assert len(second.seen) == 1
    with pytest.raises(ClientError) as unknown:
        runtime.invoke_endpoint(EndpointName="e", Body=b"x", TargetVariant="C")
    assert refused(unknown) == ("ValidationError", 400)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("TargetModel", "a.tar.gz"),
        ("TargetContainerHostname", "second"),
        ("InferenceComponentName", "nope"),
        ("EnableExplanations", "`true`"),
        ("CustomAttributes", "x" * 1025),
        ("InferenceId", "x" * 65),
    ],
)
def test_what_would_ask_for_another_answer_is_refused(
    world: World, member: str, value: str
) -> None:
    fake = world.replica(echo)
    world.publish(route("e", fake))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    asked = {"EndpointName": "e", "Body": b"x", member: value}
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(**asked)
    assert refused(caught) == ("ValidationError", 400)
    assert member in str(caught.value)
    if member in ("InferenceComponentName", "CustomAttributes", "InferenceId"):
        with pytest.raises(ClientError, match=member):
            runtime.invoke_endpoint_with_response_stream(**asked)
    assert not fake.seen


def test_wrong_key_and_tampered_body_are_refused(world: World) -> None:
    fake = world.replica(echo)
    world.publish(route("e", fake))
    world.start_gateway()
    with pytest.raises(ClientError) as unknown:
        world.client("sagemaker-runtime", aws_access_key_id="AKIDNOBODY").invoke_endpoint(
            EndpointName="e", Body=b"x"
        )
    assert refused(unknown) == ("UnrecognizedClientException", 403)
    with pytest.raises(ClientError) as wrong:
        world.client("sagemaker-runtime", aws_secret_access_key="wrong").invoke_endpoint(
            EndpointName="e", Body=b"x"
        )
    assert refused(wrong) == ("InvalidSignatureException", 403)
    runtime = world.client("sagemaker-runtime")

    def tamper(request: Any, **_: Any) -> None:
        request.body = b"evil"

    runtime.meta.events.register("before-send.sagemaker-runtime", tamper)
    with pytest.raises(ClientError) as tampered:
        runtime.invoke_endpoint(EndpointName="e", Body=b"good")
    assert refused(tampered) == ("InvalidSignatureException", 403)
    assert not fake.seen


def test_a_dead_replica_is_passed_over(world: World) -> None:
    dead, alive = world.replica(echo), world.replica(echo)
    world.publish(route("e", dead, alive))
    world.start_gateway()
    world.loop.run(dead.stop())
    runtime = world.client("sagemaker-runtime")
    for _ in range(4):
        assert runtime.invoke_endpoint(EndpointName="e", Body=b"x")["Body"].read() == b"echo:x"
    assert len(alive.seen) == 4


def test_a_replica_that_did_not_begin_is_passed_over(world: World) -> None:
    """As one whose device failed: its errors are the fastest answers, so it would get them all."""

    async def unserved(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={UNSERVED_HEADER: "1"}, text="device failed")

    failed, alive = world.replica(unserved), world.replica(echo)
    world.publish(route("e", failed, alive))
    world.start_gateway(Limits(absent_wait_s=0.01))
    runtime = world.client("sagemaker-runtime")
    for _ in range(4):
        assert runtime.invoke_endpoint(EndpointName="e", Body=b"x")["Body"].read() == b"echo:x"
    assert len(alive.seen) == 4
    world.publish(route("e", failed))
    with pytest.raises(ClientError) as alone:
        runtime.invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(alone) == ("ServiceUnavailable", 503)


def test_a_replica_that_breaks_off_is_retried_once(world: World) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    breaking, alive = world.replica(hang_up), world.replica(echo)
    world.publish(route("e", breaking, alive))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    for _ in range(2):
        assert runtime.invoke_endpoint(EndpointName="e", Body=b"x")["Body"].read() == b"echo:x"
    world.publish(route("e", breaking))
    before = len(breaking.seen)
    with pytest.raises(ClientError) as lost:
        runtime.invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(lost) == ("ServiceUnavailable", 503)
    assert len(breaking.seen) - before == 2


def test_no_replica(world: World) -> None:
    world.publish(route("e"))
    world.start_gateway(Limits(absent_wait_s=0.01))
    with pytest.raises(ClientError) as absent:
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(absent) == ("ServiceUnavailable", 503)


def test_a_hundred_at_once_are_answered_or_refused(world: World) -> None:
    gate = threading.Event()
    started = asyncio.Semaphore(0)

    async def slow(request: web.Request) -> web.Response:
        started.release()
        await asyncio.to_thread(gate.wait)
        return web.Response(body=await request.read())

    world.publish(route("e", world.replica(slow)))
    world.start_gateway(Limits(per_replica=4, queue=20))
    url = f"{world.url}/metrics"

    def call(number: int) -> str:
        runtime = world.client("sagemaker-runtime")
        try:
            answer = runtime.invoke_endpoint(EndpointName="e", Body=str(number).encode())
        except ClientError as error:
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
            assert int(headers["retry-after"]) >= 1
            refusals.release()
            return error.response["Error"]["Code"]
        return "right" if answer["Body"].read() == str(number).encode() else "wrong"

    refusals = threading.Semaphore(0)
    with ThreadPoolExecutor(100) as pool:
        calls = [pool.submit(call, number) for number in range(100)]
        for _ in range(76):
            assert refusals.acquire(timeout=20)
        gate.set()
        answers = [future.result() for future in calls]
    assert answers.count("right") == 24
    assert answers.count("ThrottlingException") == 76
    request = urllib.request.Request(url, headers={"Authorization": "Bearer rl-test-bearer"})
    text = urllib.request.urlopen(request).read().decode()
    assert 'ridgeline_in_flight{endpoint="e"} 0.0' in text
    assert 'ridgeline_queued{endpoint="e"} 0.0' in text


def test_stream_comes_as_it_is_made(world: World) -> None:
    go_on = threading.Event()

    async def tokens(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/jsonlines"})
        await response.prepare(request)
        await response.write(b"first\n")
        await asyncio.to_thread(go_on.wait)
        await response.write(b"second\nthird")
        return response

    fake = world.replica(tokens)
    world.publish(route("e", fake))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName="e", Body=b"x", Accept="application/jsonlines"
    )
    assert answer["ContentType"] == "application/jsonlines"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    events = iter(answer["Body"])
    assert next(events)["PayloadPart"]["Bytes"] == b"first\n"
    go_on.set()
    assert [event["PayloadPart"]["Bytes"] for event in events] == [b"second\n", b"third"]
    assert fake.seen[0].headers["Accept"] == "application/jsonlines"


def test_stream_that_breaks_ends_in_a_typed_error(world: World) -> None:
    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"first")
        assert request.transport is not None
        request.transport.abort()
        return response

    world.publish(route("e", world.replica(die)))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName="e", Body=b"x"
    )
    events = iter(answer["Body"])
    assert next(events)["PayloadPart"]["Bytes"] == b"first", "half an event is not lost"
    with pytest.raises(EventStreamError) as broken:
        next(events)
    assert broken.value.response["Error"]["Code"] == "ModelStreamError"


def test_stream_error_before_the_first_byte(world: World) -> None:
    async def bad(request: web.Request) -> web.Response:
        return web.Response(status=400, text="no such parameter")

    world.publish(route("e", world.replica(bad)))
    world.start_gateway()
    with pytest.raises(ClientError) as caught:
        world.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
            EndpointName="e", Body=b"x"
        )
    assert refused(caught) == ("ModelError", 424)


def test_client_that_leaves_closes_the_upstream_request(world: World) -> None:
    cancelled = threading.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return response

    world.publish(route("e", world.replica(endless)))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName="e", Body=b"x"
    )
    next(iter(answer["Body"]))
    answer["Body"].close()
    assert cancelled.wait(10)


@pytest.mark.parametrize("first", [b"", b"first"])
def test_time_limit_closes_the_upstream_request(world: World, first: bytes) -> None:
    """The model server learns that nobody waits any more, and ends what it generates."""
    cancelled = threading.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            if first:
                await response.prepare(request)
                await response.write(first)
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return response

    fake = world.replica(endless)
    world.publish(route("e", fake))
    world.start_gateway(Limits(answer_s=0.1))
    with pytest.raises(ClientError) as late:
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(late) == ("ModelError", 424)
    assert "nothing came for 0.1 s" in late.value.response["Error"]["Message"]
    assert cancelled.wait(10)
    assert len(fake.seen) == 1


def test_time_limit_on_a_replica_that_takes_no_body(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        hung = Fake(echo, url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        world.publish(route("e", hung))
        world.start_gateway(Limits(answer_s=0.1))
        with pytest.raises(ClientError) as late:
            world.client("sagemaker-runtime").invoke_endpoint(
                EndpointName="e", Body=b"x" * 16 * 1024 * 1024
            )
    assert refused(late) == ("ModelError", 424)


@pytest.mark.parametrize("length", [None, 200 * 2**20])
def test_an_answer_over_the_limit_is_not_read_to_its_end(world: World, length: int | None) -> None:
    """One that does not tell its length has no end here, and one that does stops at its first
    piece."""
    piece = b"x" * 2**20

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        await response.write(piece)
        while length is None:
            await response.write(piece)
        await asyncio.Event().wait()
        return response

    world.publish(route("e", world.replica(answer)))
    world.start_gateway()
    with pytest.raises(ClientError, match="more than the 26214400") as caught:
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    assert refused(caught) == ("ModelError", 424)


def test_a_content_type_that_is_not_ascii_passes(world: World) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"v", headers={"Content-Type": "text/\N{SNOWMAN}"})

    world.publish(route("e", world.replica(answer)))
    world.start_gateway()
    got = world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    assert got["ContentType"].encode("latin-1").decode() == "text/\N{SNOWMAN}"


def test_body_over_the_limit(world: World) -> None:
    world.publish(route("e", world.replica(echo)))
    world.start_gateway()
    with pytest.raises(ClientError) as caught:
        world.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="e", Body=b"x" * (25 * 1024 * 1024 + 1)
        )
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_health_needs_no_key_and_nothing_else_does(world: World) -> None:
    world.start_gateway()
    assert json.load(urllib.request.urlopen(f"{world.url}/healthz")) == {"status": "ok"}
    for path in ("/metrics", "/api/info", "/v1/models", "/api/openapi.json", "/", "/bucket/key"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(world.url + path)
        assert refusal.value.code in (401, 403), path
