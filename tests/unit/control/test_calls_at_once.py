"""Calls that meet on the same rows of PostgreSQL: the last one wins, and none fails for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ridgeline_service.control.tags import MAX_TAGS
from ridgeline_service.errors import ValidationException
from ridgeline_service.settings import Settings
from ridgeline_service.store import endpoints

from .test_alarms import Watched
from .test_scaling import RESOURCE

MODEL = "arn:aws:sagemaker:us-east-1:123456789012:model/m"
THREADS = 8


@pytest.fixture
def world(make_world, postgresql):
    return make_world(settings=Settings(database_url=postgresql))


def at_once(call: Callable[[int], object]) -> list[BaseException | None]:
    """What each of the calls, by its number, raised."""
    together = threading.Barrier(THREADS)

    def begin(number: int) -> None:
        together.wait(10)
        call(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return [each.exception() for each in [pool.submit(begin, n) for n in range(THREADS)]]


def test_tags_of_one_key(world):
    world.model("m")
    for round_ in range(5):
        tags = [
            {"ResourceArn": MODEL, "Tags": [{"Key": f"k{round_}", "Value": str(number)}]}
            for number in range(THREADS)
        ]
        assert at_once(lambda number, tags=tags: world.plane.tags.add(tags[number])) == (
            [None] * THREADS
        )
    assert len(world.plane.tags.list({"ResourceArn": MODEL})["Tags"]) == 5


def test_tags_beyond_the_limit(world):
    world.model("m")
    every = [{"Key": f"k{number}", "Value": ""} for number in range(MAX_TAGS + THREADS)]
    world.plane.tags.add({"ResourceArn": MODEL, "Tags": every[: MAX_TAGS - 1]})
    raised = at_once(
        lambda number: world.plane.tags.add({"ResourceArn": MODEL, "Tags": [every[-number - 1]]})
    )
    assert [type(each) for each in raised].count(ValidationException) == THREADS - 1
    assert len(world.plane.tags.list({"ResourceArn": MODEL})["Tags"]) == MAX_TAGS


def test_a_new_scalable_target(world):
    world.deploy("e")
    for _ in range(5):
        request = {**RESOURCE, "MinCapacity": 1, "MaxCapacity": 4}
        assert at_once(lambda _, request=request: world.plane.scaling.register(request)) == (
            [None] * THREADS
        )
        assert len(world.plane.scaling.describe_targets(RESOURCE)["ScalableTargets"]) == 1
        world.plane.scaling.deregister(RESOURCE)


def test_alarms_named_in_another_order(world):
    watched = Watched(world)
    names = [f"z{number}" for number in range(20)]
    for name in names:
        watched.put(name)
    orders = (names, names[::-1])
    verbs = (watched.verbs.enable_actions, watched.verbs.disable_actions)
    for _ in range(5):
        assert at_once(lambda number: verbs[number % 2]({"AlarmNames": orders[number % 2]})) == (
            [None] * THREADS
        )
    watched.samples.close()


def test_a_snapshot_is_of_one_moment(world, monkeypatch):
    """An update that ends between two of its queries leaves no endpoint without its variants."""
    world.deploy("e")
    all_endpoints = endpoints.all_endpoints
    moved: list[str] = []

    def after_an_update(connection):
        moved.append(f"d{len(moved)}")
        with world.databases[0].write() as other:
            [former, *_] = endpoints.all_deployments(other)
            endpoints.add_deployment(other, replace(former, id=moved[-1]))
            endpoints.change_endpoint(other, former.endpoint_arn, active_deployment=moved[-1])
        return all_endpoints(connection)

    monkeypatch.setattr(endpoints, "all_endpoints", after_an_update)
    world.plane.keys.create("k")
    assert moved
    assert world.route("e").variants != ()
