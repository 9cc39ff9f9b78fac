"""The job runner's process: ``python -m ridgeline_service.training FOLDER``.

FOLDER holds the order, or says what to make ready until the order comes; the keys to the object
store are in the environment, where the script never sees them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ridgeline_service.objects.boto import make_client
from ridgeline_service.objects.reading import S3Reader
from ridgeline_service.snapshot import Credential
from ridgeline_service.training import standby
from ridgeline_service.training.order import (
    STORE_KEY,
    STORE_SECRET,
    STORE_URL,
    Order,
    read_order,
)
from ridgeline_service.training.running import JobRunner
from ridgeline_service.training.standby import Standby

STORE_AWAY_S = 120.0
"""How long a job waits for an object store that is away, before it is interrupted."""


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    client: Any = None
    if standby.waits(folder):

        def prepare(what: Standby) -> None:
            nonlocal client
            client = _client(what.region)
            _warm_up(what, client)

        standby.wait(folder, prepare)
    order = read_order(folder)
    reader = S3Reader(client or _client(order.region), patience_s=STORE_AWAY_S)
    runner = _runner(folder, order, reader)
    signal.signal(signal.SIGTERM, lambda number, frame: runner.stop())
    runner.run()


def _client(region: str) -> Any:
    credential = Credential(os.environ[STORE_KEY], os.environ[STORE_SECRET])
    return make_client(os.environ[STORE_URL], credential, region)


def _warm_up(what: Standby, client: Any) -> None:
    """Everything that a training job's start takes time for, but the job's own."""
    from ridgeline_service.runtime.environments import Environments
    from ridgeline_service.runtime.images import runtime_named
    from ridgeline_service.training import runner
    from ridgeline_zoo import archive

    del runner, archive  # imported, which is what takes the time
    Environments(Path(what.cache)).ensure(runtime_named(what.runtime), _no_report)
    client.list_buckets()


def _runner(folder: Path, order: Order, reader: S3Reader) -> JobRunner:
    # Inner: each kind of runner loads modules that the other needs not.
    if order.transform is not None:
        from ridgeline_service.training.transform.runner import TransformRunner

        return TransformRunner(folder, order, order.transform, reader)
    from ridgeline_service.training.runner import ScriptRunner

    return ScriptRunner(folder, order, reader)


def _no_report(line: str) -> None:
    """Nobody reads what a runner says that waits."""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
