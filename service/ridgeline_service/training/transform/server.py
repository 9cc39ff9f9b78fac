"""The model server of a transform job: the same process as an endpoint's replica, as the runner's
own child. Started, waited for, asked, started again when it dies.

What it writes goes to the job's log; its last lines are kept for the reason of a failure.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ridgeline_service.endings import is_out_of_memory, sentences
from ridgeline_service.placement.machine import in_gib
from ridgeline_service.runtime.launcher import PortPicker, ReplicaSpec, server_command
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.output import Output
from ridgeline_service.training.script import Ended, Script

MOST_DEATHS = 3
"""In a row, without an answer between them."""

_ASK_TIMEOUT_S = 5.0
_POLL_S = 0.1
_STOP_S = 5.0


class ServerDied(Exception):
    """It ended, or was started anew, before it answered."""


class TimedOut(Exception):
    """No answer within the time that an invocation may take."""


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes


class ModelServer:
    """``check_stop`` raises what ends a wait. ``invoke`` may be called by many threads at once."""

    def __init__(
        self,
        spec: ReplicaSpec,
        scratch: Path,
        hidden: tuple[Path, ...],
        *,
        startup_s: float,
        check_stop: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._scratch = scratch
        self._hidden = hidden
        self._startup_s = startup_s
        self._check_stop = check_stop
        self._ports = PortPicker()
        self._output = Output(lambda line: None)
        self._output_lock = threading.Lock()
        self._starting = threading.Lock()
        self._script: Script | None = None
        self._port = 0
        self._generation = 0
        self._deaths = 0

    @property
    def pid(self) -> int | None:
        return None if self._script is None else self._script.pid

    def start(self) -> None:
        """Blocks until it is ready. Raises JobFailed, or what ``check_stop`` raises."""
        while (ended := self._await_ready(self._spawn())) is not None:
            self._deaths += 1
            # One that ends by itself would do so again; a kill is no fault of the model's.
            if ended.signal is None or self._deaths >= MOST_DEATHS:
                words = f"The model server ended before it was ready ({ended.words})."
                raise self.failed(words)

    def stop(self) -> None:
        """End it with all it started; idempotent."""
        script, self._script = self._script, None
        if script is not None:
            script.kill()
            script.wait(_STOP_S)

    def invoke(self, caller: Caller, body: bytes, headers: dict[str, str]) -> Answer:
        """One answer. Raises ServerDied when it was lost with the server, which is up again then;
        TimedOut; JobFailed when it dies again and again."""
        with self._starting:  # who comes while it is started again waits for that
            generation, port = self._generation, self._port
        try:
            answer = caller.ask(port, generation, body, self._with_token(headers))
        except TimeoutError as error:
            caller.close()
            raise TimedOut from error
        except (OSError, http.client.HTTPException) as error:
            caller.close()
            self._revive(generation)
            raise ServerDied from error
        self._deaths = 0
        return answer

    def failed(self, message: str) -> JobFailed:
        """With what it wrote last."""
        with self._output_lock:
            tail = self._output.tail
        if is_out_of_memory(message, tail):
            limit = self._spec.memory_bytes
            allowed = f" It may use {in_gib(limit)}." if limit is not None else ""
            return JobFailed(Cause.OUT_OF_MEMORY, f"{message}{allowed}", tail)
        return JobFailed(Cause.MODEL_FAILED, message, tail)

    def _spawn(self) -> Script:
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._port = self._ports.pick()
        spec = replace(self._spec, port=self._port)
        command = server_command(spec, self._scratch, self._hidden)
        environment = dict(command.environment)
        listener = _listener(self._port) if command.listen else None
        if listener is not None:
            environment["RIDGELINE_LISTEN_FD"] = str(listener.fileno())
        script = self._script = Script(self._take)
        try:
            script.start(
                command.command,
                environment,
                data_bytes=command.data_bytes,
                processes=command.processes,
                file_bytes=None,
                cwd=command.cwd,
                pass_fds=() if listener is None else (listener.fileno(),),
            )
        except OSError as error:
            message = f"The model server could not be started: {error}."
            raise JobFailed(Cause.LAUNCH_FAILED, message) from error
        finally:
            if listener is not None:
                listener.close()
        self._generation += 1
        return script

    def _revive(self, generation: int) -> None:
        """Start it again unless another thread has done so."""
        with self._starting:
            self._check_stop()
            script = self._script
            if self._generation != generation or script is None:
                return
            ended = script.wait(_STOP_S)
            if ended is None:
                return  # it lives: the connection alone broke
            self._deaths += 1
            if self._deaths >= MOST_DEATHS:
                raise self.failed(f"The model server ended ({ended.words}) again and again.")
            self.start()

    def _await_ready(self, script: Script) -> Ended | None:
        """How it ended, if it did before it was ready. Raises JobFailed."""
        deadline = time.monotonic() + self._startup_s
        state = "starting"
        while True:
            self._check_stop()
            ended = script.wait(_POLL_S)
            if ended is not None:
                return ended
            identity = self._identity()
            state = identity.get("state", state)
            if state == "ready":
                return None
            if state == "failed":
                error = identity.get("error") or {}
                said = sentences(error.get("message") or "", error.get("hint") or "")
                raise self.failed(f"The model server could not load the model: {said}")
            if time.monotonic() > deadline:
                raise self.failed(
                    f"The model server is {state} after the {self._startup_s:.0f} s it may take."
                )

    def _identity(self) -> dict[str, Any]:
        """What it says of itself; nothing before it listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ASK_TIMEOUT_S)
        try:
            connection.request("GET", "/ridgeline/identity", headers=self._with_token({}))
            response = connection.getresponse()
            found: dict[str, Any] = json.loads(response.read()) if response.status == 200 else {}
            return found
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()

    def _with_token(self, headers: dict[str, str]) -> dict[str, str]:
        return {**headers, "X-Ridgeline-Token": self._spec.token}

    def _take(self, data: bytes) -> None:
        with self._output_lock:
            self._output.feed(data)


class Caller:
    """One thread's connection to the server, kept while the server is the same."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._generation = 0

    def ask(self, port: int, generation: int, body: bytes, headers: dict[str, str]) -> Answer:
        """Raises OSError (a TimeoutError among them) or HTTPException."""
        if self._connection is None or self._generation != generation:
            self.close()
            self._generation = generation
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=self._timeout_s
            )
        self._connection.request("POST", "/invocations", body=body, headers=headers)
        response = self._connection.getresponse()
        content_type = response.getheader("Content-Type") or ""
        return Answer(response.status, content_type, response.read())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _listener(port: int) -> socket.socket:
    """For a server without network, which can be reached by this socket alone."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    os.set_inheritable(listener.fileno(), True)
    return listener
