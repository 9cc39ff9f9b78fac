"""Puts the gateway together from a data directory and the addresses of its neighbours."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from ridgeline_service.gateway.app import GatewayApp, Rooms
from ridgeline_service.gateway.async_invoke import AsyncInvocations
from ridgeline_service.gateway.auth import Authenticator
from ridgeline_service.gateway.capture import Captures
from ridgeline_service.gateway.invocations import Invocations
from ridgeline_service.gateway.limits import Limiter
from ridgeline_service.gateway.load_samples import LoadSamples
from ridgeline_service.gateway.metrics import Metrics
from ridgeline_service.gateway.openai import OpenAI
from ridgeline_service.gateway.replicas import Replicas
from ridgeline_service.gateway.routing import Limits, Router
from ridgeline_service.gateway.scraping import Scraping
from ridgeline_service.gateway.spool import Spool
from ridgeline_service.gateway.told import ToldModels
from ridgeline_service.gateway.upstream import ControlPlane, StorePassage, make_session
from ridgeline_service.objects.client import AsyncObjectClient
from ridgeline_service.paths import DataDir
from ridgeline_service.security.keys import ensure_internal_key, ensure_root_key
from ridgeline_service.snapshot import Credential, SnapshotReader
from ridgeline_service.telemetry.samples import SampleStore
from ridgeline_service.telemetry.tracing import NO_TRACING, Tracing


def new_id() -> str:
    """Unique, not secret: a UUID whose bits cost no system call."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def make_app(
    data_dir: DataDir,
    *,
    control_url: str,
    store_url: str,
    limits: Limits | None = None,
    tracing: Tracing = NO_TRACING,
    clock: Callable[[], float] = time.monotonic,
) -> GatewayApp:
    """``clock`` is what limits of keys are counted by."""

    async def build() -> Rooms:
        return _build(data_dir, control_url, store_url, limits or Limits(), tracing, clock)

    return GatewayApp(build, new_id=new_id)


def _build(
    data_dir: DataDir,
    control_url: str,
    store_url: str,
    limits: Limits,
    tracing: Tracing,
    clock: Callable[[], float],
) -> Rooms:
    snapshots = SnapshotReader(data_dir.snapshot)
    root = ensure_root_key(data_dir)
    metrics = Metrics()
    session = make_session()
    router = Router(snapshots.current, metrics, limits)
    limiter = Limiter(snapshots.current, metrics, clock)
    samples = SampleStore(data_dir.samples)
    invocations = Invocations(samples)
    replicas = Replicas(session, router, metrics, invocations, answer_s=limits.answer_s)

    def credential() -> Credential:
        """Some key that the store accepts now."""
        published = snapshots.current().credentials
        if published:
            return published[0]
        return Credential(root.access_key_id, root.secret_access_key)

    objects = AsyncObjectClient(session, store_url, credential, snapshots.current().region)
    asynchronous = AsyncInvocations(
        Spool(data_dir.spool),
        replicas,
        router,
        objects,
        metrics,
        snapshots.current,
        clock=time.time,
        new_id=new_id,
    )
    return Rooms(
        snapshots=snapshots,
        authenticator=Authenticator(snapshots, root, lambda: datetime.now(UTC)),
        metrics=metrics,
        invocations=invocations,
        loads=LoadSamples(samples, router, asynchronous, snapshots.current),
        captures=Captures(objects, new_id=new_id),
        scraping=Scraping(session, metrics, snapshots.current),
        router=router,
        replicas=replicas,
        control=ControlPlane(
            session, control_url, ensure_internal_key(data_dir), wait_s=limits.control_wait_s
        ),
        store=StorePassage(session, store_url, wait_s=limits.store_wait_s),
        limiter=limiter,
        openai=OpenAI(replicas, router, limiter, snapshots.current, ToldModels(session)),
        tracing=tracing,
        asynchronous=asynchronous,
        close=session.close,
    )
