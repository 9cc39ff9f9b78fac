"""The steps by which an update moves traffic, and the DeploymentConfigs that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline_service.control.endpoints.rollouts import Rollout, check_deployment_config
from ridgeline_service.errors import ValidationException
from ridgeline_service.store.records import ContainerSpec, VariantSpec

SECOND = 1_000_000


def variant(name: str = "A", count: int = 4, weight: float = 1.0) -> VariantSpec:
    container = ContainerSpec("image", "runtime", {})
    return VariantSpec(name, "m", weight, count, count, "ml.m5.large", 1, 1, 1.0, 1.0, container)


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value: int) -> dict[str, Any]:
    return {"Type": "INSTANCE_COUNT", "Value": value}


def blue_green(kind: str, wait_s: int = 0, **policy: Any) -> dict[str, Any]:
    sizes = {name: policy.pop(name) for name in ("CanarySize", "LinearStepSize") if name in policy}
    routing = {"Type": kind, "WaitIntervalInSeconds": wait_s, **sizes}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **policy}}


def rolling(size: dict[str, Any], wait_s: int = 0, **policy: Any) -> dict[str, Any]:
    policy |= {"MaximumBatchSize": size, "WaitIntervalInSeconds": wait_s}
    return {"RollingUpdatePolicy": policy}


@pytest.mark.parametrize(
    ("config", "count", "shares"),
    [
        (None, 1, [1.0]),
        ({}, 1, [1.0]),
        (blue_green("ALL_AT_ONCE"), 3, [1.0]),
        (blue_green("CANARY", CanarySize=percent(10)), 1, [0.1, 1.0]),
        (blue_green("CANARY", CanarySize=instances(1)), 4, [0.25, 1.0]),
        (blue_green("LINEAR", LinearStepSize=percent(40)), 1, [0.4, 0.8, 1.0]),
        (blue_green("LINEAR", LinearStepSize=percent(50)), 1, [0.5, 1.0]),
        (blue_green("LINEAR", LinearStepSize=instances(2)), 5, [0.4, 0.8, 1.0]),
        (rolling(instances(2)), 4, [0.5, 1.0]),
    ],
)
def test_the_steps_of_a_policy(config, count, shares):
    rollout, one = Rollout.of(config), variant(count=count)
    check_deployment_config(config, [one])
    assert [rollout.share(one, step + 1) for step in range(len(shares))] == pytest.approx(shares)
    assert rollout.steps([one]) == len(shares)


def test_instances_are_a_share_of_each_variant_for_itself():
    rollout = Rollout.of(blue_green("LINEAR", LinearStepSize=instances(1)))
    variants = [variant("A", count=2, weight=3.0), variant("B", count=4)]
    assert rollout.steps(variants) == 4
    shares = rollout.shares(variants, 1)
    assert (shares.of("A"), shares.of("B")) == (0.5, 0.25)
    assert shares.of("gone") == shares.overall == (3 * 0.5 + 0.25) / 4
    assert rollout.shares(variants, 4).overall == 1.0


policies = st.one_of(
    st.builds(
        lambda wait, rest: blue_green("ALL_AT_ONCE", wait, TerminationWaitInSeconds=rest),
        st.integers(0, 90),
        st.integers(0, 90),
    ),
    st.builds(
        lambda wait, rest, size: blue_green(
            "CANARY", wait, TerminationWaitInSeconds=rest, CanarySize=percent(size)
        ),
        st.integers(0, 90),
        st.integers(0, 90),
        st.integers(1, 50),
    ),
    st.builds(
        lambda wait, rest, size: blue_green(
            "LINEAR", wait, TerminationWaitInSeconds=rest, LinearStepSize=percent(size)
        ),
        st.integers(0, 90),
        st.integers(0, 90),
        st.integers(10, 50),
    ),
    st.builds(
        lambda wait, size: rolling(percent(size), wait), st.integers(0, 90), st.integers(5, 50)
    ),
)


@given(policies, st.lists(st.integers(0, 120), max_size=60))
def test_every_step_rests_for_its_time_and_the_last_has_all(config, pauses):
    """However irregularly it is looked at: a control plane may be away for a while."""
    rollout, fleet = Rollout.of(config), [variant()]
    check_deployment_config(config, fleet)
    last, now = rollout.steps(fleet), 1_000
    step, since, due, share = 0, 0, 0, 0.0
    for pause in [*pauses, *[90] * 40]:
        before, began = step, since
        step, since, due = rollout.advance(step, since, last, now * SECOND)
        assert before <= step <= last
        if step > before > 0:
            assert now * SECOND - began >= rollout.rest_s(before, last) * SECOND
        if step > before + 1:
            assert rollout.wait_s == 0, "a rest was left out"
        assert rollout.share(fleet[0], step) >= share
        share = rollout.share(fleet[0], step)
        if due is None:
            break
        assert due > now * SECOND
        now += pause + 1
    assert due is None
    assert (step, share) == (last, 1.0)
    assert now - 1_000 >= rollout.total_s(fleet)


CANARY = blue_green("CANARY", CanarySize=percent(10))


@pytest.mark.parametrize(
    ("config", "count", "words"),
    [
        (CANARY | rolling(percent(10)), 4, "BlueGreenUpdatePolicy and RollingUpdatePolicy"),
        (blue_green("CANARY"), 4, "lacks CanarySize"),
        (blue_green("LINEAR"), 4, "lacks LinearStepSize"),
        (blue_green("LINEAR", CanarySize=percent(10)), 4, "cannot have CanarySize"),
        (blue_green("ALL_AT_ONCE", CanarySize=percent(10)), 4, "cannot have CanarySize"),
        (
            blue_green("CANARY", CanarySize=percent(10), LinearStepSize=percent(10)),
            4,
            "cannot have LinearStepSize",
        ),
        (blue_green("CANARY", CanarySize=percent(51)), 4, "CanarySize is 51%.*at most 50%"),
        (blue_green("CANARY", CanarySize=instances(3)), 4, "3 of the 4 instances of variant 'A'"),
        (blue_green("CANARY", CanarySize=instances(1)), 1, "1 of the 1 instance of variant 'A'"),
        (blue_green("LINEAR", LinearStepSize=percent(9)), 4, "LinearStepSize is 9%.*from 10%"),
        (blue_green("LINEAR", LinearStepSize=percent(51)), 4, "LinearStepSize is 51%"),
        (blue_green("LINEAR", LinearStepSize=instances(1)), 11, "1 of the 11 instances"),
        (rolling(percent(4)), 4, "MaximumBatchSize is 4%.*from 5% to 50%"),
        (rolling(instances(3)), 4, "MaximumBatchSize is 3 of the 4"),
        (
            rolling(percent(10), RollbackMaximumBatchSize=percent(101)),
            4,
            "RollbackMaximumBatchSize is 101%",
        ),
        (
            blue_green(
                "CANARY",
                300,
                CanarySize=percent(10),
                TerminationWaitInSeconds=300,
                MaximumExecutionTimeoutInSeconds=600,
            ),
            4,
            "MaximumExecutionTimeoutInSeconds is 600, and the waits of the update take 600 s",
        ),
        (
            rolling(percent(5), 30, MaximumExecutionTimeoutInSeconds=600),
            4,
            "MaximumExecutionTimeoutInSeconds",
        ),
    ],
)
def test_contradictions_are_refused_by_the_name_of_the_field(config, count, words):
    with pytest.raises(ValidationException, match=words):
        check_deployment_config(config, [variant(count=count)])
