"""``ridgeline describe``: what an endpoint or a training job is, and how it came to its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir, EndpointOrJob
from ridgeline.cli._tuning import describe_tuning
from ridgeline.errors import NotFound, Unsupported

if TYPE_CHECKING:
    from ridgeline.session import Session


def describe(name: EndpointOrJob, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show an endpoint (state, variants, replicas, log), a training job (stages, metrics) or a
    tuning job (trials)."""
    session = _common.open_session(data_dir)
    try:
        is_job = _common.is_job(session, name)
    except NotFound as unknown:
        try:
            describe_tuning(session, name, as_json=as_json)
        except NotFound:
            raise unknown from None
        return
    if is_job:
        _describe_job(session, name, as_json=as_json)
    else:
        _describe_endpoint(session, name, as_json=as_json)


def _describe_endpoint(session: Session, endpoint: str, *, as_json: bool) -> None:
    from ridgeline import _endpoints  # boto3: not for --help

    aws = {
        name: value
        for name, value in _endpoints.describe(session, endpoint).items()
        if name != "ResponseMetadata"
    }
    try:
        ours: Mapping[str, Any] = session.api.get("endpoints", endpoint)
    except (NotFound, Unsupported):
        # A service that speaks SageMaker's API alone has told all it knows.
        ours = {}
    if as_json:
        _common.print_json({**aws, "Ridgeline": ours})
        return
    view = _endpoints.parse_view(endpoint, ours)
    print(f"{endpoint}: {aws['EndpointStatus']}")
    reason = aws.get("FailureReason") or view.failure_reason
    if reason and aws["EndpointStatus"] != _endpoints.IN_SERVICE:
        print(f"  reason: {reason}")
    if view.hint and view.status != _endpoints.IN_SERVICE:
        print(f"  hint:   {view.hint}")
    print(f"  config: {aws.get('EndpointConfigName', '')}")
    for variant in aws.get("ProductionVariants", ()):
        current = variant.get("CurrentInstanceCount", 0)
        desired = variant.get("DesiredInstanceCount", current)
        weight = variant.get("CurrentWeight", 1.0)
        print(
            f"  variant {variant['VariantName']}: "
            f"{current} of {desired} instances, weight {weight:g}"
        )
    for replica in ours.get("replicas") or ():
        name = "/".join(filter(None, (replica.get("variant"), replica.get("id"))))
        print(f"  replica {name}: {replica.get('status', '')}")
    for stage in view.stages:
        took = "" if stage.seconds is None else f"{stage.seconds:.1f} s"
        print(f"  stage {stage.name}: {stage.state} {took}".rstrip())
    if view.status in _endpoints.FAILED and view.log_tail:
        print("  last lines of its log:")
        for line in view.log_tail:
            print(f"    {line}")


def _describe_job(session: Session, name: str, *, as_json: bool) -> None:
    from ridgeline.training_job import TrainingJob  # boto3: not for --help

    job = TrainingJob(name, session).describe()
    if as_json:
        _common.print_json(job)
        return
    print(f"{name}: {job['TrainingJobStatus']} ({job['SecondaryStatus']})")
    if job.get("FailureReason"):
        print(f"  reason: {job['FailureReason']}")
    resources = job.get("ResourceConfig") or {}
    count = resources.get("InstanceCount", 1)
    print(f"  runs on: {count} x {resources.get('InstanceType', '')}")
    for item in job.get("SecondaryStatusTransitions") or ():
        began, ended = item["StartTime"], item.get("EndTime")
        took = "" if ended is None else f" {(ended - began).total_seconds():.1f} s"
        print(f"  {item['Status']}:{took} {item.get('StatusMessage', '')}".rstrip())
    for metric in job.get("FinalMetricDataList") or ():
        print(f"  metric {metric['MetricName']}: {metric['Value']:g}")
    model = (job.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if model:
        print(f"  model: {model}")
