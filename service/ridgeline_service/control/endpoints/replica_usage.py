"""What replicas use, as the samples that CloudWatch shows of endpoint instances.

SageMaker's names: percent of one core, which all cores together exceed, and of the instance's
memory, under the dimensions of the variant, one value a replica.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from ridgeline_service.control.context import Context
from ridgeline_service.runtime.usage import Usage, usage_of
from ridgeline_service.store import endpoints, replicas
from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.store.states import ReplicaStatus
from ridgeline_service.telemetry.samples import Metric, Sample, SampleStore

NAMESPACE = "/aws/sagemaker/Endpoints"
SAMPLED_EVERY_S = 60.0


class ReplicaUsage:
    """``sample`` is called now and then; CPU use is that since the last call."""

    def __init__(
        self, context: Context, samples: SampleStore, usage: Callable[[int], Usage] = usage_of
    ) -> None:
        self._context = context
        self._samples = samples
        self._usage = usage
        self._before: dict[str, tuple[float, Usage]] = {}

    def sample(self) -> None:
        """Of all replicas that are ready. Samples that cannot be written are lost."""
        with self._context.db.read() as connection:
            living = replicas.living_replicas(connection)
            found = {each.arn: each.name for each in endpoints.all_endpoints(connection)}
            limits = {
                (deployment.id, variant.name): variant.memory_limit_bytes
                for deployment in endpoints.all_deployments(connection)
                for variant in deployment.variants
            }
        now = self._context.clock()
        before, self._before = self._before, {}
        samples: list[Sample] = []
        for replica in living:
            endpoint = found.get(replica.endpoint_arn)
            limit = limits.get((replica.deployment_id, replica.variant))
            if replica.status is ReplicaStatus.READY and replica.pid and endpoint and limit:
                used = self._usage(replica.pid)
                self._before[replica.id] = now, used
                samples += _samples(endpoint, replica, before.get(replica.id), now, used, limit)
        try:
            self._samples.put(samples)
        except sqlite3.Error:
            return


def _samples(
    endpoint: str,
    replica: ReplicaRecord,
    before: tuple[float, Usage] | None,
    now: float,
    used: Usage,
    limit: int,
) -> Iterator[Sample]:
    values = {"MemoryUtilization": 100 * used.resident_bytes / limit}
    if before is not None and now > before[0]:
        values["CPUUtilization"] = 100 * max(0.0, used.cpu_s - before[1].cpu_s) / (now - before[0])
    dimensions = (("EndpointName", endpoint), ("VariantName", replica.variant))
    for name, value in values.items():
        yield Sample(Metric(NAMESPACE, name, dimensions), now, "Percent", 1.0, value, value, value)
