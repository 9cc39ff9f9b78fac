"""What an endpoint's replicas tell of its model: context length and LoRA adapters.

Asked of one replica of each endpoint and remembered: what it says holds for its life. One that does
not answer in time tells nothing: a list of models does not wait for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

from ridgeline_service.snapshot import EndpointRoute, ReplicaRoute

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Told:
    """``context_length`` in tokens, None where the replica does not say; adapters by name."""

    context_length: int | None = None
    adapters: tuple[str, ...] = ()


class ToldModels:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._known: dict[tuple[str, str], Told] = {}

    async def of(self, routes: Iterable[EndpointRoute]) -> dict[str, Told]:
        """By the endpoint's name, of those that could be told."""
        firsts = {
            route.name: replica
            for route in routes
            for replica in [r for variant in route.variants for r in variant.replicas][:1]
        }
        found = await asyncio.gather(*map(self._ask, firsts.values()))
        return {name: said for name, said in zip(firsts, found, strict=True) if said is not None}

    async def _ask(self, replica: ReplicaRoute) -> Told | None:
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
                said = _read(await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        if said is not None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = said
        return said


def _read(body: bytes) -> Told | None:
    """The first model is the replica's own; those with a parent are adapters."""
    try:
        own, *others = json.loads(body)["data"]
        length = own.get("max_model_len")
        adapters = tuple(str(other["id"]) for other in others if other.get("parent"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Told(length if isinstance(length, int) else None, adapters)
