"""What a Prometheus server reads: the gateway's metrics, its replicas', and where those are.

Replicas listen on this machine alone and know one token, so they are scraped through the gateway,
with a key like everything else. ``/metrics/targets`` lists them in the form of Prometheus' HTTP
service discovery, each with its endpoint, variant and replica as labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import aiohttp

from ridgeline.errors import NotFound, RidgelineError
from ridgeline_service.errors import ServiceUnavailable
from ridgeline_service.gateway.http import Exchange
from ridgeline_service.gateway.metrics import CONTENT_TYPE, Metrics
from ridgeline_service.snapshot import EndpointRoute, ReplicaRoute, Snapshot, VariantRoute

ROOT = "/metrics"
TARGETS = "/metrics/targets"
REPLICAS = "/metrics/replicas/"

_TIMEOUT = aiohttp.ClientTimeout(total=8.0, sock_connect=2.0)
"""Shorter than Prometheus' own limit for a scrape (10 s), so that it reads why."""


class MethodNotAllowed(RidgelineError):
    code = "MethodNotAllowed"
    http_status = 405


class Scraping:
    """The routes below ``/metrics``. Who asks is known."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self._session = session
        self._metrics = metrics
        self._snapshot = snapshot

    async def answer(self, exchange: Exchange) -> None:
        """Raises NotFound, MethodNotAllowed, ServiceUnavailable."""
        if exchange.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{exchange.path} does not take {exchange.method}: use GET.")
        if exchange.path == ROOT:
            await _respond(exchange, CONTENT_TYPE, self._metrics.render())
        elif exchange.path == TARGETS:
            targets = json.dumps(self._targets(exchange.host)).encode()
            await _respond(exchange, "application/json", targets)
        else:
            text = await self._scrape(exchange.path.removeprefix(REPLICAS))
            await _respond(exchange, CONTENT_TYPE, text)

    def _targets(self, host: str) -> list[dict[str, object]]:
        return [
            {
                "targets": [host],
                "labels": {
                    "__metrics_path__": REPLICAS + replica.replica_id,
                    "endpoint": endpoint.name,
                    "variant": variant.name,
                    "replica": replica.replica_id,
                },
            }
            for endpoint, variant, replica in self._replicas()
        ]

    def _replicas(self) -> Iterator[tuple[EndpointRoute, VariantRoute, ReplicaRoute]]:
        """Those of our model server. A framework's has what its user put there."""
        for _, endpoint in sorted(self._snapshot().endpoints.items()):
            if endpoint.task:
                for variant in endpoint.variants:
                    for replica in variant.replicas:
                        yield endpoint, variant, replica

    async def _scrape(self, replica_id: str) -> bytes:
        found = next((r for _, _, r in self._replicas() if r.replica_id == replica_id), None)
        if found is None:
            raise NotFound(
                f"There is no replica {replica_id[:80]!r} with metrics.",
                hint=f"{TARGETS} lists those there are.",
            )
        try:
            async with self._session.get(
                found.url.rstrip("/") + "/metrics",
                headers={"X-Ridgeline-Token": found.token},
                timeout=_TIMEOUT,
            ) as response:
                text = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ServiceUnavailable(
                f"Replica {replica_id} does not answer: {type(error).__name__}."
            ) from None
        if response.status != 200:
            raise ServiceUnavailable(f"Replica {replica_id} answered {response.status}.")
        return text


async def _respond(exchange: Exchange, content_type: str, body: bytes) -> None:
    await exchange.respond(200, [("content-type", content_type)], body)
