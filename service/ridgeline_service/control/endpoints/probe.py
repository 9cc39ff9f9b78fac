"""Asks a replica who it is and how far. A replica that does not answer, or is another, is None."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any, Protocol

from ridgeline_service.endings import sentences
from ridgeline_service.store.records import Stage

PROBE_TIMEOUT_S = 5.0
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Identity:
    """What ``GET /ridgeline/identity`` says. ``state`` is a word of ReplicaStatus."""

    replica_id: str
    state: str
    stages: tuple[Stage, ...] = ()
    task: str = ""
    error: str = ""
    in_flight: int = 0


class Probe(Protocol):
    """The seam for tests: how a replica is reached."""

    def __call__(self, port: int, token: str) -> Identity | None: ...


def probe_replica(port: int, token: str) -> Identity | None:
    """One request on a connection of its own; blocks for at most ``PROBE_TIMEOUT_S``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/ridgeline/identity", headers={"X-Ridgeline-Token": token})
        response = connection.getresponse()
        body = response.read(_LIMIT_BYTES)
        return _parse(json.loads(body)) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None  # not up yet, gone, or something else that listens on its port
    finally:
        connection.close()


def _parse(raw: dict[str, Any]) -> Identity:
    state = str(raw["state"])
    listed = raw.get("stages") or []
    over = state == "ready"
    stages = tuple(
        Stage(
            name=str(item["name"]),
            state="done" if over or index < len(listed) - 1 else "running",
            seconds=float(item["seconds"]),
            detail=str(item.get("detail") or ""),
        )
        for index, item in enumerate(listed)
    )
    error = raw.get("error")
    said = ""
    if error:
        said = sentences(error.get("message") or "", error.get("hint") or "")
    return Identity(
        replica_id=str(raw["replica_id"]),
        state=state,
        stages=stages,
        task=str(raw.get("task") or ""),
        error=said,
        in_flight=int(raw.get("in_flight") or 0),
    )
