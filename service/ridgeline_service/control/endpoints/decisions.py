"""What an endpoint needs next, as a pure function of its rows and the time.

No database, no process, no clock: rows in, a decision out. The rules of blue/green, of scaling, of
replacing what died and of giving up are all here.

An endpoint has up to two deployments that matter: ``active`` serves, ``pending`` will. While an
update moves the traffic step by step both do, and ``active`` stays whole, so that going back costs
nothing. Replicas of any other deployment are drained, and the deployment is dropped when the last
one is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ridgeline_service.control.endpoints.failures import failure_text
from ridgeline_service.control.endpoints.rollouts import Rollout
from ridgeline_service.control.endpoints.streaks import (
    START_ATTEMPTS,
    beyond_starting,
    crashes,
    failure_while_baking,
    lasting_failure,
    proven_at,
)
from ridgeline_service.control.endpoints.views import Decision, Start, View, serving_of
from ridgeline_service.store.records import DeploymentRecord, ReplicaRecord, VariantSpec
from ridgeline_service.store.states import Desired, EndpointStatus, Reason, ReplicaStatus

FAILED_KEPT = 10
MAX_BACKOFF_S = 60


def decide(view: View, now: int) -> Decision:
    """The next step. Applying it and deciding again ends in a state that needs nothing."""
    decision = Decision(view.endpoint)
    if view.endpoint.desired is Desired.STOPPED:
        _delete(view, decision)
        return decision
    _retire(view, decision)
    if view.endpoint.status is EndpointStatus.FAILED:
        _stop(decision, view.replicas, Reason.REQUESTED)
        return decision
    if view.pending is not None:
        _bring_up(view, view.pending, decision, now)
    if view.active is not None:
        _keep_up(view, view.active, decision, now)
    return decision


def _delete(view: View, decision: Decision) -> None:
    _stop(decision, view.replicas, Reason.ENDPOINT_DELETED)
    decision.delete = all(replica.status.ended for replica in view.replicas)


def _retire(view: View, decision: Decision) -> None:
    """Drain the replicas of deployments that matter no longer, then drop these."""
    kept = {view.endpoint.active_deployment, view.endpoint.pending_deployment}
    rolled_back = view.endpoint.status is EndpointStatus.ROLLING_BACK
    reason = Reason.ROLLED_BACK if rolled_back else Reason.SUPERSEDED
    for deployment in view.deployments:
        if deployment.id in kept:
            continue
        mine = [item for item in view.replicas if item.deployment_id == deployment.id]
        _stop(decision, mine, reason)
        if all(replica.status.ended for replica in mine):
            decision.drop.append(deployment.id)


def _bring_up(view: View, pending: DeploymentRecord, decision: Decision, now: int) -> None:
    """The new deployment: start it, move the traffic when all of it is ready, or give it up."""
    rollout = Rollout.of(view.endpoint.deployment_config) if view.active else Rollout()
    failed = _first_failure(view, pending, now)
    if failed is None and view.endpoint.traffic_step:
        failed = failure_while_baking(view.fleets(pending))
    if failed is not None:
        _give_up(view, pending, decision, failed.reason, failed.message)
        return
    if view.ringing and (view.endpoint.traffic_step or view.complete(pending)):
        alarm = view.ringing[0]
        when = "" if view.endpoint.traffic_step else ", before any traffic has moved"
        message = f"{alarm.name} is in ALARM{when}: {alarm.reason}"
        _give_up(view, pending, decision, Reason.ALARM, message)
        return
    deadline = rollout.deadline(pending.created_at)
    if deadline is not None:
        if now >= deadline:
            message = f"MaximumExecutionTimeoutInSeconds is {rollout.limit_s}."
            _give_up(view, pending, decision, Reason.UPDATE_TIMEOUT, message)
            return
        decision.wait_until(deadline)
    _fill(view, pending, decision, now)
    if decision.starts or not view.complete(pending):
        return
    if _move_traffic(view, pending, rollout, decision, now):
        _switch(view, pending, decision)


def _move_traffic(
    view: View, pending: DeploymentRecord, rollout: Rollout, decision: Decision, now: int
) -> bool:
    """Take the steps that are due. Returns whether all is moved and no rest is left.

    A rest begins anew when a replica was replaced: it counts only while the fleet is whole.
    """
    endpoint, last = decision.endpoint, rollout.steps(pending.variants)
    serving = [item for mine in view.fleets(pending) for item in serving_of(mine)]
    began = max(endpoint.traffic_at, *(item.ready_at or 0 for item in serving), 0)
    step, since, due = rollout.advance(endpoint.traffic_step, began, last, now)
    if due is None:
        return True
    decision.endpoint = replace(endpoint, traffic_step=step, traffic_at=since)
    decision.wait_until(due)
    return False


def _switch(view: View, pending: DeploymentRecord, decision: Decision) -> None:
    decision.endpoint = replace(
        decision.endpoint,
        status=EndpointStatus.IN_SERVICE,
        reason=Reason.NONE,
        failure_reason="",
        active_deployment=pending.id,
        pending_deployment=None,
        traffic_step=0,
        traffic_at=0,
    )
    if view.active is not None:
        old = [item for item in view.replicas if item.deployment_id == view.active.id]
        _stop(decision, old, Reason.SUPERSEDED)


def _give_up(
    view: View, pending: DeploymentRecord, decision: Decision, reason: Reason, message: str
) -> None:
    mine = [item for item in view.replicas if item.deployment_id == pending.id]
    decision.endpoint = replace(
        decision.endpoint,
        reason=reason,
        failure_reason=failure_text(reason, message),
        traffic_step=0,
        traffic_at=0,
    )
    if view.active is None:
        _stop(decision, mine, reason)
        decision.endpoint = replace(decision.endpoint, status=EndpointStatus.FAILED)
        return
    _stop(decision, mine, Reason.ROLLED_BACK)
    decision.endpoint = replace(
        decision.endpoint, status=EndpointStatus.ROLLING_BACK, pending_deployment=None
    )


def _keep_up(view: View, active: DeploymentRecord, decision: Decision, now: int) -> None:
    """The deployment that serves: replace what died, scale, and say when all is as wanted."""
    if decision.endpoint.active_deployment != active.id:
        return  # it was superseded just now
    if view.pending is None and view.endpoint.status is EndpointStatus.UPDATING:
        view = _since_asked(view)
        _revert_failed_scaling(view, active, decision, now)
    if active.id in decision.variants:
        active = replace(active, variants=decision.variants[active.id])
    _fill(view, active, decision, now)
    status = decision.endpoint.status
    if status is EndpointStatus.ROLLING_BACK:
        _end_rollback(view, decision)
    elif status is EndpointStatus.UPDATING and view.pending is None:
        if not decision.starts and view.complete(active):
            _settle_scaling(active, decision)
    elif status is EndpointStatus.IN_SERVICE:
        _judge_crashes(view, active, decision, now)


def _end_rollback(view: View, decision: Decision) -> None:
    """A rollback ends when nothing of the bad deployment is left."""
    if view.endpoint.status is not EndpointStatus.ROLLING_BACK:
        return
    left = [item for item in view.replicas if item.deployment_id != view.endpoint.active_deployment]
    if all(replica.status.ended for replica in left):
        decision.endpoint = replace(
            decision.endpoint, status=EndpointStatus.IN_SERVICE, reason=Reason.ROLLED_BACK
        )


def _since_asked(view: View) -> View:
    """Without what failed before the scaling was asked for: that says nothing of it."""
    asked_at = view.endpoint.modified_at
    later = (r for r in view.replicas if not r.status.ended or r.changed_at >= asked_at)
    return replace(view, replicas=tuple(later))


def _revert_failed_scaling(
    view: View, active: DeploymentRecord, decision: Decision, now: int
) -> None:
    """A scale-out whose replicas fail to start, or find no room, goes back to what was reached;
    the endpoint serves on."""
    unready = tuple(item for item in view.replicas if item.serves or item.ready_at is None)
    failed = _first_failure(replace(view, replicas=unready), active, now)
    if failed is None:
        return
    decision.variants[active.id] = tuple(
        _reached(variant, mine)
        for variant, mine in zip(active.variants, view.fleets(active), strict=True)
    )
    decision.endpoint = replace(
        decision.endpoint,
        status=EndpointStatus.IN_SERVICE,
        reason=failed.reason,
        failure_reason=failure_text(failed.reason, failed.message),
    )


def _reached(variant: VariantSpec, mine: list[ReplicaRecord]) -> VariantSpec:
    count = min(variant.count, max(variant.deployed_count, len(serving_of(mine))))
    return replace(variant, count=count, deployed_count=count)


def _settle_scaling(active: DeploymentRecord, decision: Decision) -> None:
    decision.variants[active.id] = tuple(
        replace(variant, deployed_count=variant.count) for variant in active.variants
    )
    decision.endpoint = replace(
        decision.endpoint, status=EndpointStatus.IN_SERVICE, reason=Reason.NONE, failure_reason=""
    )


def _judge_crashes(view: View, active: DeploymentRecord, decision: Decision, now: int) -> None:
    """Say that replicas fail again and again, until they no longer do; end an endpoint of which
    nothing is left, and whose starts fail."""
    fleets = [view.fleet(active, variant) for variant in active.variants if variant.count]
    looping = [
        failures[-1] for mine in fleets if len(failures := crashes(mine, now)) >= START_ATTEMPTS
    ]
    if not looping:
        if decision.endpoint.reason is Reason.CRASH_LOOP and view.complete(active):
            decision.endpoint = replace(decision.endpoint, reason=Reason.NONE, failure_reason="")
        return
    last = max(looping, key=lambda replica: replica.changed_at)
    decision.endpoint = replace(
        decision.endpoint,
        reason=Reason.CRASH_LOOP,
        failure_reason=failure_text(last.reason, last.message),
    )
    for mine in fleets:
        if (proven := proven_at(mine, now)) is not None:
            decision.wait_until(proven)
    spent = all(beyond_starting(mine, now) for mine in fleets)
    living = any(
        not replica.status.ended for replica in view.replicas if replica.deployment_id == active.id
    )
    if spent and not living and not decision.starts:
        decision.endpoint = replace(decision.endpoint, status=EndpointStatus.FAILED)


def _fill(view: View, deployment: DeploymentRecord, decision: Decision, now: int) -> None:
    """As many replicas of each variant as are wanted: more or fewer, dead ones forgotten."""
    for variant in deployment.variants:
        mine = view.fleet(deployment, variant)
        running = [
            item for item in mine if item.desired is Desired.RUNNING and not item.status.ended
        ]
        surplus = len(running) - variant.count
        if surplus > 0:
            _stop(decision, sorted(running, key=_worth)[:surplus], Reason.SCALED_IN)
        elif surplus < 0:
            _replace_missing(deployment, variant, mine, -surplus, decision, now)
        # Where no instance is wanted the next one begins anew: nothing is held against it.
        _forget(mine, decision, FAILED_KEPT if variant.count else 0)
    names = {variant.name for variant in deployment.variants}
    strays = [
        item
        for item in view.replicas
        if item.deployment_id == deployment.id and item.variant not in names
    ]
    _stop(decision, strays, Reason.SCALED_IN)


def _replace_missing(
    deployment: DeploymentRecord,
    variant: VariantSpec,
    mine: list[ReplicaRecord],
    missing: int,
    decision: Decision,
    now: int,
) -> None:
    """Start them at once after a first failure, later with a growing pause, and for ever unless it
    is the starts that fail."""
    if beyond_starting(mine, now):
        return
    failures = crashes(mine, now)
    if len(failures) >= 2:
        pause_s = min(2 ** (len(failures) - 2), MAX_BACKOFF_S)
        due = failures[-1].changed_at + pause_s * 1_000_000
        if now < due:
            decision.wait_until(due)
            return
    decision.starts.extend(Start(deployment, variant) for _ in range(missing))


def _worth(replica: ReplicaRecord) -> tuple[bool, int]:
    """Sorts replicas so that the one that is missed least comes first."""
    return replica.status is ReplicaStatus.READY, -replica.created_at


def _forget(mine: list[ReplicaRecord], decision: Decision, kept: int) -> None:
    """Stopped replicas have no more to tell; the last failed ones are kept as evidence."""
    decision.forget.extend(item.id for item in mine if item.status is ReplicaStatus.STOPPED)
    failed = [item for item in mine if item.status is ReplicaStatus.FAILED]
    decision.forget.extend(item.id for item in failed[: max(0, len(failed) - kept)])


def _first_failure(view: View, deployment: DeploymentRecord, now: int) -> ReplicaRecord | None:
    found = (lasting_failure(mine, now) for mine in view.fleets(deployment))
    return next((item for item in found if item is not None), None)


def _stop(decision: Decision, replicas: Iterable[ReplicaRecord], reason: Reason) -> None:
    decision.stops.extend(
        (item.id, reason)
        for item in replicas
        if item.desired is Desired.RUNNING and not item.status.ended
    )
