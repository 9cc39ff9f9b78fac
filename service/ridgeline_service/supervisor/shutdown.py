"""Stop every process of a data directory, also those whose supervisor was killed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from ridgeline_service.paths import DataDir, is_of
from ridgeline_service.processes import ProcessId, end, find_by_command
from ridgeline_service.runtime.keeper import ProcessKeeper
from ridgeline_service.training.causes import Cause
from ridgeline_service.training.report import ask_for_stop

_CHILD_GRACE_S = 10.0
_KEPT_GRACE_S = 5.0


def stop_everything(data_dir: DataDir, children: Mapping[str, ProcessId]) -> None:
    """Gateway first (it drains), then the control plane (or it would replace replicas), then
    replicas and jobs, the proxy and the object store. Nothing of this directory runs afterwards."""
    for name in ("gateway", "control"):
        if name in children:
            end(children[name], _CHILD_GRACE_S)
    _stop_kept(data_dir)
    _stop_proxy(data_dir)
    if "objects" in children:
        end(children["objects"], _CHILD_GRACE_S)
    data_dir.supervisor.unlink(missing_ok=True)


def _stop_kept(data_dir: DataDir) -> None:
    """Replicas and job runners. A runner keeps its job's checkpoints; the job goes on at the next
    start."""
    keepers = [ProcessKeeper(root) for root in (data_dir.replicas, data_dir.jobs)]
    living = [(keeper, record) for keeper in keepers for record in keeper.records()]
    for keeper, record in living:
        ask_for_stop(keeper.folder(record.id), Cause.INTERRUPTED)
        keeper.ask_to_stop(record)
    deadline = time.monotonic() + _KEPT_GRACE_S
    for keeper, record in living:
        keeper.stop(record, max(0.1, deadline - time.monotonic()))
    # What outlived its shim. Another service may have processes whose folders were here before.
    for folder in (*data_dir.replicas.glob("*"), *data_dir.jobs.glob("*")):
        for process in find_by_command(f" {folder}"):
            end(process, _KEPT_GRACE_S)


def _stop_proxy(data_dir: DataDir) -> None:
    state = data_dir.proxy / "state.json"
    try:
        raw = json.loads(state.read_text())
        proxy = ProcessId(raw["pid"], raw["start_time"])
        found = [proxy] if is_of(raw, data_dir.root) else []
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        module = "ridgeline_service.gateway.connect_proxy"
        found = find_by_command(f"-m {module} --data-dir {data_dir.root} ")
    for process in found:
        end(process, _CHILD_GRACE_S)
    state.unlink(missing_ok=True)
