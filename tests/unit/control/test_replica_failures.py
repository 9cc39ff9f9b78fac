"""Replicas that die, hang or never start, and the service that is stopped: what becomes of an
endpoint."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import ask_for_stop

from .conftest import data_is_gone
from .test_update_traffic import begin, policy, until_moving


def test_a_killed_replica_leaves_the_routes_and_is_replaced(world):
    world.deploy("e", count=2)
    victim, other = world.serving("e")
    world.launcher.processes[victim].alive = False
    world.tick(1.0)
    assert world.serving("e") == [other]
    world.settle()
    assert len(world.serving("e")) == 2
    assert victim not in world.serving("e")
    assert world.status("e") == "InService"


def test_a_hung_replica_is_killed_and_replaced(world):
    world.deploy("e")
    (victim,) = world.serving("e")
    world.launcher.processes[victim].hung = True
    world.settle()
    assert victim not in world.living()
    assert len(world.serving("e")) == 1


def test_a_replica_whose_device_failed_is_replaced_at_the_next_look(world):
    world.deploy("e", count=2)
    victim, other = world.serving("e")
    world.launcher.processes[victim].lost = True
    for _ in range(6):
        world.tick(1.0)
    assert victim not in world.serving("e")
    assert other in world.serving("e")
    world.settle()
    assert len(world.serving("e")) == 2
    events = world.plane.events.list(resource="endpoint/e")
    [event] = [one for one in events if one["reason"] == "DeviceFailed"]
    assert "the core failed before" in event["message"]


def die_after(world, seconds):
    """Every server that starts from now on ends so long after; None: none does."""
    real = type(world.launcher).start

    def start(spec):
        environment = {**spec.environment, "DIES_AFTER": str(seconds)} if seconds else {}
        return real(world.launcher, replace(spec, environment=environment))

    world.launcher.start = start


def pass_time(world, seconds):
    for _ in range(seconds * 2):
        world.tick(0.5)


def kill_what_serves(world, name, times):
    """As a request does that no replica survives."""
    for _ in range(times):
        pass_time(world, 1)
        for _ in range(90):
            if world.serving(name):
                break
            world.tick(1.0)
        assert world.serving(name), world.status(name)
        for victim in world.serving(name):
            world.launcher.processes[victim].alive = False


def test_requests_that_kill_replicas_do_not_end_the_endpoint(world):
    world.deploy("e", count=2)
    kill_what_serves(world, "e", 12)
    pass_time(world, 5)
    described = world.describe("e")
    assert described["EndpointStatus"] == "InService"
    assert described["FailureReason"].startswith("The model server ended by itself: ")
    world.settle()
    assert len(world.serving("e")) == 2
    assert "FailureReason" not in world.describe("e"), "it recovered, and nothing else happened"


def test_a_crash_loop_says_so_and_goes_on_with_pauses(world):
    world.deploy("e")
    die_after(world, 5)
    kill_what_serves(world, "e", 1)
    pass_time(world, 900)
    started = world.launcher.started
    assert started < 25
    pass_time(world, 140)
    assert started + 1 <= world.launcher.started <= started + 3
    assert world.status("e") == "InService"
    assert "ended by itself" in world.describe("e")["FailureReason"]
    die_after(world, None)
    world.settle()
    assert len(world.serving("e")) == 1
    assert "FailureReason" not in world.describe("e")


def test_starts_that_fail_again_and_again_end_an_endpoint_that_served(world):
    world.deploy("e")
    die_after(world, 1)
    kill_what_serves(world, "e", 1)
    world.settle()
    assert world.status("e") == "Failed"
    assert world.describe("e")["FailureReason"].startswith("The model server ended by itself: ")
    assert world.launcher.started <= 12
    assert world.living() == set()


def test_a_variant_whose_starts_fail_does_not_end_one_that_only_pauses(world):
    world.model("m")
    variant = {"ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    variants = [{"VariantName": name, **variant} for name in "AB"]
    world.plane.endpoint_configs.create({"EndpointConfigName": "c", "ProductionVariants": variants})
    world.endpoint("e", "c")
    world.settle()
    real = world.launcher.start

    def only_a_starts(spec):
        broken = {"DIES_AFTER": "1"} if spec.log_stream.startswith("B/") else {}
        return real(replace(spec, environment={**spec.environment, **broken}))

    world.launcher.start = only_a_starts
    kill_what_serves(world, "e", 1)
    world.settle()
    assert len(world.serving("e")) == 1
    kill_what_serves(world, "e", 6)
    pass_time(world, 5)
    assert world.living() == set()
    assert world.status("e") == "InService"
    world.settle()
    assert len(world.serving("e")) == 1


def test_an_endpoint_that_was_scaled_to_nothing_begins_anew(world):
    world.model("m")
    request = {
        "EndpointConfigName": "c",
        "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}},
        "ProductionVariants": [
            {
                "VariantName": "A",
                "ModelName": "m",
                "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
            }
        ],
    }
    world.plane.endpoint_configs.create(request)
    world.endpoint("e", "c")
    world.settle()
    kill_what_serves(world, "e", 6)
    pass_time(world, 2)
    assert "FailureReason" in world.describe("e")
    world.scale("e", count=0)
    world.settle()
    assert "FailureReason" not in world.describe("e")
    world.scale("e", count=1)
    pass_time(world, 5)
    assert len(world.serving("e")) == 1
    assert world.status("e") == "InService"
    assert "FailureReason" not in world.describe("e")


def test_requests_that_kill_replicas_do_not_undo_a_scale_out(make_world):
    world = make_world(load_s=10.0)
    world.deploy("e", count=4)
    world.scale("e", count=5)
    for _ in range(3):
        victim = world.serving("e")[0]
        world.launcher.processes[victim].alive = False
        pass_time(world, 2)
    assert world.status("e") == "Updating"
    world.settle()
    assert len(world.serving("e")) == 5
    assert world.status("e") == "InService"


def test_a_scale_out_whose_replicas_fail_goes_back_and_the_endpoint_serves_on(world):
    world.deploy("e")
    serving = world.serving("e")
    die_after(world, 1)
    world.scale("e", count=2)
    world.settle()
    described = world.describe("e")
    assert described["EndpointStatus"] == "InService"
    assert described["ProductionVariants"][0]["DesiredInstanceCount"] == 1
    assert "ended by itself" in described["FailureReason"]
    assert world.serving("e") == serving


def test_a_scale_out_is_not_judged_by_those_that_failed_before_it(world):
    world.deploy("e")
    world.slow = data_is_gone
    for _ in range(9):
        world.scale("e", count=2)
        world.settle()
        assert "the data is gone" in world.describe("e")["FailureReason"]
    world.slow = None
    world.scale("e", count=2)
    world.settle()
    assert len(world.serving("e")) == 2
    assert "FailureReason" not in world.describe("e")


def stop_service(world):
    """As `ridgeline down`, or a machine that is shut down in order."""
    for process in world.launcher.processes.values():
        folder = world.data_dir.replicas / process.spec.replica_id
        folder.mkdir(parents=True, exist_ok=True)
        ask_for_stop(folder, Cause.INTERRUPTED)
        process.alive = False
    world.kill_plane()


def cut_power(world):
    """Everything is gone at once, and nobody could write how it ended."""
    world.launcher.processes.clear()
    world.kill_plane()


@pytest.mark.parametrize("end", [stop_service, cut_power])
def test_a_stopped_service_starts_its_replicas_at_once_however_often(world, end):
    world.deploy("e", count=2)
    for _ in range(12):
        end(world)
        pass_time(world, 2)
        assert len(world.living()) == 2, "they start without a pause"
        pass_time(world, 8)
        assert len(world.serving("e")) == 2
        assert "FailureReason" not in world.describe("e")


@pytest.mark.parametrize("end", [stop_service, cut_power])
def test_a_stopped_service_goes_on_with_an_update_that_bakes(world, end):
    begin(world, policy("CANARY", 60, 120, CanarySize=50), count=2)
    until_moving(world)
    end(world)
    pass_time(world, 400)
    assert world.status("e") == "InService"
    assert world.describe("e")["EndpointConfigName"] == "c2", "it was not rolled back"


def test_a_replica_whose_end_nobody_saw_counts_as_dead_while_the_service_runs(world):
    world.deploy("e")
    for _ in range(4):
        (victim,) = world.serving("e")
        del world.launcher.processes[victim]
        pass_time(world, 20)
    assert "FailureReason" in world.describe("e")
