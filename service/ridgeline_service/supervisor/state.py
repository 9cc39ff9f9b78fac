"""``run/supervisor.json``: where a service listens and which processes it is made of.

Read by ``up``, ``down``, ``env`` and the client; it outlives the supervisor on purpose.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId


@dataclass(frozen=True)
class ServiceState:
    """``url`` is where clients go; the other two are for processes of this service alone."""

    supervisor: ProcessId
    host: str
    port: int
    url: str
    control_url: str
    store_url: str
    children: dict[str, ProcessId] = field(default_factory=dict)

    def write(self, data_dir: DataDir) -> None:
        write_atomic(data_dir.supervisor, json.dumps(asdict(self), indent=2), mode=0o600)


def read_state(data_dir: DataDir) -> ServiceState | None:
    """What was written last, or None when no service ever ran here or it was stopped."""
    try:
        raw = json.loads(data_dir.supervisor.read_text())
    except FileNotFoundError:
        return None
    raw["supervisor"] = ProcessId(**raw["supervisor"])
    raw["children"] = {name: ProcessId(**child) for name, child in raw["children"].items()}
    return ServiceState(**raw)
