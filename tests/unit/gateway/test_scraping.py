"""Prometheus' side of the gateway: replicas discovered, and scraped through it with a key."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from aiohttp import web

from .conftest import BEARER, TOKEN, World, route


async def replica(request: web.Request) -> web.Response:
    if request.headers.get("X-Ridgeline-Token") != TOKEN:
        return web.Response(status=401)
    return web.Response(text=f"vllm:num_requests_running 1.0 # {request.path}\n")


async def broken(request: web.Request) -> web.Response:
    return web.Response(status=500)


def get(url: str, *, key: str = BEARER, method: str = "GET") -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def url(world: World) -> str:
    world.publish(
        route(
            "smol",
            world.replica(replica),
            world.replica(broken),
            task="text-generation",
            variants={"Blue": 1.0, "Green": 1.0},
        ),
        route("plain", world.replica(replica)),
    )
    world.start_gateway()
    return world.url


def test_replicas_of_model_servers_are_discovered_and_scraped(url: str) -> None:
    status, body = get(f"{url}/metrics/targets")
    found = json.loads(body)
    assert status == 200
    assert [target["labels"]["variant"] for target in found] == ["Blue", "Green"]
    first = found[0]
    assert first["labels"] == {
        "__metrics_path__": "/metrics/replicas/r0",
        "endpoint": "smol",
        "variant": "Blue",
        "replica": "r0",
    }
    scraped = get(f"http://{first['targets'][0]}{first['labels']['__metrics_path__']}")
    assert scraped == (200, b"vllm:num_requests_running 1.0 # /metrics\n")


def test_a_replica_that_fails_is_a_503_that_names_it(url: str) -> None:
    status, body = get(f"{url}/metrics/replicas/r1")
    assert status == 503
    assert json.loads(body)["error"]["message"] == "Replica r1 answered 500."


def test_an_unknown_replica_and_a_wrong_method(url: str) -> None:
    status, body = get(f"{url}/metrics/replicas/r9")
    assert (status, json.loads(body)["error"]["code"]) == (404, "NotFound")
    assert get(f"{url}/metrics", method="POST")[0] == 405


@pytest.mark.parametrize("path", ["/metrics", "/metrics/targets", "/metrics/replicas/r0"])
def test_a_key_is_needed(url: str, path: str) -> None:
    assert get(url + path, key="")[0] == 401
    assert get(url + path, key="rl-wrong")[0] == 401
