"""Stop every process of a data directory, also those whose supervisor was killed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ridgeline_service.paths import DataDir
from ridgeline_service.processes import ProcessId, end, find_by_command
from ridgeline_service.runtime.launcher import ProcessLauncher

_CHILD_GRACE_S = 10.0
_REPLICA_GRACE_S = 5.0


def stop_everything(data_dir: DataDir, children: Mapping[str, ProcessId]) -> None:
    """Gateway first (it drains), then the control plane (or it would replace replicas), then
    replicas, the proxy and the object store. Nothing of this directory runs afterwards."""
    for name in ("gateway", "control"):
        if name in children:
            end(children[name], _CHILD_GRACE_S)
    launcher = ProcessLauncher(data_dir)
    for record in launcher.records():
        launcher.stop(record, grace_s=_REPLICA_GRACE_S)
    # A replica that was being started when its control plane was killed has no record yet.
    for process in find_by_command(str(data_dir.replicas)):
        end(process, _REPLICA_GRACE_S)
    _stop_proxy(data_dir)
    if "objects" in children:
        end(children["objects"], _CHILD_GRACE_S)
    data_dir.supervisor.unlink(missing_ok=True)


def _stop_proxy(data_dir: DataDir) -> None:
    state = data_dir.proxy / "state.json"
    try:
        raw = json.loads(state.read_text())
    except FileNotFoundError:
        return
    end(ProcessId(raw["pid"], raw["start_time"]), _CHILD_GRACE_S)
    state.unlink(missing_ok=True)
