"""The simulated devices of an endpoint: what its replicas say of them, and faults on demand."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ridgeline.errors import InvalidInput, NotFound, NotReady, Unavailable
from ridgeline_service.control.context import Context
from ridgeline_service.control.named import could_not_find
from ridgeline_service.control.names import ENDPOINT
from ridgeline_service.store import endpoints, replicas
from ridgeline_service.store.records import ReplicaRecord
from ridgeline_service.store.states import ReplicaStatus

_TIMEOUT_S = 5.0
_LIMIT_BYTES = 4 << 20
_DEVICE, _FAULTS = "/ridgeline/simulated", "/ridgeline/faults"


class Call(Protocol):
    """The seam for tests: one request to a replica, a GET without a body; status and answer."""

    def __call__(
        self, port: int, token: str, path: str, body: Mapping[str, object] | None
    ) -> tuple[int, Mapping[str, Any]]: ...


def call_replica(
    port: int, token: str, path: str, body: Mapping[str, object] | None
) -> tuple[int, Mapping[str, Any]]:
    """Blocks for a few seconds at most. Raises Unavailable where nothing sensible answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    headers = {"X-Ridgeline-Token": token, "Content-Type": "application/json"}
    try:
        sent = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, sent, headers)
        answer = connection.getresponse()
        found = json.loads(answer.read(_LIMIT_BYTES))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"A replica does not answer: {type(error).__name__}.") from error
    finally:
        connection.close()
    return answer.status, found if isinstance(found, dict) else {}


class SimulatedDevices:
    """Verbs that AWS does not have."""

    def __init__(self, context: Context, call: Call = call_replica) -> None:
        self._context = context
        self._call = call

    def show(self, name: str) -> list[dict[str, Any]]:
        """The device of each ready replica. Raises NotFound, NotReady, Unavailable, and
        InvalidInput where nothing is simulated."""
        return [
            {"id": one.id, "variant": one.variant, "device": self._ask(name, one, _DEVICE, None)}
            for one in self._ready(name)
        ]

    def break_down(self, name: str, fault: Mapping[str, object], replica: str = "") -> list[str]:
        """Let the hardware of all ready replicas fail, or that of one. Their ids."""
        chosen = [one for one in self._ready(name) if replica in ("", one.id)]
        if not chosen:
            raise NotFound(
                f"{name} has no ready replica {replica!r}.",
                hint=f"`ridgeline describe {name}` lists those there are.",
            )
        for one in chosen:
            self._ask(name, one, _FAULTS, fault)
        return [one.id for one in chosen]

    def _ready(self, name: str) -> list[ReplicaRecord]:
        arn = self._context.arns.of(ENDPOINT, name)
        with self._context.db.read() as connection:
            if endpoints.get_endpoint(connection, arn) is None:
                raise NotFound(could_not_find("endpoint", arn).message)
            found = list(_serving(replicas.replicas_of(connection, arn)))
        if not found:
            raise NotReady(
                f"{name} has no replica that is ready.",
                hint=f"`ridgeline describe {name}` shows how far it is.",
            )
        return found

    def _ask(
        self, name: str, replica: ReplicaRecord, path: str, body: Mapping[str, object] | None
    ) -> Mapping[str, Any]:
        status, answer = self._call(replica.port or 0, replica.token, path, body)
        if status == 200:
            return answer
        error = answer.get("error")
        said = error.get("message") if isinstance(error, dict) else error
        if status < 500:
            raise InvalidInput(f"{name}: {said or f'its replica answered {status}.'}")
        raise Unavailable(f"{name}: {said or f'its replica answered {status}.'}")


def _serving(found: Iterable[ReplicaRecord]) -> Iterable[ReplicaRecord]:
    return (one for one in found if one.status is ReplicaStatus.READY)
