"""UpdateEndpoint with a DeploymentConfig: when the traffic goes over, and back."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline_service.errors import AwsError, ValidationException


def policy(kind: str, wait_s: int = 0, termination_s: int = 0, **sizes: int) -> dict[str, Any]:
    """A DeploymentConfig whose sizes are per cent."""
    capacity = {n: {"Type": "CAPACITY_PERCENT", "Value": value} for n, value in sizes.items()}
    routing = {"Type": kind, "WaitIntervalInSeconds": wait_s, **capacity}
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": termination_s,
            "MaximumExecutionTimeoutInSeconds": 1200,
        }
    }


CANARY = policy("CANARY", 60, 120, CanarySize=10)


def begin(world, config: dict[str, Any] | None, *, count: int = 1, **environment: str) -> None:
    """An endpoint of two replicas, and an update of it to another model."""
    world.deploy("e", count=2)
    world.model("m2", **environment)
    world.config("c2", "m2", count=count)
    update(world, DeploymentConfig=config)


def update(world, **values: Any) -> None:
    world.plane.endpoints.update({"EndpointName": "e", "EndpointConfigName": "c2", **values})


def shares(world) -> list[float]:
    """The part of the variant's requests that each deployment gets, the old one first."""
    return [round(v.share, 3) for v in world.route("e").variants]


def until_moving(world) -> None:
    for _ in range(60):
        if len(shares(world)) == 2:
            return
        world.tick(1.0)
    raise AssertionError("the new deployment gets no traffic")


def seen_shares(world) -> list[tuple[list[float], float]]:
    """The shares one after another until the update ends, each with how long it held."""
    seen: list[tuple[list[float], float]] = []
    began = world.now
    while world.status("e") == "Updating":
        now = shares(world)
        if not seen or seen[-1][0] != now:
            began = world.now
            seen.append((now, 0.0))
        world.tick(1.0)
        seen[-1] = (now, world.now - began)
    return seen


def test_all_at_once_keeps_the_old_fleet_for_the_termination_wait(world):
    begin(world, policy("ALL_AT_ONCE", 0, 300))
    old = set(world.serving("e"))
    until_moving(world)
    assert seen_shares(world) == [([0.0, 1.0], 300.0)]
    assert shares(world) == [1.0]
    assert not old & set(world.serving("e"))
    world.settle()
    assert world.living() == set(world.serving("e"))


def test_a_canary_waits_and_then_gets_all(world):
    begin(world, CANARY)
    until_moving(world)
    assert seen_shares(world) == [([0.9, 0.1], 60.0), ([0.0, 1.0], 120.0)]
    assert world.describe("e")["EndpointConfigName"] == "c2"
    assert world.describe("e")["LastDeploymentConfig"] == CANARY


def test_linear_steps(world):
    begin(world, policy("LINEAR", 30, LinearStepSize=30))
    until_moving(world)
    steps = [([0.7, 0.3], 30.0), ([0.4, 0.6], 30.0), ([0.1, 0.9], 30.0)]
    assert seen_shares(world) == steps, "with no termination wait the last step is the end"


def test_a_rolling_update_moves_its_batches(world):
    size = {"Type": "CAPACITY_PERCENT", "Value": 50}
    begin(world, {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": 45}})
    until_moving(world)
    assert seen_shares(world) == [([0.5, 0.5], 45.0), ([0.0, 1.0], 45.0)]


def test_describe_says_where_the_update_is(world):
    begin(world, CANARY)
    [new] = world.describe("e")["PendingDeploymentSummary"]["ProductionVariants"]
    assert new["VariantStatus"][0]["Status"] == "Creating"
    assert new["CurrentWeight"] == 0.0
    until_moving(world)
    described = world.describe("e")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("Updating", "e")
    [old], [new] = (
        described["ProductionVariants"],
        described["PendingDeploymentSummary"]["ProductionVariants"],
    )
    assert [s["Status"] for s in new["VariantStatus"]] == ["ActivatingTraffic", "Baking"]
    assert "10% of the variant's traffic" in new["VariantStatus"][0]["StatusMessage"]
    assert new["VariantStatus"][0]["StartTime"].timestamp() == world.now
    assert (old["CurrentWeight"], old["DesiredWeight"]) == (0.9, 1.0)
    assert (new["CurrentWeight"], new["CurrentInstanceCount"]) == (0.1, 1)
    stage = world.plane.endpoints.stages("e")["stages"][-1]
    assert (stage["name"], stage["state"]) == ("traffic", "running")
    assert stage["detail"] == "10% of the traffic goes to the new deployment"
    world.tick(60)
    [new] = world.describe("e")["PendingDeploymentSummary"]["ProductionVariants"]
    assert [s["Status"] for s in new["VariantStatus"]] == ["Baking"]
    moves = [e["message"] for e in world.plane.events.list() if e["change"] == "TrafficMoved"]
    assert moves == [f"{p} of the traffic goes to the new deployment." for p in ("100%", "10%")]


def test_a_killed_control_plane_goes_on_with_the_step_it_was_at(world):
    begin(world, CANARY)
    until_moving(world)
    world.tick(40)
    world.kill_plane()
    world.tick(19)
    assert shares(world) == [0.9, 0.1]
    world.tick(1)
    assert shares(world) == [0.0, 1.0]
    world.now += 3600
    world.kill_plane()
    world.tick()
    assert (world.status("e"), shares(world)) == ("RollingBack", [1.0]), "its time was over"


def test_an_hour_without_a_control_plane_leaves_out_no_step(world):
    config = policy("CANARY", 60, 120, CanarySize=10)
    del config["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"]
    begin(world, config)
    until_moving(world)
    world.now += 3600
    world.kill_plane()
    assert seen_shares(world)[-1] == ([0.0, 1.0], 120.0)


def test_the_maximum_execution_time_is_kept(world):
    world.deploy("e", count=2)
    world.model("m2", PORT="closed")
    world.config("c2", "m2", ContainerStartupHealthCheckTimeoutInSeconds=3600)
    update(world, DeploymentConfig=CANARY)
    old, began = world.serving("e"), world.now
    while world.status("e") == "Updating":
        world.tick(10)
        assert world.serving("e") == old
    assert world.now - began == 1200
    world.settle()
    described = world.describe("e")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "e")
    assert "MaximumExecutionTimeoutInSeconds is 1200" in described["FailureReason"]
    assert world.living() == set(old) == set(world.serving("e"))


def test_a_new_fleet_that_fails_while_it_bakes_gives_the_traffic_back(world):
    begin(world, CANARY)
    old = world.serving("e")
    until_moving(world)
    for _ in range(40):
        for replica in world.living() - set(old):
            world.launcher.processes[replica].alive = False
        world.tick(1.0)
        assert set(old) <= set(world.serving("e"))
    world.settle()
    assert world.status("e") == "InService"
    assert "ended by itself" in world.describe("e")["FailureReason"]
    assert world.living() == set(old) == set(world.serving("e"))
    assert shares(world) == [1.0]


def test_the_traffic_rests_while_a_replica_of_the_new_fleet_is_replaced(world):
    begin(world, CANARY, count=2)
    old = world.serving("e")
    until_moving(world)
    victim, _ = set(world.serving("e")) - set(old)
    world.tick(58)
    world.launcher.processes[victim].alive = False
    world.tick(1.5)
    world.tick(1.0)
    assert shares(world) == [0.9, 0.1], "no step is taken to a fleet that is not whole"
    assert seen_shares(world)[-1] == ([0.0, 1.0], 120.0)


def kill(world, replica: str) -> None:
    """It dies, and the control plane notices."""
    world.launcher.processes[replica].alive = False
    while replica in world.serving("e"):
        world.tick(0.5)


def test_a_new_fleet_that_dies_ends_the_update_however_long_another_would_load(world):
    begin(world, policy("CANARY", 30, 30, CanarySize=10))
    old = world.serving("e")
    world.load_s = 40
    until_moving(world)
    [new] = set(world.serving("e")) - set(old)
    kill(world, new)
    world.tick()
    assert (shares(world), world.serving("e")) == ([1.0], old), "at once"
    world.settle()
    assert world.status("e") == "InService"
    assert world.describe("e")["EndpointConfigName"] == "e"
    assert "ended by itself" in world.describe("e")["FailureReason"]
    assert world.living() == set(old) == set(world.serving("e"))


def replaced(world, old: list[str]) -> str:
    """One of the two new replicas dies and another takes its place; the one that stayed."""
    victim, stayed = set(world.serving("e")) - set(old)
    kill(world, victim)
    while len(world.serving("e")) < 4:
        world.tick(1.0)
    return stayed


@pytest.mark.parametrize(("passed", "share", "rest"), [(10, [0.9, 0.1], 60), (70, [0.0, 1.0], 120)])
def test_a_rest_begins_anew_when_a_replica_was_replaced(world, passed, share, rest):
    begin(world, CANARY, count=2)
    old = world.serving("e")
    until_moving(world)
    world.tick(passed)
    replaced(world, old)
    assert shares(world) == share
    world.tick(rest - 1)
    assert (world.status("e"), shares(world)) == ("Updating", share)
    world.tick(1)
    assert shares(world) == ([0.0, 1.0] if rest == 60 else [1.0])


@pytest.mark.parametrize("passed", [10, 70])
def test_a_second_replica_that_dies_under_traffic_ends_the_update(world, passed):
    begin(world, CANARY, count=2)
    old = world.serving("e")
    until_moving(world)
    world.tick(passed)
    stayed = replaced(world, old)
    world.tick(40)
    kill(world, stayed)
    world.tick()
    assert (shares(world), set(world.serving("e"))) == ([1.0], set(old))
    world.settle()
    described = world.describe("e")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "e")
    assert world.living() == set(old)


def test_what_a_deployment_serves_is_captured_and_answered_by_its_own_configuration(world):
    world.model("m")
    for name in ("e", "c2"):
        world.plane.endpoint_configs.create(
            {
                "EndpointConfigName": name,
                "ProductionVariants": [
                    {
                        "VariantName": "A",
                        "ModelName": "m",
                        "InitialInstanceCount": 1,
                        "InstanceType": "ml.m5.large",
                    }
                ],
                "DataCaptureConfig": {
                    "InitialSamplingPercentage": 100,
                    "DestinationS3Uri": f"s3://kept/{name}",
                    "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
                },
                "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": f"s3://out/{name}"}},
            }
        )
    world.endpoint("e", "e")
    world.settle()
    update(world, DeploymentConfig=CANARY)
    until_moving(world)
    assert [v.capture.destination for v in world.route("e").variants] == [
        "s3://kept/e",
        "s3://kept/c2",
    ]
    assert world.route("e").asynchronous.output_path == "s3://out/e"
    world.tick(60)
    assert shares(world) == [0.0, 1.0]
    assert world.route("e").asynchronous.output_path == "s3://out/c2", "it has most of the traffic"


def test_weights_are_shown_without_traces_of_binary_fractions(world):
    begin(world, policy("LINEAR", 30, 0, LinearStepSize=40))
    until_moving(world)
    world.tick(30)
    described = world.describe("e")
    assert described["ProductionVariants"][0]["CurrentWeight"] == 0.2
    [new] = described["PendingDeploymentSummary"]["ProductionVariants"]
    assert new["CurrentWeight"] == 0.8


@pytest.mark.parametrize("passed", [0, 30, 100])
def test_nothing_else_may_change_it_but_deletion_which_leaves_nothing(world, passed):
    begin(world, CANARY)
    until_moving(world)
    world.tick(passed)
    with pytest.raises(ValidationException, match="in-progress"):
        update(world)
    with pytest.raises(ValidationException, match="in-progress"):
        world.scale("e", count=3)
    world.plane.endpoints.delete({"EndpointName": "e"})
    world.settle()
    assert world.launcher.processes == {}
    assert "e" not in world.snapshot().endpoints
    with pytest.raises(AwsError):
        world.describe("e")


def test_the_last_configuration_is_used_again_where_that_is_asked(world):
    begin(world, CANARY)
    until_moving(world)
    seen_shares(world)
    update(world, RetainDeploymentConfig=True)
    until_moving(world)
    assert shares(world) == [0.9, 0.1]
    seen_shares(world)
    assert world.describe("e")["LastDeploymentConfig"] == CANARY
    with pytest.raises(ValidationException, match="exclude each other"):
        update(world, RetainDeploymentConfig=True, DeploymentConfig=CANARY)
    update(world)
    world.settle()
    assert "LastDeploymentConfig" not in world.describe("e")


def test_what_contradicts_itself_changes_nothing(world):
    world.deploy("e")
    world.config("c2", "e")
    alarm = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "x"}]}}
    with pytest.raises(ValidationException, match="alarm 'x' is not found"):
        update(world, DeploymentConfig={**CANARY, **alarm})
    assert world.status("e") == "InService"
    with pytest.raises(ValidationException, match="alarm 'x' is not found"):
        world.plane.endpoints.create(
            {"EndpointName": "new", "EndpointConfigName": "c2", "DeploymentConfig": alarm}
        )


def test_variants_that_come_and_go_share_by_weight(world):
    world.model("m")
    for name, weights in (("old", {"A": 3.0, "B": 1.0}), ("new", {"A": 10.0, "C": 30.0})):
        world.plane.endpoint_configs.create(
            {
                "EndpointConfigName": name,
                "ProductionVariants": [
                    {
                        "VariantName": variant,
                        "ModelName": "m",
                        "InstanceType": "ml.m5.large",
                        "InitialInstanceCount": 1,
                        "InitialVariantWeight": weight,
                    }
                    for variant, weight in weights.items()
                ],
            }
        )
    world.endpoint("e", "old")
    world.settle()
    world.plane.endpoints.update(
        {"EndpointName": "e", "EndpointConfigName": "new", "DeploymentConfig": CANARY}
    )
    for _ in range(10):
        world.tick(1.0)
    routes = world.route("e").variants
    assert [round(v.weight * v.share, 3) for v in routes] == [0.675, 0.225, 0.025, 0.075]
    assert [v.name for v in routes] == ["A", "B", "A", "C"]


def test_the_gateway_is_told_how_much_a_serverless_variant_takes(world):
    world.model("m")
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 3}
    variant = {"VariantName": "A", "ModelName": "m", "ServerlessConfig": serverless}
    world.plane.endpoint_configs.create(
        {"EndpointConfigName": "c", "ProductionVariants": [variant]}
    )
    world.endpoint("e", "c")
    world.settle()
    assert [v.max_concurrency for v in world.route("e").variants] == [3]
