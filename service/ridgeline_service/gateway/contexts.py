"""How many tokens the model of an endpoint takes, asked of its replicas and remembered.

A replica's answer holds for its life, so each is asked once. One that does not answer in time
leaves the length untold: a list of models does not wait for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

import aiohttp

from ridgeline_service.snapshot import EndpointRoute, ReplicaRoute

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_KEPT = 1024


class ContextLengths:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._known: dict[tuple[str, str], int] = {}

    async def of(self, routes: Iterable[EndpointRoute]) -> dict[str, int]:
        """Context lengths by the endpoint's name, of those that could be told."""
        firsts = {
            route.name: replica
            for route in routes
            for replica in [r for variant in route.variants for r in variant.replicas][:1]
        }
        found = await asyncio.gather(*map(self._ask, firsts.values()))
        return {name: said for name, said in zip(firsts, found, strict=True) if said is not None}

    async def _ask(self, replica: ReplicaRoute) -> int | None:
        key = replica.replica_id, replica.url
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            async with self._session.get(
                replica.url.rstrip("/") + "/v1/models",
                headers={"X-Ridgeline-Token": replica.token},
                timeout=_TIMEOUT,
            ) as response:
                said = _length(await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        if said is not None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = said
        return said


def _length(body: bytes) -> int | None:
    try:
        said = json.loads(body)["data"][0]["max_model_len"]
    except (ValueError, LookupError, TypeError):
        return None
    return said if isinstance(said, int) else None
