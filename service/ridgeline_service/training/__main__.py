"""The job runner's process: ``python -m ridgeline_service.training FOLDER``.

FOLDER holds the order; the keys to the object store are in the environment, where the script never
sees them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from ridgeline_service.objects.boto import make_client
from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.snapshot import Credential
from ridgeline_service.training.order import (
    STORE_KEY,
    STORE_SECRET,
    STORE_URL,
    TOKEN,
    Order,
    read_order,
)
from ridgeline_service.training.running import JobRunner


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    order = read_order(folder)
    credential = Credential(os.environ[STORE_KEY], os.environ[STORE_SECRET])
    client = make_client(os.environ[STORE_URL], credential, order.region)
    runner = _runner(folder, order, S3Reader(client))
    signal.signal(signal.SIGTERM, lambda number, frame: runner.stop())
    runner.run()


def _runner(folder: Path, order: Order, reader: S3Reader) -> JobRunner:
    # Inner: each kind of runner loads modules that the other needs not.
    if order.transform is not None:
        from ridgeline_service.training.transform.runner import TransformRunner

        return TransformRunner(folder, order, order.transform, reader, os.environ[TOKEN])
    from ridgeline_service.training.runner import ScriptRunner

    return ScriptRunner(folder, order, reader)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
