"""Starts replicas as processes of this machine, finds them again, and ends them.

``Launcher`` is the seam: what the control plane needs of any way to run replicas. The process
launcher makes of a replica's spec the command line, the environment and the limits of a process in
its sandbox, and leaves the process to a keeper. It decides nothing: which replicas should run,
whether one is healthy and what its exit means is the control plane's.
"""

from __future__ import annotations

import os
import random
import re
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.errors import Unavailable
from ridgeline_service.paths import DataDir
from ridgeline_service.runtime import sandbox as sandboxes
from ridgeline_service.runtime import shim
from ridgeline_service.runtime.images import Kind
from ridgeline_service.runtime.keeper import (
    LOG_LIMIT_BYTES,
    ExitStatus,
    ProcessKeeper,
    ProcessRecord,
    log_file,
)

LEFT_OUT_VARIABLE = "RIDGELINE_LEFT_OUT"
_SETTING = re.compile(
    r"(OPTION|OTEL|MAX|NEURON)_\w+|(HF_|OPTION_)?MODEL_ID|NUM_SHARD|DTYPE|QUANTIZE"
    r"|HF_(TASK|TOKEN|REVISION|HUB_OFFLINE|MODEL_QUANTIZE|NUM_CORES|BATCH_SIZE|SEQUENCE_LENGTH"
    r"|AUTO_CAST_TYPE)|SM_(NUM_GPUS|VLLM_\w+)|VLLM_CPU_KVCACHE_SPACE|(OMP|MKL)_NUM_THREADS"
    r"|RIDGELINE_(BACKEND|ENGINE|IMAGE_FLAVOUR|THREADS|INSTANCE_TYPE|PACE|MEMORY_MB)"
    r"|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER)|SAGEMAKER_\w+"
    r"|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|(DEFAULT_)?REGION|ENDPOINT_URL(_S3)?)"
)
"""What a model server is given where no sandbox can be made: it runs none of the user's code, and
other variables (LD_PRELOAD, CC, a cache folder) would have it run some, as the service."""

GRACE_S = 35.0  # a server drains for up to 30 s


@dataclass(frozen=True)
class ReplicaSpec:
    """One model server to start.

    ``environment`` is the user's container environment; the port, id and token are set by the
    launcher and cannot be overridden. ``model_dir`` is shown read-only at /opt/ml/model in a
    sandbox, and named by RIDGELINE_MODEL_DIR without one. ``overlays`` are package directories put
    first on PYTHONPATH. ``read_only`` are further paths that must be visible inside
    (``Environment.site_dirs``), ``devices`` further device files. ``network=False`` gives a
    framework server a network of its own: it is handed its listening socket
    (RIDGELINE_LISTEN_FD) and can reach nothing. Language-model servers run none of the user's code
    and keep the host's network.
    """

    replica_id: str
    runtime_name: str
    kind: Kind
    python: Path
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    model_dir: Path | None
    port: int
    token: str
    log_group: str
    log_stream: str
    overlays: tuple[Path, ...] = ()
    read_only: tuple[Path, ...] = ()
    memory_bytes: int | None = None
    devices: tuple[Path, ...] = ()
    network: bool = True
    sandbox: bool = True
    grace_s: float = GRACE_S


class Launcher(ABC):
    """A way to run replicas. Methods are thread-safe and may block for the time they name."""

    @abstractmethod
    def start(self, spec: ReplicaSpec) -> ProcessRecord:
        """Start a replica. Raises Unsupported where its sandbox cannot be made, Unavailable when
        no process can be started. The server may still fail: see ``alive`` and ``exit_status``."""

    @abstractmethod
    def records(self) -> list[ProcessRecord]:
        """Replicas that still live, whoever started them."""

    @abstractmethod
    def alive(self, record: ProcessRecord) -> bool:
        """Whether this very process (not another with its pid) runs."""

    @abstractmethod
    def exit_status(self, replica_id: str) -> ExitStatus | None:
        """How it ended; None while it runs, or when its shim was killed before it could say."""

    @abstractmethod
    def stop(self, record: ProcessRecord, grace_s: float) -> None:
        """Ask it to finish, and kill all of it after ``grace_s`` seconds. Returns when it is gone;
        idempotent."""

    @abstractmethod
    def remove(self, replica_id: str) -> None:
        """Forget an ended replica and delete its scratch space. Raises NotReady while it runs."""

    @abstractmethod
    def free_port(self) -> int:
        """A loopback port for the next replica."""


@dataclass
class PortPicker:
    """Free loopback ports outside the kernel's ephemeral range, so that no outgoing connection
    takes one between the choice and the server's bind. Never gives the same one twice in a row."""

    low: int = 18000
    high: int = 32000
    start: Callable[[int, int], int] = random.randint
    _next: int | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def pick(self) -> int:
        with self._lock:
            if self._next is None:
                self._next = self.start(self.low, self.high - 1)
            for _ in range(self.high - self.low):
                port = self._next
                self._next = self.low + (port + 1 - self.low) % (self.high - self.low)
                if _is_free(port):
                    return port
        raise Unavailable(f"No loopback port between {self.low} and {self.high} is free.")


class ProcessLauncher(Launcher):
    """Replicas as processes of this machine, each in its sandbox, under one data directory."""

    def __init__(self, data_dir: DataDir, ports: PortPicker | None = None) -> None:
        self._data_dir = data_dir
        self._ports = ports or PortPicker()
        self._keeper = ProcessKeeper(data_dir.replicas)

    def start(self, spec: ReplicaSpec) -> ProcessRecord:
        scratch = self._keeper.make_scratch(spec.replica_id)
        return self._keeper.start(self._order(spec, scratch))

    def records(self) -> list[ProcessRecord]:
        return self._keeper.records()

    def alive(self, record: ProcessRecord) -> bool:
        return self._keeper.alive(record)

    def exit_status(self, replica_id: str) -> ExitStatus | None:
        return self._keeper.exit_status(replica_id)

    def stop(self, record: ProcessRecord, grace_s: float) -> None:
        self._keeper.stop(record, grace_s)

    def remove(self, replica_id: str) -> None:
        self._keeper.remove(replica_id)

    def free_port(self) -> int:
        return self._ports.pick()

    def _order(self, spec: ReplicaSpec, scratch: Path) -> shim.Spec:
        """What the shim is told: a command line, an environment, and where to write."""
        command = server_command(spec, scratch, (self._data_dir.root, self._data_dir.cache))
        return shim.Spec(
            id=spec.replica_id,
            token=spec.token,
            port=spec.port,
            command=command.command,
            environment=command.environment,
            cwd=command.cwd,
            listen=command.listen,
            data_bytes=command.data_bytes,
            processes=command.processes,
            grace_s=spec.grace_s,
            log_file=str(log_file(self._data_dir, spec.log_group, spec.log_stream)),
            log_limit_bytes=LOG_LIMIT_BYTES,
        )


@dataclass(frozen=True)
class ServerCommand:
    """A model server as a process: what is executed, with which limits. ``listen`` says that
    whoever starts it hands it its listening socket."""

    command: shim.Command
    environment: dict[str, str]
    cwd: str
    listen: bool
    data_bytes: int | None
    processes: int | None


def server_command(spec: ReplicaSpec, scratch: Path, hidden: tuple[Path, ...]) -> ServerCommand:
    """How a model server is started, by whomever. ``scratch`` is its own room on disk; ``hidden``
    is what it must not see. Raises Unsupported where its sandbox cannot be made."""
    isolated = spec.sandbox and spec.kind == "framework" and not spec.network
    wanted = {
        # A server that native code ends says in its log where it was.
        "PYTHONFAULTHANDLER": "1",
        **spec.environment,
        "SAGEMAKER_BIND_TO_PORT": str(spec.port),
        "RIDGELINE_REPLICA_ID": spec.replica_id,
        "RIDGELINE_REPLICA_TOKEN": spec.token,
        "RIDGELINE_RUNTIME": spec.runtime_name,
    }
    if spec.overlays:
        path = [*map(str, spec.overlays), wanted.get("PYTHONPATH", "")]
        wanted["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    command = shim.Command(spec.argv)
    cwd = "/"
    if spec.sandbox:
        tool = sandboxes.require()
        inside = sandboxes.Sandbox(
            python=spec.python,
            scratch=scratch,
            model_dir=spec.model_dir,
            read_only=(*spec.overlays, *spec.read_only),
            hidden=hidden,
            network=not isolated,
            devices=spec.devices,
        )
        command = sandboxes.wrap(spec.argv, inside, tool)
        environment = sandboxes.environment(wanted, python=spec.python)
    else:
        left_out = [name for name in spec.environment if not _SETTING.fullmatch(name)]
        for name in left_out:
            wanted.pop(name, None)
        if left_out:
            wanted[LEFT_OUT_VARIABLE] = ", ".join(left_out)
        sandboxes.prepare_scratch(scratch)
        if spec.model_dir is not None:
            wanted["RIDGELINE_MODEL_DIR"] = str(spec.model_dir)
        environment = sandboxes.environment(
            wanted, python=spec.python, home=str(scratch / "home"), tmp=str(scratch / "tmp")
        )
        cwd = str(scratch / "home")
    limits = sandboxes.Limits(memory_bytes=spec.memory_bytes)
    return ServerCommand(command, environment, cwd, isolated, limits.memory_bytes, limits.processes)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
