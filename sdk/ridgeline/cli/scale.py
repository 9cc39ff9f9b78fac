"""``ridgeline scale``: how many instances an endpoint has, and what that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir
from ridgeline.errors import InvalidInput

if TYPE_CHECKING:
    from ridgeline._scaling import Scale, Scaler


def scale(
    endpoint: Annotated[
        str, typer.Argument(help="An endpoint.", autocompletion=_common.complete_endpoint)
    ],
    instances: Annotated[
        int | None,
        typer.Argument(help="So many, whatever the load.", show_default=False),
    ] = None,
    low: Annotated[
        int | None, typer.Option("--min", help="Follow the load, with at least so many.")
    ] = None,
    high: Annotated[
        int | None, typer.Option("--max", help="Follow the load, with at most so many.")
    ] = None,
    concurrent: Annotated[
        float | None,
        typer.Option("--concurrent", help="Requests at once that an instance should work on."),
    ] = None,
    per_minute: Annotated[
        float | None,
        typer.Option("--per-minute", help="Requests a minute that an instance should answer."),
    ] = None,
    off: Annotated[
        bool, typer.Option("--off", help="Follow the load no longer; keep what runs.")
    ] = False,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Needed where there are several.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set how many instances an endpoint has, or let the number follow its load; without options,
    show it.

    `ridgeline scale NAME 2`, or `ridgeline scale NAME --min 1 --max 4 --concurrent 8`."""
    follows = (low, high, concurrent, per_minute)
    _check(instances, follows, off=off)
    session = _common.open_session(data_dir)
    from ridgeline._scaling import CONCURRENT, PER_MINUTE, Scaler  # boto3: not for --help

    scaler = Scaler(session, endpoint, variant)
    if instances is not None:
        scaler.fix(instances)
    elif off:
        scaler.stop()
    elif low is not None and high is not None:
        metric, target = (
            (CONCURRENT, concurrent) if concurrent is not None else (PER_MINUTE, per_minute)
        )
        scaler.follow(low, high, metric, target or 0.0)
    _show(scaler, endpoint, as_json=as_json)


def _check(instances: int | None, follows: tuple[int | float | None, ...], *, off: bool) -> None:
    """Raises InvalidInput for what does not go together."""
    low, high, *targets = follows
    some = any(each is not None for each in follows)
    if sum((instances is not None, some, off)) > 1:
        raise InvalidInput(
            "A number, what it follows (--min, --max ...) and --off exclude each other."
        )
    if not some:
        return
    if low is None or high is None or sum(each is not None for each in targets) != 1:
        raise InvalidInput(
            "To follow the load give --min, --max, and either --concurrent or --per-minute.",
            hint="For instance: --min 1 --max 4 --concurrent 8",
        )


def _show(scaler: Scaler, endpoint: str, *, as_json: bool) -> None:
    found = scaler.look()
    if as_json:
        _common.print_json(
            {
                "endpoint": endpoint,
                "variant": found.variant,
                "instances": found.instances,
                "wanted": found.wanted,
                "target": found.target,
                "policies": list(found.policies),
                "activities": list(found.activities),
            }
        )
        return
    print(f"{endpoint}: {found.instances} of {found.wanted} instances of {found.variant}")
    print(f"  {_bounds(found)}")
    for policy in found.policies:
        config = policy.get("TargetTrackingScalingPolicyConfiguration", {})
        spec = config.get("PredefinedMetricSpecification", {})
        metric = spec.get("PredefinedMetricType") or config.get(
            "CustomizedMetricSpecification", {}
        ).get("MetricName", policy["PolicyType"])
        print(f"  {policy['PolicyName']}: {metric} at {config.get('TargetValue', 0):g}")
    for activity in found.activities:
        when = activity["StartTime"].astimezone().strftime("%Y-%m-%d %H:%M:%S")
        print(f"  {when} {activity['StatusCode']}: {activity['Description']} {activity['Cause']}")
        if activity["StatusCode"] == "Failed":
            print(f"    {activity.get('StatusMessage', '')}")


def _bounds(found: Scale) -> str:
    if found.target is None:
        return "follows no load; --min, --max and --concurrent let it"
    low, high = found.target["MinCapacity"], found.target["MaxCapacity"]
    if found.policies:
        return f"follows its load from {low} to {high}"
    return f"is held between {low} and {high}; no policy says what load to follow"
