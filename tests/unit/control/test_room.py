"""What waits for room on this machine, and what can never have it."""

from __future__ import annotations

import pytest

from ridgeline_service.errors import ResourceLimitExceeded
from ridgeline_service.placement.machine import GIB
from ridgeline_service.settings import Settings


def test_what_waits_says_for_what_and_starts_when_there_is_room(make_world):
    world = make_world(settings=Settings(max_instances=2))
    world.deploy("first", count=2)
    world.model("m")
    world.config("c", "m")
    world.endpoint("second", "c")
    world.tick(1.0)
    (replica,) = world.plane.endpoints.stages("second")["replicas"]
    assert replica["status"] == "pending"
    assert "2 of at most 2 run" in replica["message"]
    status = world.describe("second")["ProductionVariants"][0]["VariantStatus"][0]
    assert "2 of at most 2 run" in status["StatusMessage"]
    world.plane.endpoints.delete({"EndpointName": "first"})
    world.settle()
    assert world.status("second") == "InService"


def test_waiting_for_memory_gives_the_numbers(make_world):
    world = make_world(memory_bytes=3 * GIB)
    world.deploy("first", count=2)
    world.model("m")
    world.config("c", "m", count=2)
    world.endpoint("second", "c")
    world.tick(1.0)
    messages = [r["message"] for r in world.plane.endpoints.stages("second")["replicas"]]
    assert any("needs 1.0 GiB, and 0.0 GiB of 3.0 GiB are free" in text for text in messages)


def test_an_update_that_can_never_fit_beside_the_old_one_is_refused(make_world):
    world = make_world(settings=Settings(max_instances=4))
    world.deploy("e", count=3)
    world.config("c2", "e", count=2)
    with pytest.raises(ResourceLimitExceeded, match="2 running instances beside the 3"):
        world.update("e", "c2")
    assert world.status("e") == "InService"


def test_scaling_beyond_what_the_machine_can_hold_is_refused(make_world):
    world = make_world(memory_bytes=3 * GIB)
    world.deploy("e")
    with pytest.raises(ResourceLimitExceeded, match=r"4 replicas need 4\.0 GiB"):
        world.scale("e", count=4)
    assert world.status("e") == "InService"
