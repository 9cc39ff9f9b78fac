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
from dataclasses import dataclass, field, replace

from ridgeline_service.control.endpoints.failures import failure_text
from ridgeline_service.control.endpoints.rollouts import Rollout
from ridgeline_service.control.endpoints.streaks import (
    START_ATTEMPTS,
    failure_while_baking,
    lasting_failure,
    streak,
)
from ridgeline_service.store.alarms import AlarmRecord
from ridgeline_service.store.records import (
    DeploymentRecord,
    EndpointRecord,
    ReplicaRecord,
    VariantSpec,
)
from ridgeline_service.store.states import Desired, EndpointStatus, Reason, ReplicaStatus

CRASH_LIMIT = 8
FAILED_KEPT = 10
MAX_BACKOFF_S = 60


@dataclass(frozen=True)
class View:
    """The rows of one endpoint: its deployments, replicas in the order they were made, and those
    of its rollback alarms that are in ALARM."""

    endpoint: EndpointRecord
    deployments: tuple[DeploymentRecord, ...]
    replicas: tuple[ReplicaRecord, ...]
    ringing: tuple[AlarmRecord, ...] = ()

    def deployment(self, deployment_id: str | None) -> DeploymentRecord | None:
        return next((item for item in self.deployments if item.id == deployment_id), None)

    @property
    def active(self) -> DeploymentRecord | None:
        return self.deployment(self.endpoint.active_deployment)

    @property
    def pending(self) -> DeploymentRecord | None:
        return self.deployment(self.endpoint.pending_deployment)


@dataclass(frozen=True)
class Start:
    """A replica to be made for a variant of a deployment."""

    deployment: DeploymentRecord
    variant: VariantSpec


@dataclass
class Decision:
    """What to do, all in one transaction. ``retry_at`` (microseconds) asks to be asked again."""

    endpoint: EndpointRecord
    starts: list[Start] = field(default_factory=list)
    stops: list[tuple[str, Reason]] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    variants: dict[str, tuple[VariantSpec, ...]] = field(default_factory=dict)
    delete: bool = False
    retry_at: int | None = None

    def changes(self, view: View) -> bool:
        return bool(
            self.endpoint != view.endpoint
            or self.starts
            or self.stops
            or self.forget
            or self.drop
            or self.variants
            or self.delete
        )

    def wait_until(self, at: int) -> None:
        self.retry_at = at if self.retry_at is None else min(self.retry_at, at)


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
        failed = failure_while_baking(_fleets(view, pending))
    if failed is not None:
        _give_up(view, pending, decision, failed.reason, failed.message)
        return
    if view.endpoint.traffic_step and view.ringing:
        alarm = view.ringing[0]
        message = f"{alarm.name} is in ALARM: {alarm.reason}"
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
    if decision.starts or not _complete(view, pending):
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
    serving = [item for mine in _fleets(view, pending) for item in _serving(mine)]
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
        if not decision.starts and _complete(view, active):
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
    """A scale-out whose replicas fail goes back to what was reached; the endpoint serves on."""
    failed = _first_failure(view, active, now)
    if failed is None:
        return
    decision.variants[active.id] = tuple(
        replace(variant, count=min(variant.count, variant.deployed_count))
        for variant in active.variants
    )
    decision.endpoint = replace(
        decision.endpoint,
        status=EndpointStatus.IN_SERVICE,
        reason=failed.reason,
        failure_reason=failure_text(failed.reason, failed.message),
    )


def _settle_scaling(active: DeploymentRecord, decision: Decision) -> None:
    decision.variants[active.id] = tuple(
        replace(variant, deployed_count=variant.count) for variant in active.variants
    )
    decision.endpoint = replace(
        decision.endpoint, status=EndpointStatus.IN_SERVICE, reason=Reason.NONE, failure_reason=""
    )


def _judge_crashes(view: View, active: DeploymentRecord, decision: Decision, now: int) -> None:
    """Say that replicas fail again and again; end an endpoint of which nothing is left."""
    looping = [
        failures[-1]
        for mine in _fleets(view, active)
        if len(failures := streak(mine, now)) >= START_ATTEMPTS
    ]
    if not looping:
        if decision.endpoint.reason is Reason.CRASH_LOOP and _complete(view, active):
            decision.endpoint = replace(decision.endpoint, reason=Reason.NONE, failure_reason="")
        return
    last = max(looping, key=lambda replica: replica.changed_at)
    decision.endpoint = replace(
        decision.endpoint,
        reason=Reason.CRASH_LOOP,
        failure_reason=failure_text(last.reason, last.message),
    )
    spent = any(len(streak(mine, now)) >= CRASH_LIMIT for mine in _fleets(view, active))
    living = any(
        not replica.status.ended for replica in view.replicas if replica.deployment_id == active.id
    )
    if spent and not living and not decision.starts:
        decision.endpoint = replace(decision.endpoint, status=EndpointStatus.FAILED)


def _fill(view: View, deployment: DeploymentRecord, decision: Decision, now: int) -> None:
    """As many replicas of each variant as are wanted: more or fewer, dead ones forgotten."""
    for variant in deployment.variants:
        mine = _of(view, deployment, variant)
        running = [
            item for item in mine if item.desired is Desired.RUNNING and not item.status.ended
        ]
        surplus = len(running) - variant.count
        if surplus > 0:
            _stop(decision, sorted(running, key=_worth)[:surplus], Reason.SCALED_IN)
        elif surplus < 0:
            _replace_missing(deployment, variant, mine, -surplus, decision, now)
        _forget(mine, decision)
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
    """Start them at once after a first failure, later with a growing pause, and not for ever."""
    failures = streak(mine, now)
    if len(failures) >= CRASH_LIMIT:
        return
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


def _forget(mine: list[ReplicaRecord], decision: Decision) -> None:
    """Stopped replicas have no more to tell; the last failed ones are kept as evidence."""
    decision.forget.extend(item.id for item in mine if item.status is ReplicaStatus.STOPPED)
    failed = [item for item in mine if item.status is ReplicaStatus.FAILED]
    decision.forget.extend(item.id for item in failed[:-FAILED_KEPT])


def _complete(view: View, deployment: DeploymentRecord) -> bool:
    """Every variant has exactly as many serving replicas as it should, and nothing in motion."""
    return all(
        len(_serving(mine)) == variant.count
        for variant, mine in zip(deployment.variants, _fleets(view, deployment), strict=True)
    )


def _first_failure(view: View, deployment: DeploymentRecord, now: int) -> ReplicaRecord | None:
    found = (lasting_failure(mine, now) for mine in _fleets(view, deployment))
    return next((item for item in found if item is not None), None)


def _fleets(view: View, deployment: DeploymentRecord) -> list[list[ReplicaRecord]]:
    """The replicas of each variant, in the order of the variants."""
    return [_of(view, deployment, variant) for variant in deployment.variants]


def _serving(mine: list[ReplicaRecord]) -> list[ReplicaRecord]:
    return [item for item in mine if item.serves]


def _of(view: View, deployment: DeploymentRecord, variant: VariantSpec) -> list[ReplicaRecord]:
    return [
        item
        for item in view.replicas
        if item.deployment_id == deployment.id and item.variant == variant.name
    ]


def _stop(decision: Decision, replicas: Iterable[ReplicaRecord], reason: Reason) -> None:
    decision.stops.extend(
        (item.id, reason)
        for item in replicas
        if item.desired is Desired.RUNNING and not item.status.ended
    )
