"""Nothing but /healthz answers without a valid key, whatever the path, method or body."""

from __future__ import annotations

import json
import socket

import pytest
from aiohttp import web

from .conftest import World, route

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PATHS = (
    "/",
    "/endpoints/x/invocations",
    "/endpoints/x/invocations-response-stream",
    "/endpoints/x/async-invocations",
    "/endpoints/x",
    "/endpoints/x/nothing",
    "/service/GraniteServiceVersion20100801/operation/ListMetrics",
    "/service/nothing",
    "/FeatureGroup/f",
    "/BatchPutMetrics",
    "/v1",
    "/v1/models",
    "/v1/models/x",
    "/v1/chat/completions",
    "/v1/nothing",
    "/api",
    "/api/zoo",
    "/api/openapi.json",
    "/metrics",
    "/bucket/key",
    "/bucket/key?uploads",
    "/healthz/x",
)


def exchange(world: World, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of a request written by hand."""
    host, port = world.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode().replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            return status, answer.read().partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("method", METHODS)
def test_every_route_asks_for_a_key_first(world: World, method: str) -> None:
    async def leak(request: web.Request) -> web.Response:
        return web.Response(text="served")

    world.control.handler = leak
    world.publish(route("x", world.replica(leak), task="text-generation"))
    world.start_gateway()
    for path in PATHS:
        status, said = exchange(world, f"{method} {path} HTTP/1.1\nHost: h\nConnection: close")
        assert status in (401, 403), (method, path, status, said)
        assert b"served" not in said
    assert not world.control.seen
    assert not world.replicas[0].seen


@pytest.mark.parametrize(
    "head",
    [
        "POST / HTTP/1.1\nX-Amz-Target: SageMaker.ListModels",
        "OPTIONS / HTTP/1.1\nX-Amz-Target: Nothing.Known",
        "POST / HTTP/1.1\nContent-Type: application/x-www-form-urlencoded",
        "GET /v1/models HTTP/1.1\nAuthorization: Bearer rl-wrong",
        "GET /v1/models HTTP/1.1\nAuthorization: Basic dXNlcjpwYXNz",
        "GET /b/k HTTP/1.1\nAuthorization: AWS AKID:c2ln",
        "GET /b/k?X-Amz-Signature=0 HTTP/1.1",
        "GET /b/k?AWSAccessKeyId=AKID&Signature=c2ln&Expires=9999999999 HTTP/1.1",
        "GET /api/zoo HTTP/1.1\nUpgrade: websocket\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n"
        "Sec-WebSocket-Version: 13",
        "OPTIONS * HTTP/1.1",
        "GET http://elsewhere/api/zoo HTTP/1.1",
        "GET //healthz HTTP/1.1",
    ],
)
def test_odd_requests_without_a_valid_key(world: World, head: str) -> None:
    world.start_gateway()
    keep = "close, Upgrade" if "Upgrade" in head else "close"
    status, _ = exchange(world, f"{head}\nHost: h\nConnection: {keep}")
    assert status in (401, 403)
    assert not world.control.seen


@pytest.mark.parametrize("path", ["/endpoints/x/invocations", "/api/keys", "/metrics"])
def test_a_strangers_body_is_not_waited_for(world: World, path: str) -> None:
    """The refusal comes although the announced body, too large at that, never does."""
    world.start_gateway()
    head = f"POST {path} HTTP/1.1\nHost: h\nContent-Length: 99999999999"
    status, _ = exchange(world, f"{head}\nConnection: close")
    assert status in (401, 403)
    scope = "20260101/us-east-1/sagemaker/aws4_request"
    status, _ = exchange(
        world,
        f"{head}\nConnection: close\nX-Amz-Date: 20260101T000000Z\nAuthorization: AWS4-HMAC-SHA256"
        f" Credential=AKIDNOBODY/{scope}, SignedHeaders=host;x-amz-date, Signature=00",
    )
    assert status == 403


def test_health_needs_no_key_but_an_object_of_that_name_does(world: World) -> None:
    world.start_gateway()
    assert exchange(world, "GET /healthz HTTP/1.1\nHost: h\nConnection: close")[0] == 200
    virtual = "GET /healthz HTTP/1.1\nHost: b.s3.amazonaws.com\nConnection: close"
    assert exchange(world, virtual)[0] == 403
    s3 = world.client("s3")
    s3.create_bucket(Bucket="healthz")
    assert s3.list_objects_v2(Bucket="healthz")["KeyCount"] == 0


def test_a_valid_key_gets_the_answers_that_strangers_do_not(world: World) -> None:
    world.start_gateway()
    head = "GET /v1/nothing HTTP/1.1\nHost: h\nConnection: close\nAuthorization: Bearer "
    status, said = exchange(world, head + "rl-test-bearer")
    assert (status, json.loads(said)["error"]["code"]) == (404, "unknown_url")
