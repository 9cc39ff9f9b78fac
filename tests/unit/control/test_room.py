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
    assert "`ridgeline ls` and `ridgeline jobs` list what runs" in replica["message"]
    assert "max_instances in settings.json" in replica["message"]
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


def crowded(make_world):
    """Three of an endpoint wait for room that another one has."""
    world = make_world(settings=Settings(max_instances=4))
    world.deploy("e")
    world.deploy("other", count=2)
    world.scale("e", count=4)
    for _ in range(20):
        world.tick(0.5)
    assert len(world.serving("e")) == 2
    assert world.status("e") == "Updating"
    return world


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_change_of_capacity_that_waits_for_room_can_be_changed(make_world, count):
    world = crowded(make_world)
    world.scale("e", count=count)
    if count == 3:
        world.plane.endpoints.delete({"EndpointName": "other"})
    world.settle()
    assert world.status("e") == "InService"
    assert len(world.serving("e")) == count
    assert "FailureReason" not in world.describe("e")


def test_a_scale_out_without_room_ends_at_what_was_reached(make_world):
    world = crowded(make_world)
    serving = world.serving("e")
    while world.status("e") == "Updating":
        world.tick(30.0)
    world.settle()
    described = world.describe("e")
    assert described["EndpointStatus"] == "InService"
    assert described["ProductionVariants"][0]["DesiredInstanceCount"] == 2
    assert "There was no room on this machine in time" in described["FailureReason"]
    assert "max_instances in settings.json" in described["FailureReason"]
    assert world.serving("e") == serving
    world.plane.endpoints.delete({"EndpointName": "other"})
    world.scale("e", count=4)
    world.settle()
    assert len(world.serving("e")) == 4


def test_what_waits_for_memory_leaves_what_is_free_to_others(make_world):
    world = make_world(memory_bytes=8 * GIB)
    world.model("large", RIDGELINE_MEMORY_MB="3072")
    world.config("large", "large")
    world.endpoint("large", "large")
    world.deploy("e")
    world.deploy("other", count=2)
    world.scale("large", count=2)
    world.tick(1.0)
    world.plane.scaling.register(
        {
            "ServiceNamespace": "sagemaker",
            "ResourceId": "endpoint/e/variant/A",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
            "MinCapacity": 2,
            "MaxCapacity": 2,
        }
    )
    world.plane.scale_once()
    while world.status("e") == "Updating":
        world.tick(1.0)
    assert len(world.serving("e")) == 2


def test_another_capacity_waits_for_its_own_half_hour(make_world):
    world = make_world(settings=Settings(max_instances=6))
    world.deploy("e")
    world.deploy("other", count=4)
    world.scale("e", count=4)
    for _ in range(172):
        world.tick(10)
    world.scale("e", count=5)
    for _ in range(170):
        world.tick(10)
    assert world.status("e") == "Updating"
    for _ in range(20):
        world.tick(10)
    described = world.describe("e")
    assert described["EndpointStatus"] == "InService"
    assert described["ProductionVariants"][0]["DesiredInstanceCount"] == 2
