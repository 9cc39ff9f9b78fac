"""The metrics of endpoints that CloudWatch shows: what was counted is there when it was written."""

from __future__ import annotations

import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from ridgeline_service.telemetry.samples import SampleStore, metric_of

from .conftest import World, echo, route

YEAR_S = 365 * 86400


def statistic(world: World, name: str, statistic: str, variant: str = "AllTraffic") -> float | None:
    """Over all time, of the variant of endpoint ``e``; None where there is no sample."""
    store = SampleStore(world.data_dir.samples)
    metric = metric_of(
        "AWS/SageMaker",
        name,
        [{"Name": "VariantName", "Value": variant}, {"Name": "EndpointName", "Value": "e"}],
    )
    buckets = store.read(metric, start=0, end=1000 * YEAR_S, period=1000 * YEAR_S)
    store.close()
    return buckets[0].statistic(statistic) if buckets else None


async def refuse(request: web.Request) -> web.Response:
    return web.Response(status=400, text="no")


async def fail(request: web.Request) -> web.Response:
    return web.Response(status=500, text="broken")


async def vanish(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def test_invocations_and_their_latency_are_counted(world: World) -> None:
    world.publish(route("e", world.replica(echo), world.replica(echo)))
    world.start_gateway()
    for _ in range(6):
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    world.stop_last()
    assert statistic(world, "Invocations", "Sum") == 6
    assert statistic(world, "InvocationsPerInstance", "Sum") == 3
    assert statistic(world, "Invocation4XXErrors", "Average") == 0
    assert statistic(world, "Invocation5XXErrors", "Sum") == 0
    assert statistic(world, "ModelLatency", "SampleCount") == 6
    median, slowest = (
        statistic(world, "ModelLatency", "p50"),
        statistic(world, "ModelLatency", "Maximum"),
    )
    assert median is not None
    assert slowest is not None
    assert 50 < median <= slowest * 1.05 < 30e6
    assert statistic(world, "OverheadLatency", "SampleCount") == 6


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (refuse, "Invocation4XXErrors"),
        (fail, "Invocation5XXErrors"),
        (vanish, "Invocation5XXErrors"),
    ],
)
def test_errors_of_the_container_are_told_apart(world: World, answer: object, counted: str) -> None:
    world.publish(route("e", world.replica(answer)))  # type: ignore[arg-type]
    world.start_gateway()
    with pytest.raises(ClientError):
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    world.stop_last()
    errors = {
        name: statistic(world, name, "Sum")
        for name in ("Invocations", "Invocation4XXErrors", "Invocation5XXErrors")
    }
    other = ({"Invocation4XXErrors", "Invocation5XXErrors"} - {counted}).pop()
    assert errors == {"Invocations": 1, counted: 1, other: 0}
    assert statistic(world, "InvocationModelErrors", "Sum") == 1


def test_a_stream_counts_once_with_its_variant(world: World) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(3):
            await answer.write(b"part")
        return answer

    fakes = world.replica(stream), world.replica(echo)
    world.publish(route("e", *fakes, variants={"a": 1.0, "b": 0.0}))
    world.start_gateway()
    answer = world.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName="e", Body=b"x"
    )
    assert b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"]) == b"part" * 3
    world.stop_last()
    assert statistic(world, "Invocations", "Sum", "a") == 1
    assert statistic(world, "Invocations", "Sum", "b") is None


def test_a_request_that_reached_no_replica_is_no_invocation(world: World) -> None:
    world.publish(route("e"))
    world.start_gateway()
    with pytest.raises(ClientError):
        world.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x")
    world.stop_last()
    assert statistic(world, "Invocations", "Sum") is None
