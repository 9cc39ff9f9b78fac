"""The user's process: started in its sandbox, its output passed on, asked to stop, killed.

Passes output on byte by byte to standard output, which is the shim's pipe and thereby the log, and
shows it to a listener on the way. Standard error has a pipe of its own where somebody listens to
it; what comes from both at the same moment may change its order.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ridgeline_service.runtime import shim

_READ_SIZE = 1 << 16
_READS_AT_ONCE = 16
_DRAIN_S = 2.0  # how long a process that escaped may hold the pipe open after the script's end


@dataclass(frozen=True)
class Ended:
    """The exit code of the script, or the signal that ended it; both where only one of them is true
    and nobody can tell which (``shim.ending``)."""

    code: int | None
    signal: int | None

    @property
    def words(self) -> str:
        if self.signal is None:
            return f"ExitCode {self.code}"
        by = f"Signal {shim.signal_name(self.signal)}"
        return by if self.code is None else f"ExitCode {self.code} (or {by})"


class Script:
    """One process, from ``start`` to its end. ``take`` is called with output on another thread,
    and ``take_errors``, if it is given, with what comes by standard error."""

    def __init__(
        self,
        take: Callable[[bytes], None],
        passed_on: int = 1,
        *,
        take_errors: Callable[[bytes], None] | None = None,
    ) -> None:
        self._take = take
        self._take_errors = take_errors
        self._passed_on = passed_on
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None

    def start(
        self,
        command: shim.Command,
        environment: Mapping[str, str],
        *,
        data_bytes: int | None,
        processes: int | None,
        file_bytes: int | None,
        cwd: str = "/",
        pass_fds: Sequence[int] = (),
    ) -> None:
        """``command`` is a sandbox tool's. Raises OSError if it cannot be started, ValueError for
        what no argument or variable can hold."""
        # Between fork and exec nothing but system calls through objects that exist already.
        limits = partial(shim.confine, data_bytes, processes, file_bytes)
        started = shim.call(command, environment)
        try:
            self._process = subprocess.Popen(
                started.argv,
                executable=started.program,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if self._take_errors is None else subprocess.PIPE,
                env=started.environment,
                cwd=cwd,
                pass_fds=(*pass_fds, *started.files),
                bufsize=0,
                preexec_fn=limits,
                # A script that signals its process group means its own, and not its runner's.
                start_new_session=True,
            )
        finally:
            started.close()
        assert self._process.stdout is not None
        sources = {self._process.stdout.fileno(): self._take}
        if self._take_errors is not None and self._process.stderr is not None:
            sources[self._process.stderr.fileno()] = self._take_errors
        self._pump = threading.Thread(
            target=self._copy, args=(sources,), name="output", daemon=True
        )
        self._pump.start()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def wait(self, timeout_s: float) -> Ended | None:
        """How it ended, with all of its output taken; None if it still runs after that time."""
        assert self._process is not None
        assert self._pump is not None
        status = self._status_within(timeout_s)
        if status is None:
            return None
        self._pump.join(_DRAIN_S)
        return Ended(*shim.ending(status, namespace=True))

    def _status_within(self, timeout_s: float) -> int | None:
        """Asleep all the while: whoever looks up takes a core from the script."""
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            return status
        try:
            handle = os.pidfd_open(self._process.pid)
        except OSError:  # this system has none
            time.sleep(timeout_s)
            return self._process.poll()
        try:
            end = select.poll()
            end.register(handle, select.POLLIN)
            end.poll(timeout_s * 1000)
        finally:
            os.close(handle)
        return self._process.poll()

    def ask_to_stop(self) -> bool:
        """SIGTERM to the script itself. False while its sandbox is still being built."""
        assert self._process is not None
        return shim.ask_to_stop(self._process.pid, namespace=True)

    def kill(self) -> None:
        """End it with everything it started: its PID namespace goes with the sandbox tool."""
        if self._process is not None:
            self._process.kill()

    def _copy(self, sources: dict[int, Callable[[bytes], None]]) -> None:
        waiting = select.poll()
        for source in sources:
            waiting.register(source, select.POLLIN)
        while sources:
            for source, _ in waiting.poll():
                if not self._drain(source, sources[source]):
                    waiting.unregister(source)
                    del sources[source]

    def _drain(self, source: int, take: Callable[[bytes], None]) -> bool:
        """Pass on what is there, for lines of one pipe not to be cut by those of the other; False
        at its end."""
        more = select.poll()
        more.register(source, select.POLLIN)
        for _ in range(_READS_AT_ONCE):
            data = os.read(source, _READ_SIZE)
            view = memoryview(data)
            while view:
                view = view[os.write(self._passed_on, view) :]
            take(data)
            if len(data) < _READ_SIZE or not more.poll(0):
                return bool(data)
        return True
