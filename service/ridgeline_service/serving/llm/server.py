"""The process around the application: socket, loading thread, signals, exit code.

The server answers from the first moment; the model loads beside it. A load that fails leaves the
replica answering "failed" for some seconds, so that whoever asks learns the cause, then exits 1.
SIGTERM lets what is in flight finish, for up to 30 seconds, and exits 0.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

import uvicorn

from ridgeline.errors import RidgelineError
from ridgeline_backends.errors import BackendError
from ridgeline_service.connections import ConnectionLimits, limited
from ridgeline_service.serving.llm.app import App
from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.generation import Mailbox
from ridgeline_service.serving.llm.invocations import Flavour
from ridgeline_service.serving.llm.model import Model, Seams, TextModel, queue_of
from ridgeline_service.serving.llm.observing import Observer
from ridgeline_service.serving.llm.replica import Replica
from ridgeline_service.serving.llm.settings import ModelSettings
from ridgeline_service.telemetry.tracing import NO_TRACING, Tracing

log = logging.getLogger(__name__)

DRAIN_S = 30
FAILED_LINGER_S = 5.0

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that they close them and not we under them."""

Loader = Callable[[Replica, Mailbox, Seams], tuple[ModelSettings, Model]]
"""Reads settings and loads the model; runs on a thread and raises what went wrong."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What the launcher tells every replica."""

    port: int
    replica_id: str
    token: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Binding:
        """Raises InvalidSetting naming the variable that is missing or wrong."""
        port = environment.get("SAGEMAKER_BIND_TO_PORT", "8080")
        if not port.isdigit() or not 0 <= int(port) <= 65535:
            raise InvalidSetting(
                f"SAGEMAKER_BIND_TO_PORT={port} is no port.", hint="Allowed: 0 to 65535."
            )
        token = environment.get("RIDGELINE_REPLICA_TOKEN", "")
        if not token:
            raise InvalidSetting(
                "RIDGELINE_REPLICA_TOKEN is not set.",
                hint="Set it to the secret that clients send as X-Ridgeline-Token.",
            )
        return cls(int(port), environment.get("RIDGELINE_REPLICA_ID", "replica"), token)


class ReplicaServer(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal itself."""

    def __init__(
        self,
        binding: Binding,
        loader: Loader,
        *,
        linger_s: float = FAILED_LINGER_S,
        tracing: Tracing = NO_TRACING,
        connections: ConnectionLimits | None = None,
    ) -> None:
        self.replica = Replica(binding.replica_id, time.monotonic)
        self.observer = Observer(tracing)
        self.app = App(self.replica, binding.token, flavour=Flavour.DJL, observer=self.observer)
        self.exit_code = 0
        self._loader = loader
        self._linger_s = linger_s
        self._loading: Thread | None = None
        super().__init__(
            uvicorn.Config(
                self.app,
                host="127.0.0.1",
                port=binding.port,
                loop="uvloop",
                http=limited(connections),
                ws="none",
                lifespan="off",
                access_log=False,
                # What it says below that ("Press CTRL+C to quit") is for people at a terminal.
                log_level="warning",
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=DRAIN_S,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )

    @property
    def still_loading(self) -> bool:
        return self._loading is not None and self._loading.is_alive()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve_replica(self, *, handle_signals: bool = True) -> int:
        """Serve until told to stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        if handle_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
        await self.serve()
        self._release()
        return self.exit_code

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen first, then load: whoever asks while the model loads, or fails, is answered."""
        await super().startup(sockets)
        if not self.should_exit:
            self._loading = Thread(
                target=self._load, args=(asyncio.get_running_loop(),), name="load", daemon=True
            )
            self._loading.start()

    def stop(self) -> None:
        """Finish what is in flight, take nothing new, return from `serve_replica`."""
        self.should_exit = True

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        seams = Seams(lambda: secrets.token_hex(12), time.time, self.observer.step)
        try:
            settings, model = self._loader(self.replica, Mailbox(loop), seams)
        # Whatever stopped the load is the replica's state from here on: it is printed, shown at
        # /ridgeline/identity, and the process ends with it.
        except Exception as error:
            self.exit_code = 1
            failure = self.replica.fail(error)
            # A typed error says all there is to know; only a surprise needs its traceback.
            if not isinstance(error, (RidgelineError, BackendError)):
                log.exception("The model could not be loaded")
            words = " ".join(f"{failure.code}: {failure.message} {failure.hint}".split())
            sys.stderr.write(words + "\n")
            sys.stderr.flush()
            loop.call_soon_threadsafe(loop.call_later, self._linger_s, self.stop)
        else:
            loop.call_soon_threadsafe(self._open, settings, model)

    def _open(self, settings: ModelSettings, model: Model) -> None:
        self.app.flavour = settings.flavour
        self.app.max_concurrent = settings.max_concurrent_requests
        self.observer.open(model)
        self.replica.ready(model)
        log.info("%s", self.replica.summary())

    def _release(self) -> None:
        self.observer.close()
        model = self.replica.loaded
        if model is None:
            return
        model.tokenize_pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(model, TextModel):
            model.grammar_pool.shutdown(wait=False, cancel_futures=True)
            model.engine.stop()
        else:
            queue_of(model).close()
