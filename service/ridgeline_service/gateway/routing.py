"""Which replica answers a request, and who waits when none is free.

A variant is chosen by weight (smooth weighted round-robin: over any run each variant's share is
right to within one request), then the replica of it with the fewest requests outstanding. While an
update moves traffic a variant's old and new fleet are chosen in the same way, by their shares. When
all are full, requests wait in order, up to a bound; what comes after is refused, not lost. A
serverless variant takes MaxConcurrency requests, those that wait included, and refuses the rest.
Knows no HTTP: callers report how a replica fared.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ridgeline_service.errors import ServiceUnavailable, ThrottlingException, ValidationException
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.snapshot import EndpointRoute, ReplicaRoute, Snapshot, VariantRoute

SERVING = frozenset(("InService", "Updating", "RollingBack", "SystemUpdating"))


@dataclass(frozen=True)
class Limits:
    """``per_replica`` requests at once on one replica, ``queue`` waiting for one endpoint.

    A request waits at most ``busy_wait_s`` for a slot, and at most ``absent_wait_s`` while the
    endpoint has no replica at all: one died and its successor is on its way, or the machine has
    just restarted and loads the model again. ``control_wait_s`` and ``store_wait_s`` bound the
    wait for the control plane and the object store: several times what a restart of them takes.
    ``answer_s`` is what a replica may take to its first byte, and between any two: SageMaker's is
    60, but a language model on a processor may need minutes for a long answer that it sends whole.
    """

    per_replica: int = 64
    queue: int = 256
    busy_wait_s: float = 60.0
    absent_wait_s: float = 30.0
    control_wait_s: float = 25.0
    store_wait_s: float = 60.0
    answer_s: float = 600.0


@dataclass
class Lease:
    """One slot on a replica, until ``release``. ``alone``: the replica has had no other request
    meanwhile."""

    endpoint: EndpointRoute
    variant: VariantRoute
    replica: ReplicaRoute
    _on_release: Callable[[Lease], None]
    alone: bool = True
    _held: bool = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._on_release(self)


@dataclass
class _Balance:
    """What is remembered of one endpoint between requests: what each variant of each deployment is
    owed, who waits, and what each variant works on."""

    owed: dict[tuple[str, str], float] = field(default_factory=dict)
    queues: dict[str, deque[asyncio.Future[bool]]] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self.queues.values())


class Router:
    """One event loop's view of all endpoints. ``snapshot`` gives the newest routes."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], metrics: Metrics, limits: Limits | None = None
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._limits = limits or Limits()
        self._balances: dict[str, _Balance] = {}
        self._leases: dict[str, list[Lease]] = {}
        self._turn: dict[str, int] = {}
        self._turns = 0

    def endpoint(self, name: str) -> EndpointRoute:
        """The route of an endpoint that serves. Raises ValidationException."""
        snapshot = self._snapshot()
        route = snapshot.endpoints.get(name)
        if route is None:
            raise ValidationException(
                f"Endpoint {name} of account {snapshot.account_id} not found.",
                code="ValidationError",
            )
        if route.status not in SERVING:
            raise ValidationException(
                f"Endpoint {name} of account {snapshot.account_id} is not InService: "
                f"its status is {route.status}.",
                code="ValidationError",
            )
        return route

    async def acquire(
        self, name: str, *, target: str = "", excluded: Collection[str] = ()
    ) -> Lease:
        """A slot on a replica, not one of ``excluded``, of the variant ``target`` if it is given.

        Raises ValidationException, ThrottlingException (queue full, waited too long, or as many as
        a serverless variant takes) or ServiceUnavailable (no replica).
        """
        lease = self._try(name, target, excluded, arriving=True)
        if lease is not None:
            return lease
        balance = self._balances[name]
        if balance.waiting >= self._limits.queue:
            raise ThrottlingException(
                f"Endpoint {name} has {self._limits.queue} requests waiting already. "
                "Try again later, or give it more instances."
            )
        absent = not _candidates(self.endpoint(name), target, excluded)
        limit = self._limits.absent_wait_s if absent else self._limits.busy_wait_s
        gauge = self._metrics.queued.labels(name)
        gauge.inc()
        try:
            async with asyncio.timeout(limit):
                return await self._wait(name, target, excluded)
        except TimeoutError:
            if not _candidates(self.endpoint(name), target, excluded):
                raise ServiceUnavailable(
                    f"Endpoint {name} has no replica that answers. Try again."
                ) from None
            raise ThrottlingException(
                f"No replica of endpoint {name} became free in {limit:g} s. Try again later."
            ) from None
        finally:
            gauge.dec()

    def refresh(self) -> None:
        """The routes have changed: let everybody who waits look again, forget what is gone."""
        routes = self._snapshot().endpoints.values()
        routed = {r.replica_id for route in routes for v in route.variants for r in v.replicas}
        known = {(v.deployment, v.name) for route in routes for v in route.variants}
        self._turn = {name: turn for name, turn in self._turn.items() if name in routed}
        for balance in self._balances.values():
            balance.owed = {key: owed for key, owed in balance.owed.items() if key in known}
            for queue in balance.queues.values():
                _wake(queue, everybody=True)

    def outstanding(self, replica_id: str) -> int:
        return len(self._leases.get(replica_id, ()))

    def working(self, name: str) -> dict[str, float]:
        """Requests that each variant of an endpoint works on, and those that wait for it. Who waits
        for any variant counts by their weights."""
        route, balance = self._snapshot().endpoints.get(name), self._balances.get(name)
        if route is None or balance is None:
            return {}
        weights = {variant.name: variant.weight for variant in route.variants}
        total = sum(weights.values()) or 1.0
        anyone = len(balance.queues.get("", ()))
        return {
            variant: balance.running[variant]
            + len(balance.queues.get(variant, ()))
            + anyone * weight / total
            for variant, weight in weights.items()
        }

    async def _wait(self, name: str, target: str, excluded: Collection[str]) -> Lease:
        queue = self._balances[name].queues.setdefault(target, deque())
        first = False
        while True:
            ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            (queue.appendleft if first else queue.append)(ready)
            try:
                first = await ready
            except asyncio.CancelledError:
                if ready in queue:
                    queue.remove(ready)
                else:
                    _wake(queue)
                raise
            lease = self._try(name, target, excluded, arriving=False)
            if lease is not None:
                return lease

    def _try(
        self, name: str, target: str, excluded: Collection[str], *, arriving: bool
    ) -> Lease | None:
        endpoint = self.endpoint(name)
        balance = self._balances.setdefault(name, _Balance())
        if target and target not in {variant.name for variant in endpoint.variants}:
            raise ValidationException(
                f"Variant {target} not found in endpoint {name}. "
                f"It has: {', '.join(dict.fromkeys(v.name for v in endpoint.variants))}.",
                code="ValidationError",
            )
        if arriving:
            _check_concurrency(endpoint, target, balance)
            if balance.queues.get(target):
                return None
        free = [
            (variant, [r for r in replicas if self._has_room(r)])
            for variant, replicas in _candidates(endpoint, target, excluded)
            if _may_run(endpoint, variant, balance)
        ]
        free = [(variant, replicas) for variant, replicas in free if replicas]
        if not free:
            return None
        chosen = _choose(balance.owed, [variant for variant, _ in free], target)
        replicas = next(replicas for variant, replicas in free if variant is chosen)
        replica = min(
            replicas,
            key=lambda r: (self.outstanding(r.replica_id), self._turn.get(r.replica_id, 0)),
        )
        self._turns += 1
        self._turn[replica.replica_id] = self._turns
        balance.running[chosen.name] += 1
        self._metrics.in_flight.labels(name).inc()
        lease = Lease(endpoint, chosen, replica, self._release)
        beside = self._leases.setdefault(replica.replica_id, [])
        beside.append(lease)
        if len(beside) > 1:
            beside[0].alone = lease.alone = False  # those between are known not to be
        return lease

    def _has_room(self, replica: ReplicaRoute) -> bool:
        return self.outstanding(replica.replica_id) < self._limits.per_replica

    def _release(self, lease: Lease) -> None:
        replica_id = lease.replica.replica_id
        beside = [other for other in self._leases[replica_id] if other is not lease]
        if beside:
            self._leases[replica_id] = beside
        else:
            del self._leases[replica_id]
        self._metrics.in_flight.labels(lease.endpoint.name).dec()
        balance = self._balances[lease.endpoint.name]
        balance.running[lease.variant.name] -= 1
        for target in ("", lease.variant.name):
            queue = balance.queues.get(target)
            if queue:
                _wake(queue)


def _check_concurrency(endpoint: EndpointRoute, target: str, balance: _Balance) -> None:
    """Raises ThrottlingException if all variants that may answer are serverless and have as many
    requests as they take."""
    names = {
        variant.name
        for variant in endpoint.variants
        if variant.share and (variant.name == target if target else variant.weight)
    }
    limits = [_concurrency(endpoint, name) for name in names]
    known = [limit for limit in limits if limit is not None]
    if not known or len(known) < len(limits):
        return
    limit = sum(known)
    waiting = len(balance.queues.get(target, ())) if target else balance.waiting
    if sum(balance.running[name] for name in names) + waiting >= limit:
        raise ThrottlingException(
            f"Endpoint {endpoint.name} takes {limit} requests at once, which is MaxConcurrency of "
            "its ServerlessConfig. Try again later, or raise it."
        )


def _candidates(
    endpoint: EndpointRoute, target: str, excluded: Collection[str]
) -> list[tuple[VariantRoute, list[ReplicaRoute]]]:
    """Variants that may answer, each with its replicas; none without a replica. One that gets no
    traffic, or no longer, stands in where no other is left."""
    named = [v for v in endpoint.variants if not target or v.name == target]
    wanted = [v for v in named if v.share > 0 and (target or v.weight > 0)]
    return _with_replicas(wanted, excluded) or _with_replicas(named, excluded)


def _with_replicas(
    variants: list[VariantRoute], excluded: Collection[str]
) -> list[tuple[VariantRoute, list[ReplicaRoute]]]:
    found = [(v, [r for r in v.replicas if r.replica_id not in excluded]) for v in variants]
    return [(variant, replicas) for variant, replicas in found if replicas]


def _may_run(endpoint: EndpointRoute, variant: VariantRoute, balance: _Balance) -> bool:
    limit = _concurrency(endpoint, variant.name)
    return limit is None or balance.running[variant.name] < limit


def _concurrency(endpoint: EndpointRoute, name: str) -> int | None:
    """How many requests a variant takes at once, None for any number. While an update moves its
    traffic the larger MaxConcurrency holds for both fleets together, so that what one of them would
    refuse does not all go to the other."""
    fleets = [variant for variant in endpoint.variants if variant.name == name]
    used = [variant for variant in fleets if variant.share] or fleets
    limits = [variant.max_concurrency for variant in used]
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def _choose(
    owed: dict[tuple[str, str], float], variants: list[VariantRoute], target: str
) -> VariantRoute:
    """What is owed counts in requests, so that it holds when an update changes the weights."""
    if len(variants) == 1:
        return variants[0]
    portions = [((1.0 if target else v.weight) * v.share or 1.0) for v in variants]
    total = sum(portions)
    for variant, portion in zip(variants, portions, strict=True):
        key = variant.deployment, variant.name
        owed[key] = owed.get(key, 0.0) + portion / total
    chosen = max(variants, key=lambda v: owed[v.deployment, v.name])
    owed[chosen.deployment, chosen.name] -= 1.0
    return chosen


# The future's result says whether its owner was woken alone: then it is the first in line, and goes
# back to the front if there is nothing for it; when all were woken they line up again in order.
def _wake(queue: deque[asyncio.Future[bool]], *, everybody: bool = False) -> None:
    while queue:
        ready = queue.popleft()
        if not ready.done():
            ready.set_result(not everybody)
            if not everybody:
                return
