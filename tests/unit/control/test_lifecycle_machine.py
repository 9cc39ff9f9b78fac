"""Random histories of endpoints, kills of replicas and of control planes; then the dust settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ridgeline_service.errors import AwsError
from ridgeline_service.store import endpoints as endpoint_rows

NAMES = ("one", "two")
HUNG_STARTS, STARTUP_TIMEOUT_S, QUIET_S = 4, 900, 70
POLICIES = {
    "at once": None,
    "canary": ("CANARY", {"CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10}}),
    "linear": ("LINEAR", {"LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 50}}),
}
# A new replica loads for longer than a rest, and a frail one dies before a rest is over.
LOAD_S, REST_S, FRAIL_S = 6.0, 5, 9
CONFIGS = {"good": 1, "better": 2, "torn": 1, "mortal": 1}


class Lifecycle(RuleBasedStateMachine):
    make_world: ClassVar[Callable[..., Any]]

    @initialize()
    def begin(self) -> None:
        self.world = type(self).make_world()
        self.other: Any = None
        self.wanted: dict[str, tuple[str, int]] = {}
        self.former: dict[str, tuple[str, int]] = {}
        self.disturbed: set[str] = set()
        self.hindered: set[str] = set()
        self.dying = False
        self.ended: set[str] = set()
        self.was_serving: set[str] = set()
        self.world.load_s = LOAD_S
        self.world.model("good")
        self.world.model("torn", LOAD="fails")
        self.world.model("mortal", DIES_AFTER="1")
        self.world.model("frail", DIES_AFTER=str(FRAIL_S))
        self.world.config("frail", "frail")
        for name, count in CONFIGS.items():
            self.world.config(name, "good" if name == "better" else name, count=count)
        self.create("one", "good")
        self.world.settle()

    @rule(name=st.sampled_from(NAMES), config=st.sampled_from(sorted(CONFIGS)))
    def create(self, name: str, config: str) -> None:
        try:
            self.world.endpoint(name, config)
        except AwsError:
            return
        self.was_serving.discard(name)
        self.ended.discard(name)
        self.wanted[name] = (config, CONFIGS[config])

    @rule(
        name=st.sampled_from(NAMES),
        config=st.sampled_from(sorted(CONFIGS)),
        policy=st.sampled_from(sorted(POLICIES)),
    )
    def update(self, name: str, config: str, policy: str) -> None:
        request = {"EndpointName": name, "EndpointConfigName": config, **deployment(policy)}
        try:
            failed = self.world.status(name) == "Failed"
            self.world.plane.endpoints.update(request)
        except AwsError:
            return
        works = config in ("good", "better")
        self.ended.discard(name)
        self.former[name] = self.wanted[name]
        if works or failed:
            self.wanted[name] = (config, CONFIGS[config])

    @rule(name=st.sampled_from(NAMES), policy=st.sampled_from(("canary", "linear")))
    def update_to_what_dies_under_traffic(self, name: str, policy: str) -> None:
        """It is never promoted: what is wanted stays what it was."""
        request = {"EndpointName": name, "EndpointConfigName": "frail", **deployment(policy)}
        try:
            if self.world.status(name) != "InService":
                return
            self.world.plane.endpoints.update(request)
        except AwsError:
            return
        self.former[name] = self.wanted[name]
        self.dying = True

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 3))
    def scale(self, name: str, count: int) -> None:
        wanted = {"VariantName": "A", "DesiredInstanceCount": count}
        try:
            self.world.plane.endpoints.update_weights_and_capacities(
                {"EndpointName": name, "DesiredWeightsAndCapacities": [wanted]}
            )
        except AwsError:
            return
        self.wanted[name] = (self.wanted[name][0], count)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        try:
            self.world.plane.endpoints.delete({"EndpointName": name})
        except AwsError:
            return
        self.wanted.pop(name, None)
        self.was_serving.discard(name)

    @rule(data=st.data(), hang=st.booleans())
    def hurt_a_replica(self, data: Any, hang: bool) -> None:
        living = sorted(self.world.living())
        if not living:
            return
        victim = data.draw(st.sampled_from(living))
        process = self.world.launcher.processes[victim]
        process.hung, process.alive = hang, hang
        name = process.spec.log_group.rpartition("/")[2]
        self.disturbed.add(name)
        if victim not in self.world.serving(name):
            self.hindered.add(name)

    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 12))
    def send_what_no_replica_survives(self, name: str, times: int) -> None:
        """It ends every replica that serves, and the next ones as soon as they do."""
        if name not in self.wanted or self.world.status(name) != "InService":
            return
        self.disturbed.add(name)
        for _ in range(times):
            for victim in self.world.serving(name):
                self.world.launcher.processes[victim].alive = False
            for _ in range(30):
                self.world.tick(3.0)
                if self.world.serving(name):
                    break

    @rule()
    def kill_the_control_plane(self) -> None:
        self.world.kill_plane()

    @rule()
    def run_a_second_control_plane(self) -> None:
        if self.other is None:
            self.other, _ = self.world.new_plane()
        self.other.run_once()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule()
    def settle(self) -> None:
        # The second control plane's claims end with it.
        self.other = None
        self.world.settle()
        for _ in range(HUNG_STARTS * STARTUP_TIMEOUT_S // QUIET_S):
            self.world.settle()
            if self.nothing_starts():
                break
        self.check_settled()

    def nothing_starts(self) -> bool:
        """A server that hangs before it is ready is quiet until its startup timeout."""
        served = [self.world.serving(name) for name in NAMES]
        return self.world.living() == {replica for replicas in served for replica in replicas}

    @invariant()
    def an_endpoint_in_service_keeps_its_routes(self) -> None:
        if not hasattr(self, "world"):
            return
        for name in self.wanted:
            if self.world.serving(name):
                self.was_serving.add(name)
            elif name in self.was_serving and name not in self.disturbed:
                raise AssertionError(f"{name} lost its routes in {self.world.status(name)}")

    @invariant()
    @precondition(lambda self: hasattr(self, "world") and not self.disturbed and not self.dying)
    def routes_lead_to_living_replicas(self) -> None:
        for name in NAMES:
            assert set(self.world.serving(name)) <= self.world.living()

    def check_settled(self) -> None:
        expected = set()
        for name in NAMES:
            if name not in self.wanted:
                assert name not in self.world.snapshot().endpoints
                continue
            if name in self.disturbed and self.rolled_back(name):
                self.wanted[name] = self.former[name]
            config, count = self.wanted[name]
            status = self.world.status(name)
            serving = self.world.serving(name)
            if status == "InService":
                assert self.world.describe(name)["EndpointConfigName"] == config
            if config in ("good", "better"):
                # Starts that hang, or enough of them that fail in a row, end it for good: nothing
                # that happens to a replica which serves does.
                assert status == "InService" or name in self.hindered | self.ended, (name, status)
                if status == "Failed":
                    self.ended.add(name)
                    self.was_serving.discard(name)
            else:
                assert status == "Failed", (name, status)
            assert len(serving) == (count if status == "InService" else 0), (name, status)
            expected |= set(serving)
        assert self.world.living() == expected, "no replica is lost and none is left"
        self.check_rows()
        self.disturbed.clear()
        self.hindered.clear()
        self.dying = False

    def rolled_back(self, name: str) -> bool:
        """Replicas that are hurt while they bake end an update to what works, too."""
        return bool(self.world.plane.endpoints.stages(name)["reason"] == "RolledBack")

    def check_rows(self) -> None:
        with self.world.databases[-1].read() as connection:
            endpoints = endpoint_rows.all_endpoints(connection)
            deployments = endpoint_rows.all_deployments(connection)
        assert {endpoint.name for endpoint in endpoints} == set(self.wanted)
        for endpoint in endpoints:
            kept = [item.id for item in deployments if item.endpoint_arn == endpoint.arn]
            assert len(kept) == 1, f"{endpoint.name} is left with {len(kept)} deployments"
            assert kept[0] in (endpoint.active_deployment, endpoint.pending_deployment)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.settle()
        for name in list(self.wanted):
            self.delete(name)
        self.world.settle()
        assert self.world.launcher.processes == {}
        self.world.close()


def deployment(policy: str) -> dict[str, Any]:
    """The DeploymentConfig of an update, with waits that a tick or a few go over."""
    if POLICIES[policy] is None:
        return {}
    kind, size = POLICIES[policy]
    routing = {"Type": kind, "WaitIntervalInSeconds": REST_S, **size}
    rest = {"TerminationWaitInSeconds": REST_S}
    return {
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **rest}
        }
    }


def test_any_history_settles_with_nothing_lost_and_nothing_left(make_world) -> None:
    Lifecycle.make_world = staticmethod(make_world)
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
