"""Model server of the framework images: SageMaker's hosting contract around a user's inference.py.

    python -P -u server.py        run by path with the framework's interpreter

That interpreter has none of our packages, so this and its neighbours use the standard library
only; torch, numpy and transformers are imported only for defaults that need them. The port opens
before anything is loaded, so that the control plane can watch the stages. The model is loaded on
the main thread, as libraries that install signal handlers or event loops expect; requests are
served on others. SIGTERM finishes what is in flight, for at most 30 s.

It reads its orders from the environment: SAGEMAKER_BIND_TO_PORT or RIDGELINE_LISTEN_FD, the
replica's id and token, and SageMaker's own variables. It knows neither gateway nor control plane.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

# Neighbours are imported by their full name from the source root, which is then forgotten: the
# user's modules must not be shadowed by ours, nor find them.
_ROOT = str(Path(__file__).resolve().parents[3])
sys.path.insert(0, _ROOT)

from ridgeline_service.serving.framework.errors import HostingError  # noqa: E402
from ridgeline_service.serving.framework.hosting import Hosting, HostingServer  # noqa: E402
from ridgeline_service.serving.framework.journal import say  # noqa: E402
from ridgeline_service.serving.framework.settings import HostingSettings  # noqa: E402
from ridgeline_service.serving.framework.toolkit import load_model  # noqa: E402

sys.path.remove(_ROOT)

DRAIN_S = 30.0
FAILED_FOR_S = 5.0  # how long a failure can be read at /ridgeline/identity before the exit


def main() -> int:
    settings = HostingSettings.read(os.environ)
    hosting = Hosting(settings)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if hosting.is_loading:
            os._exit(0)  # nothing is in flight, and user code may take minutes to come back
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server = HostingServer(hosting, _listener(settings))
    threading.Thread(target=server.serve, name="http", daemon=True).start()
    say(
        f"Ridgeline runtime {settings.runtime}: Python {platform.python_version()} "
        f"on {platform.machine()}, model at {settings.model_dir}"
    )
    try:
        hosting.model = load_model(settings, hosting.stage)
    except BaseException as error:  # noqa: BLE001 (user code may raise anything, SystemExit too)
        hosting.fail(error)
        if isinstance(error, HostingError):
            say(f"The model could not be loaded: {error}")
        else:
            traceback.print_exc()
            say(f"The model could not be loaded: {error!r}")
        # A SIGTERM ends the wait: somebody has read the cause.
        stopping.wait(FAILED_FOR_S)
        return 1
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in hosting.stage_seconds)
    say(f"Ready: {stages}")
    signal.signal(signal.SIGTERM, stop)  # user code may have put its own
    while not stopping.wait(3600):
        pass
    server.draining = True
    deadline = time.monotonic() + DRAIN_S
    with hosting.idle:
        while hosting.in_flight and (left := deadline - time.monotonic()) > 0:
            hosting.idle.wait(left)
    say(f"Stopped with {hosting.in_flight} requests in flight")
    return 0


def _listener(settings: HostingSettings) -> socket.socket:
    if settings.listen_fd is not None:
        return socket.socket(fileno=settings.listen_fd)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", settings.port))
    listener.listen(512)
    return listener


if __name__ == "__main__":
    # The standard streams are flushed by hand: threads of user code must not hold up the exit.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
