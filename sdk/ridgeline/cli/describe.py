"""``ridgeline describe``: what an endpoint or a job is, and how it came to its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ridgeline.cli import _common, _simulated
from ridgeline.cli._common import AsJson, DataDir, EndpointOrJob
from ridgeline.cli._jobs import Kind, describe_job, endpoint_or_job
from ridgeline.cli._tuning import describe_tuning
from ridgeline.errors import NotFound, Unsupported

if TYPE_CHECKING:
    from ridgeline.session import Session


def describe(
    name: EndpointOrJob, kind: Kind = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show an endpoint (state, variants, replicas, log), a job (stages, metrics, outputs) or a
    tuning job (trials)."""
    session = _common.open_session(data_dir)
    from ridgeline.tuning_job import TuningJob  # boto3: not for --help

    job = endpoint_or_job(session, name, kind)
    if job is None:
        _describe_endpoint(session, name, as_json=as_json)
    elif isinstance(job, TuningJob):
        describe_tuning(job, as_json=as_json)
    else:
        describe_job(job, as_json=as_json)


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
    devices = _endpoints.simulated(session, endpoint) if ours else []
    if as_json:
        more = {"simulated": devices} if devices else {}
        _common.print_json({**aws, "Ridgeline": {**ours, **more}})
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
        status = replica.get("status", "")
        waits_for = replica.get("message") if status == _endpoints.PENDING else None
        print(f"  replica {name}: {status}{f', {waits_for}' if waits_for else ''}")
    for stage in view.stages:
        took = "" if stage.seconds is None else f"{stage.seconds:.1f} s"
        said = " ".join(filter(None, (f"  stage {stage.name}: {stage.state}", took)))
        print(f"{said}, {stage.detail}" if stage.detail else said)
    if devices:
        for line in _simulated.lines(devices):
            print(f"  {line}")
    if view.status in _endpoints.FAILED and view.log_tail:
        print("  last lines of its log:")
        for line in view.log_tail:
            print(f"    {line}")
