"""What data capture keeps of requests, where, and how often."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from ridgeline.errors import NotFound, Unavailable
from ridgeline_service.gateway.capture import Captures
from ridgeline_service.gateway.routing import Lease
from ridgeline_service.snapshot import CaptureRoute, EndpointRoute, ReplicaRoute, VariantRoute

from .conftest import World, echo, route

NOON = datetime(2026, 11, 22, 12, 34, 56, 789000, tzinfo=UTC)
BOTH = CaptureRoute(
    "s3://kept/here", 100, input=True, output=True, csv_types=("text/csv",), json_types=()
)


class Store:
    """Takes objects, once it is not ``away`` any more, into buckets that it has."""

    def __init__(self) -> None:
        self.away = False
        self.objects: dict[str, bytes] = {}
        self.tried = 0

    async def put(self, uri: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.tried += 1
        if self.away:
            raise Unavailable("The object store does not answer.")
        if not uri.startswith("s3://kept/"):
            raise NotFound(f"There is no bucket for {uri}.")
        self.objects[uri] = body


def lease() -> Lease:
    variant = VariantRoute("blue", 1.0, (), capture=BOTH)
    endpoint = EndpointRoute("e", "arn", "InService", "", 0.0, (variant,))
    return Lease(endpoint, variant, ReplicaRoute("r", "http://x", "t"), lambda _: None)


def captures(store: Store, chance: float = 0.0) -> Captures:
    numbers = count()
    return Captures(
        store,  # type: ignore[arg-type]
        new_id=lambda: f"id-{next(numbers)}",
        clock=lambda: NOON,
        chance=lambda: chance,
    )


def keep(kept: Captures, body: bytes, capture: CaptureRoute = BOTH, **headers: str) -> None:
    asked = {"content-type": "text/csv"} | {k.replace("_", "-"): v for k, v in headers.items()}
    kept.record(capture, lease(), asked, body, {"Content-Type": "image/png"}, b"\x89PNG")


def lines(body: bytes) -> list[Any]:
    return [json.loads(line) for line in body.splitlines()]


def test_a_record_has_sagemakers_form() -> None:
    store = Store()
    kept = captures(store)
    keep(kept, b"1,2", x_amzn_sagemaker_inference_id="mine", x_amzn_sagemaker_custom_attributes="c")
    keep(kept, b"3,4")
    asyncio.run(kept.flush())
    [(uri, body)] = store.objects.items()
    assert uri == "s3://kept/here/e/blue/2026/11/22/12/34-56-789-id-2.jsonl"
    first, second = lines(body)
    assert first == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv",
                "mode": "INPUT",
                "data": "1,2",
                "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "image/png",
                "mode": "OUTPUT",
                "data": base64.b64encode(b"\x89PNG").decode(),
                "encoding": "BASE64",
            },
        },
        "eventMetadata": {
            "eventId": "id-0",
            "inferenceId": "mine",
            "customAttributes": ["c"],
            "inferenceTime": "2026-11-22T12:34:56Z",
        },
        "eventVersion": "0",
    }
    assert second["captureData"]["endpointInput"]["data"] == "3,4"


def test_what_is_no_text_is_kept_as_it_is_and_one_side_alone_if_asked() -> None:
    store = Store()
    kept = captures(store)
    keep(kept, b"\xff\xfe", replace(BOTH, output=False))
    asyncio.run(kept.flush())
    [record] = lines(*store.objects.values())
    assert list(record["captureData"]) == ["endpointInput"]
    side = record["captureData"]["endpointInput"]
    assert (side["encoding"], base64.b64decode(side["data"])) == ("BASE64", b"\xff\xfe")


def test_a_share_of_requests_is_taken() -> None:
    some = replace(BOTH, percent=25)
    assert captures(Store(), chance=0.24).wanted(some)
    assert not captures(Store(), chance=0.25).wanted(some)
    assert not captures(Store()).wanted(replace(BOTH, percent=0))


def test_what_the_store_does_not_take_is_tried_again() -> None:
    store = Store()
    kept = captures(store)
    store.away = True
    keep(kept, b"1")
    asyncio.run(kept.flush())
    store.away = False
    keep(kept, b"2")
    asyncio.run(kept.flush())
    [body] = store.objects.values()
    assert [one["captureData"]["endpointInput"]["data"] for one in lines(body)] == ["1", "2"]


def test_a_store_that_is_away_is_left_in_peace_however_much_waits() -> None:
    store = Store()
    store.away = True
    kept = captures(store)
    keep(kept, bytes(9 * 2**20))

    async def run_for_a_while() -> None:
        running = asyncio.create_task(kept.run())
        while not store.tried:
            await asyncio.sleep(0.001)
        for _ in range(50):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.away = False
        await kept.flush()

    asyncio.run(run_for_a_while())
    assert store.tried == 2
    assert len(store.objects) == 1


def test_a_bucket_that_is_not_there_costs_its_own_requests_alone() -> None:
    store = Store()
    kept = captures(store)
    keep(kept, b"lost", replace(BOTH, destination="s3://nowhere"))
    keep(kept, b"good")
    assert asyncio.run(kept.flush())
    [record] = lines(*store.objects.values())
    assert record["captureData"]["endpointInput"]["data"] == "good"
    assert asyncio.run(kept.flush())
    assert store.tried == 2


def test_a_flush_that_is_cancelled_loses_nothing() -> None:
    store = Store()
    kept = captures(store)
    keep(kept, b"1")

    async def cancelled_and_again() -> None:
        flushing = asyncio.create_task(kept.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await kept.flush()

    asyncio.run(cancelled_and_again())
    assert len(store.objects) == 1


def test_answers_through_the_gateway_are_kept_and_failures_are_not(world: World) -> None:
    async def fails(request: web.Request) -> web.Response:
        return web.Response(status=500, text="no")

    good, bad = world.replica(echo), world.replica(fails)
    capture = replace(BOTH, destination="s3://kept")
    world.publish(
        *(
            replace(made, variants=tuple(replace(v, capture=capture) for v in made.variants))
            for made in (route("good", good), route("bad", bad))
        )
    )
    world.start_gateway()
    world.client("s3").create_bucket(Bucket="kept")
    runtime = world.client("sagemaker-runtime")
    runtime.invoke_endpoint(EndpointName="good", Body=b"1,2", ContentType="text/csv")
    with pytest.raises(runtime.exceptions.ModelError):
        runtime.invoke_endpoint(EndpointName="bad", Body=b"1,2", ContentType="text/csv")
    world.stop_last()  # the gateway writes what it has when it ends

    world.start_gateway()
    store = world.client("s3")
    [found] = store.list_objects_v2(Bucket="kept")["Contents"]
    assert found["Key"].startswith("good/AllTraffic/20")
    [record] = lines(store.get_object(Bucket="kept", Key=found["Key"])["Body"].read())
    assert record["captureData"]["endpointInput"]["data"] == "1,2"
    output = record["captureData"]["endpointOutput"]
    assert base64.b64decode(output["data"]) == b"echo:1,2"
