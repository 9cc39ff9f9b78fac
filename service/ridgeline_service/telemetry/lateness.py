"""How long after the end of a period its samples are all here, by who writes them."""

from __future__ import annotations

from ridgeline_service.telemetry.samples import Metric

ENDPOINTS = "AWS/SageMaker"
"""The namespace of what endpoints are asked."""

SAMPLED = frozenset(
    {
        "ConcurrentRequestsPerModel",
        "ApproximateBacklogSize",
        "ApproximateBacklogSizePerInstance",
        "HasBacklogWithoutCapacity",
    }
)
"""Of these: written every ten seconds, and complete at once."""

_OWN = (ENDPOINTS, "/aws/sagemaker/")
_FLUSHED_S = 35.0
_WRITTEN_S = 3.0


def lag_s(metric: Metric) -> float:
    """What this service measures is written twice a minute; what users put is there at once."""
    if metric.namespace == ENDPOINTS and metric.name in SAMPLED:
        return _WRITTEN_S
    return _FLUSHED_S if metric.namespace.startswith(_OWN) else _WRITTEN_S
