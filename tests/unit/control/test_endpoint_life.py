"""Endpoints as a user sees them come up, change, break and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ridgeline_service.errors import AwsError, ValidationException
from ridgeline_service.settings import Settings

from .conftest import data_is_gone


def test_an_endpoint_comes_into_service_with_routes_to_its_replicas(world):
    world.deploy("e", count=2)
    assert world.status("e") == "InService"
    assert len(world.serving("e")) == 2
    assert set(world.serving("e")) == world.living()
    variant = world.describe("e")["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (2, 2)
    assert world.route("e").task == "text-generation"


def test_no_route_is_published_before_the_replica_is_ready(world):
    world.model("m")
    world.config("c", "m")
    world.endpoint("e", "c")
    for _ in range(4):
        world.tick(0.3)
        assert world.status("e") == "Creating"
        assert world.serving("e") == []


def test_a_model_that_cannot_load_fails_the_endpoint_with_its_cause_and_is_not_retried(world):
    world.deploy("e", LOAD="fails")
    described = world.describe("e")
    assert described["EndpointStatus"] == "Failed"
    assert "the weights are torn" in described["FailureReason"]
    assert world.launcher.started == 1
    assert world.living() == set()


def test_a_server_that_dies_at_its_start_is_tried_again_and_then_given_up(world):
    world.deploy("e", DIES_AFTER="1")
    assert world.status("e") == "Failed"
    assert "exited with status 1" in world.describe("e")["FailureReason"]
    assert world.launcher.started == 3


def test_missing_model_data_is_not_retried_but_a_failed_download_is(world):
    world.deploy("gone", STAGING="ModelDataInvalid")
    assert world.status("gone") == "Failed"
    assert len(world.staged) == 1
    world.deploy("flaky", STAGING="DownloadFailed")
    assert len(world.staged) == 4


def test_the_startup_timeout_of_the_variant_is_honoured(make_world):
    world = make_world(load_s=100.0)
    world.model("m")
    world.config("c", "m", ContainerStartupHealthCheckTimeoutInSeconds=60)
    world.endpoint("e", "c")
    world.settle()
    assert world.status("e") == "Failed"
    assert "of 60 s" in world.describe("e")["FailureReason"]
    assert world.living() == set()


def test_an_update_switches_when_the_new_replicas_are_ready_and_not_before(world):
    world.deploy("e")
    old = world.serving("e")
    world.model("m2")
    world.config("c2", "m2", count=2)
    world.update("e", "c2")
    assert world.describe("e")["PendingDeploymentSummary"]["EndpointConfigName"] == "c2"
    seen = set()
    while world.status("e") == "Updating":
        world.tick(0.25)
        seen.add(tuple(world.serving("e")))
        assert world.serving("e")
    assert len(seen) == 2, "old routes, then new ones, nothing in between"
    assert set(old) <= world.living(), "the old replica is drained after the switch, not before"
    world.settle()
    assert world.living() == set(world.serving("e"))
    assert not set(old) & world.living()
    assert world.describe("e")["EndpointConfigName"] == "c2"


def test_a_bad_update_leaves_the_old_version_serving(world):
    world.deploy("e")
    old = world.serving("e")
    world.model("bad", LOAD="fails")
    world.config("bad", "bad")
    world.update("e", "bad")
    for _ in range(40):
        world.tick(0.25)
        assert world.serving("e") == old
    world.settle()
    events = world.plane.events.list(resource="endpoint/e")
    changes = [event["change"] for event in events if event["resource"].endswith("/e")]
    assert changes[:3] == ["InService", "RollingBack", "Updating"]
    described = world.describe("e")
    assert described["EndpointConfigName"] == "e"
    assert "the weights are torn" in described["FailureReason"]
    assert world.living() == set(old)


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


def test_scaling_adds_and_drains_replicas_in_place(world):
    world.deploy("e")
    (first,) = world.serving("e")
    world.scale("e", count=3)
    world.settle()
    assert len(world.serving("e")) == 3
    assert first in world.serving("e")
    world.scale("e", count=1, weight=0.5)
    assert world.route("e").variants[0].weight == 0.5, "weights count at once"
    world.settle()
    assert world.status("e") == "InService"
    assert world.living() == set(world.serving("e"))
    assert len(world.living()) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.5, 30.0])
def test_deletion_works_in_every_state_and_leaves_nothing(world, seconds):
    world.model("m")
    world.config("c", "m", count=2)
    world.endpoint("e", "c")
    passed = 0.0
    while passed < seconds:
        world.tick(0.5)
        passed += 0.5
    world.plane.endpoints.delete({"EndpointName": "e"})
    assert "e" not in world.snapshot().endpoints, "its routes go before its replicas"
    world.plane.endpoints.delete({"EndpointName": "e"})
    world.settle()
    assert_gone(world, "e")


def test_a_failed_and_an_updating_endpoint_can_be_deleted(world):
    world.deploy("failed", LOAD="fails")
    world.deploy("updating")
    world.config("c2", "updating", count=3)
    world.update("updating", "c2")
    world.tick(0.5)
    for name in ("failed", "updating"):
        world.plane.endpoints.delete({"EndpointName": name})
    world.settle()
    for name in ("failed", "updating"):
        assert_gone(world, name)


def test_a_failed_endpoint_can_be_updated_to_something_that_works(world):
    world.deploy("e", LOAD="fails")
    world.model("good")
    world.config("good", "good")
    world.update("e", "good")
    world.settle()
    assert world.status("e") == "InService"
    assert "FailureReason" not in world.describe("e")


def test_an_endpoint_in_motion_refuses_another_update(world):
    world.model("m")
    world.config("c", "m")
    world.endpoint("e", "c")
    with pytest.raises(ValidationException, match="Cannot update in-progress endpoint"):
        world.update("e", "c")
    with pytest.raises(ValidationException, match="Cannot update in-progress endpoint"):
        world.scale("e", count=2)


def test_the_stage_table_names_every_stage_with_its_seconds(world):
    world.deploy("e")
    stages = world.plane.endpoints.stages("e")["stages"]
    assert [stage["name"] for stage in stages] == ["download", "health"]
    assert all(stage["state"] == "done" for stage in stages)
    assert stages[1]["seconds"] >= 2.0


def test_every_change_of_state_is_an_event(world):
    world.deploy("e")
    endpoint = [e["change"] for e in world.plane.events.list(resource="endpoint/e")]
    assert endpoint[::-1] == [
        "Creating",
        "pending",
        "staging",
        "starting",
        "loading",
        "ready",
        "InService",
    ]


def assert_gone(world, name: str) -> None:
    with pytest.raises(AwsError, match="Could not find endpoint"):
        world.describe(name)
    assert world.launcher.processes == {}
    assert name not in world.snapshot().endpoints


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


def test_a_download_that_takes_longer_than_the_variant_allows_is_given_up(world):
    world.model("m")
    world.config("c", "m", ModelDataDownloadTimeoutInSeconds=60)
    world.endpoint("e", "c")
    real = world.stage

    def slow(variant, report, cancelled):
        report("environment", 0, 0)
        world.now += 500  # installing the image's environment is nobody's fault
        assert not cancelled()
        report("download", 0, 10)
        world.now += 61
        return real(variant, report, cancelled)

    world.slow = slow
    world.settle()
    assert world.status("e") == "Failed"
    assert "longer than 60 s" in world.describe("e")["FailureReason"]


def test_a_long_failure_keeps_its_cause_and_the_last_line(world):
    world.model("m", STAGING="ModelDataInvalid", WORDS="x" * 3000 + " the last line")
    world.config("c", "m")
    world.endpoint("e", "c")
    world.settle()
    reason = world.describe("e")["FailureReason"]
    assert len(reason) <= 1024
    assert reason.startswith("The model data cannot be used: xxx")
    assert reason.endswith("the last line")


def test_a_whole_life_on_postgresql(make_world, postgresql):
    world = make_world(settings=Settings(database_url=postgresql))
    other, _ = world.new_plane()
    world.deploy("e", count=2)
    world.model("m2")
    world.config("c2", "m2")
    world.update("e", "c2")
    for _ in range(10):
        other.run_once()
        world.tick(0.5)
        assert world.serving("e")
    world.launcher.processes[world.serving("e")[0]].alive = False
    world.kill_plane()
    world.settle()
    assert world.status("e") == "InService"
    assert world.living() == set(world.serving("e"))
    world.plane.endpoints.delete({"EndpointName": "e"})
    world.settle()
    assert_gone(world, "e")


def test_the_task_is_known_while_no_replica_is_ready(world):
    world.deploy("e")
    (victim,) = world.serving("e")
    world.launcher.processes[victim].alive = False
    world.kill_plane()
    world.tick(1.0)
    assert world.serving("e") == []
    assert world.route("e").task == "text-generation"


def test_a_server_that_never_opens_its_port_is_told_from_one_that_is_slow(make_world):
    world = make_world(load_s=1000.0)
    for name, port in (("silent", "closed"), ("slow", "open")):
        world.model(name, PORT=port)
        world.config(name, name, ContainerStartupHealthCheckTimeoutInSeconds=60)
        world.endpoint(name, name)
        world.settle()
    head = "The primary container did not pass the ping health check in time: "
    assert world.describe("silent")["FailureReason"].startswith(head + "nothing answered at its")
    assert world.describe("slow")["FailureReason"].startswith(head + "it is loading after 6")


def test_the_stage_that_failed_has_the_time_it_took(make_world):
    world = make_world(load_s=1000.0)
    world.model("e", STAGE="load")
    world.config("e", "e", ContainerStartupHealthCheckTimeoutInSeconds=60)
    world.endpoint("e", "e")
    world.settle()
    stage = world.plane.endpoints.stages("e")["stages"][-1]
    assert (stage["name"], stage["state"]) == ("load", "failed")
    assert 55 < stage["seconds"] < 70


def test_the_hint_is_a_next_step_and_no_repetition(world):
    world.deploy("e", LOAD="fails")
    shown = world.plane.endpoints.stages("e")
    assert shown["failure_reason"] == (
        "The model server could not load the model: the weights are torn"
    )
    assert "ridgeline logs e" in shown["hint"]
    assert shown["replicas"][0]["message"] == shown["failure_reason"]
    world.deploy("fine")
    assert world.plane.endpoints.stages("fine")["hint"] == ""
