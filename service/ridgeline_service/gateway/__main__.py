"""``python -m ridgeline_service.gateway``: the gateway's process."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence

import uvicorn

from ridgeline_service.connections import ConnectionLimits, limited
from ridgeline_service.gateway.build import make_app
from ridgeline_service.paths import DataDir
from ridgeline_service.supervisor import handover
from ridgeline_service.telemetry.tracing import open_tracing


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="ridgeline_service.gateway")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    parser.add_argument("--control-url", required=True)
    parser.add_argument("--store-url", required=True)
    options = parser.parse_args(arguments)
    os.umask(0o077)
    data_dir = DataDir.find(options.data_dir)
    listening = socket.socket(fileno=options.fd)
    app = make_app(
        data_dir,
        control_url=options.control_url,
        store_url=options.store_url,
        tracing=open_tracing(os.environ, "ridgeline-gateway"),
    )
    handover.serve("gateway", data_dir, listening)
    # A full collection over all that was imported stops the loop for tens of milliseconds: what
    # lives as long as the process is not looked at again.
    gc.collect()
    gc.freeze()
    # uvicorn raises the signal that stopped it once more when it is done: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(server_config(app)).run(sockets=[listening])


def server_config(
    app: Callable[..., Awaitable[None]], *, connections: ConnectionLimits | None = None
) -> uvicorn.Config:
    """How the public port is served."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=limited(connections),
        # A handshake would be answered before anybody asked for a key.
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
    )


if __name__ == "__main__":
    main()
