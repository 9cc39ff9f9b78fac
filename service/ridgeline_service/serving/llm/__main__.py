"""``python -m ridgeline_service.serving.llm``: serve the model of this replica."""

from __future__ import annotations

import ctypes
import logging
import os
import sys

import uvloop

from ridgeline_service.serving.llm.errors import InvalidSetting
from ridgeline_service.serving.llm.generation import Mailbox
from ridgeline_service.serving.llm.model import Model, Seams
from ridgeline_service.serving.llm.model_folder import model_folder
from ridgeline_service.serving.llm.properties import read_properties
from ridgeline_service.serving.llm.replica import Replica
from ridgeline_service.serving.llm.server import Binding, ReplicaServer
from ridgeline_service.serving.llm.settings import ModelSettings, model_dir, read_settings
from ridgeline_service.telemetry.tracing import open_tracing

log = logging.getLogger(__name__)

_LEFT_OUT = "RIDGELINE_LEFT_OUT"  # set by whoever starts it
_M_ARENA_MAX = -8  # of glibc's malloc.h


def load(replica: Replica, mailbox: Mailbox, seams: Seams) -> tuple[ModelSettings, Model]:
    """Read the settings, then load what they ask for. Raises what is wrong with either."""
    data = model_dir(os.environ)
    properties = read_properties(data)
    settings = read_settings(os.environ, properties)
    directory = model_folder(data, properties)
    for note in settings.notes:
        log.warning("%s", note)
    if left_out := os.environ.get(_LEFT_OUT):
        log.warning(
            "Left out: %s. This machine has no sandbox (see `ridgeline doctor`), and without one "
            "only settings of the model reach its server.",
            left_out,
        )
    # Imported here: it brings the backends in, and the server answers before they are there.
    from ridgeline_service.serving.llm.loading import load_model

    return settings, load_model(directory, settings, replica, mailbox, seams)


def share_one_heap() -> None:
    """Let all threads allocate from one heap. By itself each of glibc's threads keeps what was
    freed in heaps of its own: a hundred MiB after loading."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)


def main() -> int:
    share_one_heap()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        binding = Binding.read(os.environ)
    except InvalidSetting as error:
        sys.stderr.write(f"{error}\n")
        return 1
    tracing = open_tracing(os.environ, "ridgeline-replica")
    server = ReplicaServer(binding, load, tracing=tracing)
    code = uvloop.run(server.serve_replica())
    if server.still_loading:
        # A thread deep in native code cannot be interrupted, and must not outlive a SIGTERM.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
