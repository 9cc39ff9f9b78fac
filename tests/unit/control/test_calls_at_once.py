"""Calls that meet on the same rows of PostgreSQL: the last one wins, and none fails for another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url

from ridgeline.errors import RidgelineError
from ridgeline_service.control.scaling.resources import ObjectNotFound
from ridgeline_service.control.tags import MAX_TAGS
from ridgeline_service.errors import ValidationException
from ridgeline_service.settings import Settings
from ridgeline_service.store import endpoints, journal

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


def test_tags_of_what_is_deleted_meanwhile_stay_with_it(world):
    """Whatever has the name next begins without them."""
    watched, alarm = Watched(world), {"AlarmNames": ["high"]}
    tags = [{"Key": "of the former", "Value": ""}]

    def model(number: int) -> None:
        if number % 2:
            world.plane.models.delete({"ModelName": "m"})
        else:
            world.plane.tags.add({"ResourceArn": MODEL, "Tags": tags})

    def alarm_of_a_name(number: int) -> None:
        if number % 2:
            watched.verbs.delete(alarm)
        else:
            watched.verbs.tag({"ResourceARN": arn, "Tags": tags})

    for _ in range(10):
        world.model("m")
        watched.put()
        arn = watched.shown()["AlarmArn"]
        for calls in (model, alarm_of_a_name):
            raised = at_once(calls)
            assert all(isinstance(each, RidgelineError) for each in raised if each is not None)
        world.model("m")
        watched.put()
        assert world.plane.tags.list({"ResourceArn": MODEL})["Tags"] == []
        assert watched.verbs.list_tags({"ResourceARN": arn})["Tags"] == []
        world.plane.models.delete({"ModelName": "m"})
        watched.verbs.delete(alarm)
    watched.samples.close()


def until_it_waits(call: Future[Any], postgresql: str) -> None:
    """For a lock of another; or has ended."""
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        while not call.done() and connection.execute(waiting).fetchone() is None:
            pass


def test_a_tag_that_an_update_replaces(world, postgresql):
    """As the warning of an endpoint, while another call adds the same one."""
    db = world.databases[0]

    def add(value: str) -> None:
        with db.write() as connection:
            journal.put_tags(connection, "arn", {"warning": value})

    add("0")
    with ThreadPoolExecutor(1) as pool, db.write() as connection:
        journal.remove_tags(connection, "arn", ["warning"])
        added = pool.submit(add, "1")
        until_it_waits(added, postgresql)
        journal.put_tags(connection, "arn", {"warning": "2"})
    assert added.exception() is None


def test_a_scalable_target_that_goes_with_its_endpoint(world, postgresql, monkeypatch):
    world.deploy("e")
    target = {**RESOURCE, "MinCapacity": 1, "MaxCapacity": 4, "Tags": {"team": "x"}}
    arn = world.plane.scaling.register(target)["ScalableTargetARN"]
    remove_all_tags = journal.remove_all_tags
    deregistered: list[Future[Any]] = []

    def then_deregister(connection: Connection, of: str) -> None:
        remove_all_tags(connection, of)
        if of == arn and not deregistered:
            deregistered.append(pool.submit(world.plane.scaling.deregister, RESOURCE))
            until_it_waits(deregistered[0], postgresql)

    monkeypatch.setattr(journal, "remove_all_tags", then_deregister)
    world.plane.endpoints.delete({"EndpointName": "e"})
    with ThreadPoolExecutor(1) as pool:
        world.settle()
    assert [type(each.exception()) for each in deregistered] == [ObjectNotFound]
    assert world.plane.endpoints.list({})["Endpoints"] == []


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


def test_one_connection_is_enough_for_a_snapshot(make_world, postgresql):
    url = make_url(postgresql)
    role = url.database
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 1")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {role}")
        try:
            own = url.set(username=role, password="p").render_as_string(hide_password=False)
            world = make_world(settings=Settings(database_url=own))
            key = world.plane.keys.create("k")
            assert key["key_id"] in [each.key_id for each in world.snapshot().api_keys]
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
