"""``run/supervisor.json``: where a service listens and which processes it is made of.

Read by ``up``, ``down``, ``env`` and the client; it outlives the supervisor on purpose. What it
says can be found out without it, from the command lines of the processes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields

from ridgeline.errors import InvalidInput
from ridgeline_service.files import write_atomic
from ridgeline_service.paths import DataDir, is_of, place_of
from ridgeline_service.processes import ProcessId, find_by_command

MODULES = {
    "objects": "ridgeline_service.objects",
    "control": "ridgeline_service.api",
    "gateway": "ridgeline_service.gateway",
}


class StateUnreadable(InvalidInput):
    """The file is there and is not what was written: a power cut can leave it empty."""


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
        record = {"place": place_of(data_dir.root), **asdict(self)}
        write_atomic(data_dir.supervisor, json.dumps(record, indent=2), mode=0o600)


def read_state(data_dir: DataDir) -> ServiceState | None:
    """What was written last, or None when no service ever ran here or it was stopped, and in a
    copy of the directory of a service.

    Raises StateUnreadable.
    """
    try:
        raw = json.loads(data_dir.supervisor.read_text())
        if not is_of(raw, data_dir.root):
            return None
        raw["supervisor"] = ProcessId(**raw["supervisor"])
        raw["children"] = {name: ProcessId(**child) for name, child in raw["children"].items()}
        return ServiceState(**{each.name: raw[each.name] for each in fields(ServiceState)})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StateUnreadable(
            f"{data_dir.supervisor} is damaged.",
            hint="Run `ridgeline down`, which does without it, and `ridgeline up` again.",
        ) from None


def find_children(data_dir: DataDir) -> dict[str, ProcessId]:
    """The children that run, by their command lines."""
    return {
        name: process
        for name, module in MODULES.items()
        for process in find_by_command(f"-m {module} --data-dir {data_dir.root} ")
    }
