"""The control plane's process: ``python -m ridgeline_service.api --data-dir DIR --fd N ...``.

Serves the AWS operations and ``/api`` on a socket that it was given, until SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ridgeline.errors import RidgelineError
from ridgeline_service.api.assemble import build_app
from ridgeline_service.connections import limited
from ridgeline_service.control import ControlPlane
from ridgeline_service.paths import DataDir
from ridgeline_service.security.keys import ensure_internal_key, ensure_root_key
from ridgeline_service.settings import Settings, load_settings
from ridgeline_service.store import Database, open_database
from ridgeline_service.supervisor import handover

# Requests in flight at SIGTERM may finish for this long; what runs replicas runs on without us.
_GRACE_S = 10


@dataclass(frozen=True)
class Arguments:
    data_dir: DataDir
    fd: int
    store_url: str
    public_url: str


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    data_dir = arguments.data_dir
    settings = load_settings(data_dir)
    ensure_root_key(data_dir)
    internal_key = ensure_internal_key(data_dir)
    listening = socket.socket(fileno=arguments.fd)
    handover.serve("control", data_dir, listening)
    database = _open(settings, data_dir)
    control = ControlPlane(database, settings, data_dir, store_url=arguments.store_url)
    app = build_app(control, settings, data_dir, internal_key)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=limited(),
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_S,
    )
    # uvicorn raises the signal again once it has shut down; by default that would kill the process
    # before the database is closed, and look like a crash to whoever waits for it.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        database.close()


def _open(settings: Settings, data_dir: DataDir) -> Database:
    """The database, if it is this directory's; else the process ends with what is wrong."""
    try:
        return open_database(settings, data_dir)
    except RidgelineError as error:
        sys.exit(str(error))


def parse_arguments(argv: list[str] | None = None) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m ridgeline_service.api", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--store-url", required=True, help="where the object store listens")
    parser.add_argument("--public-url", required=True, help="where clients find the service")
    given = parser.parse_args(argv)
    return Arguments(DataDir(given.data_dir), given.fd, given.store_url, given.public_url)


if __name__ == "__main__":
    main()
