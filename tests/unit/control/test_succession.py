"""A control plane after another, or beside it: nothing is lost, nothing runs twice."""

from __future__ import annotations

import pytest


def test_a_killed_control_plane_is_followed_by_one_that_adopts_the_replicas(world):
    world.deploy("e", count=2)
    serving = world.serving("e")
    world.kill_plane()
    world.settle()
    assert world.serving("e") == serving
    assert world.launcher.started == 2
    changes = [event["change"] for event in world.plane.events.list(resource="e/A/")]
    assert changes.count("Adopted") == 2


def test_processes_that_no_row_knows_are_ended_at_the_start(world):
    world.deploy("e")
    (known,) = world.serving("e")
    stranger = world.launcher.processes[known].spec
    world.launcher.start(type(stranger)(**{**vars(stranger), "replica_id": "stranger"}))
    world.kill_plane()
    assert world.living() == {known}


def test_a_replica_whose_start_was_not_written_down_is_found_again(world):
    """The control plane was killed between the start of the process and the row's update."""
    world.model("m")
    world.config("c", "m")
    world.endpoint("e", "c")
    real = world.launcher.start

    def start_then_die(spec):
        real(spec)
        raise KeyboardInterrupt

    world.launcher.start = start_then_die
    world.tick(0.5)
    with pytest.raises(KeyboardInterrupt):
        world.tick(0.5)
    world.launcher.start = real
    world.kill_plane()
    world.settle()
    assert world.status("e") == "InService"
    assert world.launcher.started == 1


def test_two_control_planes_do_not_start_anything_twice(world):
    other, _ = world.new_plane()
    world.model("m")
    world.config("c", "m", count=3)
    world.endpoint("e", "c")
    for _ in range(20):
        other.run_once()
        world.tick(0.5)
    assert world.status("e") == "InService"
    assert world.launcher.started == 3
