"""What CloudWatch shows of an endpoint's instances."""

from __future__ import annotations

from ridgeline_service.control.context import Context
from ridgeline_service.control.endpoints.replica_usage import SAMPLED_EVERY_S, ReplicaUsage
from ridgeline_service.placement.machine import GIB
from ridgeline_service.runtime.usage import Usage
from ridgeline_service.telemetry.samples import SampleStore, metric_of

DIMENSIONS = [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "A"}]


def test_each_replica_gives_a_value_of_its_processor_and_memory(world):
    world.deploy("e", count=2)
    context = Context(
        world.databases[0], world.settings, world.data_dir, lambda: world.now, str, lambda: None
    )
    samples = SampleStore(world.data_dir.samples)
    used = {1001: Usage(10.0, GIB), 1002: Usage(20.0, 2 * GIB)}
    usage = ReplicaUsage(context, samples, lambda pid: used[pid])

    def values(name):
        metric = metric_of("/aws/sagemaker/Endpoints", name, DIMENSIONS)
        found = samples.read(metric, start=0, end=world.now + 1, period=1)
        return [[total for _, total, _, _ in bucket.samples] for bucket in found]

    usage.sample()
    assert values("CPUUtilization") == [], "a share of time needs two looks"
    assert values("MemoryUtilization") == [[12.5, 25.0]], "of the 8 GiB of ml.m5.large"

    world.now += SAMPLED_EVERY_S
    used |= {1001: Usage(10.0 + 1.5 * SAMPLED_EVERY_S, GIB)}
    usage.sample()
    assert values("CPUUtilization") == [[150.0, 0.0]], "percent of one core, and an idle one"
    samples.close()


def test_without_replicas_nothing_is_written(world):
    context = Context(
        world.databases[0], world.settings, world.data_dir, lambda: world.now, str, lambda: None
    )
    samples = SampleStore(world.data_dir.samples)
    ReplicaUsage(context, samples).sample()
    assert samples.metrics() == []
    samples.close()
