"""Endpoints as a user sees them come up, change, break and go."""

from __future__ import annotations

import pytest

from ridgeline_service.errors import AwsError, ValidationException
from ridgeline_service.settings import Settings
from ridgeline_service.store.states import Reason


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


def test_a_full_disk_ends_the_creation_and_says_so(world):
    world.deploy("e", STAGING="DiskFull", WORDS="s3://b/m.tar.gz has 3.0 GiB")
    assert world.status("e") == "Failed"
    assert len(world.staged) == 1
    reason = world.describe("e")["FailureReason"]
    assert reason == "The service's disk is full: s3://b/m.tar.gz has 3.0 GiB"
    assert "RIDGELINE_CACHE" in Reason.DISK_FULL.next_step("e")


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
