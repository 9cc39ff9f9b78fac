"""InvokeEndpointAsync, from acceptance to the object in S3."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from ridgeline_service.gateway.async_invoke import AsyncInvocations
from ridgeline_service.gateway.invocations import Invocations
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.replicas import Replicas
from ridgeline_service.gateway.routing import Limits, Router
from ridgeline_service.gateway.spool import Spool, SpooledRequest, encode_body
from ridgeline_service.gateway.upstream import make_session
from ridgeline_service.objects.client import AsyncObjectClient
from ridgeline_service.snapshot import AsyncRoute, SnapshotReader
from ridgeline_service.telemetry.samples import SampleStore

from .conftest import KEY, Handler, World, echo, route

OUTPUT = AsyncRoute("s3://results/out", "s3://results/failed")


def prepare(world: World) -> Any:
    """Buckets and an input, by a client of the store itself."""
    s3 = world.client("s3", endpoint_url=world.store_url)
    for bucket in ("inputs", "results"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="inputs", Key="a.csv", Body=b"1,2", ContentType="text/csv")
    return s3


def wait_for(s3: Any, location: str) -> dict[str, Any]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    s3.get_waiter("object_exists").wait(
        Bucket=bucket, Key=key, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )
    answer: dict[str, Any] = s3.get_object(Bucket=bucket, Key=key)
    return answer


def test_input_from_s3_ends_as_output_in_s3(world: World) -> None:
    s3 = prepare(world)
    fake = world.replica(echo)
    world.publish(route("e", fake, asynchronous=OUTPUT))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="e",
        InputLocation="s3://inputs/a.csv",
        Accept="application/json",
        InferenceId="mine",
        CustomAttributes="c",
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "mine"
    assert answer["OutputLocation"].startswith("s3://results/out/")
    assert answer["FailureLocation"].startswith("s3://results/failed/")
    output = wait_for(s3, answer["OutputLocation"])
    assert output["Body"].read() == b"echo:1,2"
    assert output["ContentType"] == "application/x-echo"
    (seen,) = fake.seen
    assert seen.headers["Content-Type"] == "text/csv"
    assert seen.headers["Accept"] == "application/json"
    assert seen.headers["X-Amzn-SageMaker-Custom-Attributes"] == "c"
    assert seen.headers["X-Amzn-SageMaker-Inference-Id"] == "mine"


def test_inline_body_and_own_file_name(world: World) -> None:
    s3 = prepare(world)
    world.publish(route("e", world.replica(echo), asynchronous=OUTPUT))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="e",
        Body=b"inline",
        ContentType="text/plain",
        S3OutputPathExtension="day/1",
        Filename="mine.json",
    )
    assert answer["OutputLocation"] == "s3://results/out/day/1/mine.json"
    assert wait_for(s3, answer["OutputLocation"])["Body"].read() == b"echo:inline"


def test_failures_are_documents(world: World) -> None:
    async def bad(request: web.Request) -> web.Response:
        return web.Response(status=500, text="broken model")

    s3 = prepare(world)
    world.publish(route("e", world.replica(bad), asynchronous=OUTPUT))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    model = runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://inputs/a.csv")
    missing = runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://inputs/none")
    said = json.loads(wait_for(s3, model["FailureLocation"])["Body"].read())
    assert (said["ErrorCode"], said["OriginalStatusCode"]) == ("ModelError", 500)
    assert said["OriginalMessage"] == "broken model"
    said = json.loads(wait_for(s3, missing["FailureLocation"])["Body"].read())
    assert "s3://inputs/none" in said["Message"]


def test_an_answer_over_the_limit_is_a_failure_and_is_not_waited_for(world: World) -> None:
    async def huge(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 2**30 + 1
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    s3 = prepare(world)
    fake = world.replica(huge)
    world.publish(route("e", fake, asynchronous=OUTPUT))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="e", InputLocation="s3://inputs/a.csv"
    )
    said = json.loads(wait_for(s3, answer["FailureLocation"])["Body"].read())
    assert said["ErrorCode"] == "ModelError"
    assert "more than the 1073741824 bytes" in said["Message"]
    assert len(fake.seen) == 1


def test_what_cannot_be_accepted(world: World) -> None:
    world.publish(
        route("sync", world.replica(echo)),
        route("e", world.replica(echo), asynchronous=OUTPUT),
    )
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    for arguments in (
        {"EndpointName": "sync", "InputLocation": "s3://inputs/a.csv"},
        {"EndpointName": "none", "InputLocation": "s3://inputs/a.csv"},
        {"EndpointName": "e", "InputLocation": "https://inputs/a.csv"},
        {"EndpointName": "e"},
        {"EndpointName": "e", "InputLocation": "s3://inputs/a.csv", "RequestTTLSeconds": 99_999},
        {"EndpointName": "e", "InputLocation": "s3://inputs/a.csv", "InferenceId": "x" * 65},
    ):
        with pytest.raises(ClientError) as refused:
            runtime.invoke_endpoint_async(**arguments)
        assert refused.value.response["Error"]["Code"] == "ValidationError"
    assert not list(world.data_dir.spool.glob("*.json"))


class Gate:
    """A model server that holds every request until it is told to go on."""

    def __init__(self) -> None:
        self.started: queue.Queue[str] = queue.Queue()
        self.go_on = threading.Semaphore(0)

    async def __call__(self, request: web.Request) -> web.Response:
        self.started.put("")
        await asyncio.to_thread(self.go_on.acquire)
        return web.Response(body=b"done")

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            self.started.get(timeout=10)


def test_concurrency_is_bounded_for_each_instance_and_grows_with_them(world: World) -> None:
    gate = Gate()
    s3 = prepare(world)
    asynchronous = AsyncRoute("s3://results/out", max_concurrent=2)
    fakes = [world.replica(gate) for _ in range(3)]
    world.publish(route("e", *fakes[:1], asynchronous=asynchronous))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    answers = [
        runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://inputs/a.csv")
        for _ in range(8)
    ]
    assert "FailureLocation" not in answers[0]
    gate.wait_for(2)
    world.publish(route("e", *fakes, asynchronous=asynchronous))
    gate.wait_for(4)
    assert [len(fake.seen) for fake in fakes] == [2, 2, 2]
    for _ in answers:
        gate.go_on.release()
    for answer in answers:
        assert wait_for(s3, answer["OutputLocation"])["Body"].read() == b"done"


def test_accepted_requests_survive_the_gateway(world: World) -> None:
    held = threading.Event()
    never = threading.Event()

    async def hang(request: web.Request) -> web.Response:
        held.set()
        await asyncio.Event().wait()
        never.set()
        return web.Response()

    s3 = prepare(world)
    fake = world.replica(hang)
    world.publish(route("e", fake, asynchronous=AsyncRoute("s3://results/out", max_concurrent=1)))
    world.start_gateway()
    runtime = world.client("sagemaker-runtime")
    answers = [
        runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://inputs/a.csv")
        for _ in range(2)
    ]
    assert held.wait(10)
    world.stop_last()
    assert len(list(world.data_dir.spool.glob("*.json"))) == 2
    fake.handler = echo
    world.start_gateway()
    for answer in answers:
        assert wait_for(s3, answer["OutputLocation"])["Body"].read() == b"echo:1,2"
    assert not never.is_set()


class Clock:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.pauses = 0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        await asyncio.sleep(0)


def deliver(world: World, clock: Clock, *requests: SpooledRequest) -> None:
    """Run requests out of the spool to their ends, on the given clock."""

    async def run() -> None:
        session = make_session()
        snapshots = SnapshotReader(world.data_dir.snapshot)
        metrics = Metrics()
        invocations = Invocations(SampleStore(world.data_dir.samples))
        router = Router(snapshots.current, metrics, Limits(absent_wait_s=0))
        spool = Spool(world.data_dir.spool)
        subject = AsyncInvocations(
            spool,
            Replicas(session, router, metrics, invocations, answer_s=600),
            router,
            AsyncObjectClient(session, world.store_url, lambda: KEY),
            metrics,
            snapshots.current,
            clock=clock,
            new_id=lambda: "x",
            pause=clock.pause,
        )
        for request in requests:
            await spool.keep(request)
        subject.start()
        await subject.idle()
        await session.close()

    world.loop.run(run())


def spooled(**changes: Any) -> SpooledRequest:
    fields: dict[str, Any] = {
        "request_id": "id",
        "endpoint": "e",
        "inference_id": "id",
        "input_location": "s3://inputs/a.csv",
        "body_base64": "",
        "output_location": "s3://results/out/id.out",
        "failure_location": "s3://results/failed/id-error.out",
        "content_type": "",
        "headers": {},
        "target": "",
        "received_at": 1_000.0,
        "ttl_s": 600.0,
        "timeout_s": 60.0,
    }
    return SpooledRequest(**(fields | changes))


def failure(s3: Any) -> dict[str, Any]:
    body = s3.get_object(Bucket="results", Key="failed/id-error.out")["Body"].read()
    said: dict[str, Any] = json.loads(body)
    return said


def test_waits_for_a_replica_until_the_time_to_live_is_over(world: World) -> None:
    s3 = prepare(world)
    world.publish(route("e", asynchronous=OUTPUT))
    clock = Clock()
    deliver(world, clock, spooled())
    assert "RequestTTLSeconds" in failure(s3)["Message"]
    assert 1_500 < clock.now <= 1_600
    assert not list(world.data_dir.spool.glob("*.json"))


def test_tries_again_while_the_model_server_is_full(world: World) -> None:
    answers = [web.Response(status=429), web.Response(status=503), web.Response(body=b"done")]

    async def full(request: web.Request) -> web.Response:
        return answers.pop(0)

    s3 = prepare(world)
    world.publish(route("e", world.replica(full), asynchronous=OUTPUT))
    clock = Clock()
    deliver(world, clock, spooled())
    assert s3.get_object(Bucket="results", Key="out/id.out")["Body"].read() == b"done"
    assert clock.pauses == 2


async def die(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def test_a_request_that_ends_replicas_is_given_up(world: World) -> None:
    s3 = prepare(world)
    fakes = [world.replica(die) for _ in range(6)]
    world.publish(route("e", *fakes, asynchronous=OUTPUT))
    deliver(world, Clock(), spooled(), spooled(request_id="same"))
    assert "broke off" in failure(s3)["Message"]
    assert failure(s3)["ErrorCode"] == "ModelError"
    assert sum(len(fake.seen) for fake in fakes) <= 6, "three for each at most"


def test_what_was_beside_a_request_that_ends_replicas_is_delivered(world: World) -> None:
    """The replica that it killed worked on others, too: they do not share the next with it."""
    s3 = prepare(world)
    together = asyncio.Barrier(3)
    asynchronous = AsyncRoute("s3://results/out", "s3://results/failed", max_concurrent=3)
    alive = list(range(4))

    def fragile(number: int) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            poison = await request.read() == b"poison"
            if number == 0:
                await together.wait()
            elif not poison:
                await asyncio.sleep(0.05)
            if poison:
                alive.remove(number)
                publish()
            return await (echo if number in alive else die)(request)

        return answer

    fakes = [world.replica(fragile(number)) for number in alive]
    whole = route("e", *fakes, asynchronous=asynchronous)
    (variant,) = whole.variants

    def publish() -> None:
        """One replica: the next takes the place of one that died."""
        routed = replace(variant, replicas=(variant.replicas[alive[0]],))
        world.publish(replace(whole, variants=(routed,)))

    publish()
    bodies = (b"poison", b"good", b"better")
    spool = [
        spooled(
            request_id=body.decode(),
            input_location="",
            body_base64=encode_body(body),
            output_location=f"s3://results/out/{body.decode()}",
        )
        for body in bodies
    ]
    deliver(world, Clock(), *spool)
    assert "broke off" in failure(s3)["Message"]
    for body in bodies[1:]:
        output = s3.get_object(Bucket="results", Key=f"out/{body.decode()}")
        assert output["Body"].read() == b"echo:" + body


def test_endpoint_deleted_meanwhile(world: World) -> None:
    s3 = prepare(world)
    world.publish()
    deliver(world, Clock(), spooled())
    assert "was deleted" in failure(s3)["Message"]


def test_invocation_timeout(world: World) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    s3 = prepare(world)
    world.publish(route("e", world.replica(hang), asynchronous=OUTPUT))
    deliver(world, Clock(), spooled(timeout_s=0.05))
    assert "timed out" in failure(s3)["Message"]


def test_output_bucket_that_does_not_exist(world: World) -> None:
    s3 = prepare(world)
    world.publish(route("e", world.replica(echo), asynchronous=OUTPUT))
    deliver(world, Clock(), spooled(output_location="s3://never-made/x"))
    assert "never-made" in failure(s3)["Message"]
