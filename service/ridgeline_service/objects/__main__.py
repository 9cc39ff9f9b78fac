"""``python -m ridgeline_service.objects --data-dir DIR --fd N``: the object store's process."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import uvicorn

from ridgeline_service.connections import limited
from ridgeline_service.objects.app import ObjectStoreApp
from ridgeline_service.objects.forward import Forwarder
from ridgeline_service.objects.storage import ObjectStore
from ridgeline_service.paths import DataDir
from ridgeline_service.security.keys import ensure_root_key
from ridgeline_service.settings import Settings, load_settings
from ridgeline_service.snapshot import Credential, SnapshotReader
from ridgeline_service.supervisor import handover


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="ridgeline_service.objects")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    data_dir = DataDir.find(options.data_dir)
    root = ensure_root_key(data_dir)
    settings = load_settings(data_dir)
    listening = socket.socket(fileno=options.fd)
    app = ObjectStoreApp(
        ObjectStore(data_dir.objects, clock=time.time),
        SnapshotReader(data_dir.snapshot),
        own_credentials={root.access_key_id: root.secret_access_key},
        region=settings.region,
        account_id=settings.account_id,
        now=lambda: datetime.now(UTC),
        forwarder=_forwarder(settings),
    )
    handover.serve("objects", data_dir, listening)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=limited(),
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    # uvicorn raises the signal that stopped it once more when it is done: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[listening])


def _forwarder(settings: Settings) -> Forwarder | None:
    """What ``s3_endpoint`` asks for: another S3 in place of the folder."""
    if not settings.s3_endpoint:
        return None
    key = Credential(settings.s3_access_key_id, settings.s3_secret_access_key)
    return Forwarder(settings.s3_endpoint, key, settings.region)


if __name__ == "__main__":
    main()
