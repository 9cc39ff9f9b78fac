"""Listening sockets outlive the process that opened them.

Each child of the supervisor offers its listening socket on a Unix socket in ``run/``. A new
supervisor, started after the old one was killed, fetches it and can restart the child without a
moment in which connections are refused.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ridgeline_service.paths import DataDir


def serve(name: str, data_dir: DataDir, listening: socket.socket) -> None:
    """Offer ``listening`` to whoever may open ``run/NAME.sock``, on a daemon thread."""
    data_dir.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _short_path(data_dir.run, f"{name}.sock") as path:
        path.unlink(missing_ok=True)
        offer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        offer.bind(str(path))
        os.chmod(path, 0o600)
    offer.listen(1)

    def answer() -> None:
        while True:
            peer, _ = offer.accept()
            with peer:
                try:
                    socket.send_fds(peer, [name.encode()], [listening.fileno()])
                except OSError:
                    continue  # the asker went away; the next one may stay

    threading.Thread(target=answer, name=f"handover-{name}", daemon=True).start()


def receive(name: str, data_dir: DataDir, timeout_s: float = 2.0) -> socket.socket | None:
    """The listening socket of the child ``name``, or None when nobody offers it."""
    with (
        _short_path(data_dir.run, f"{name}.sock") as path,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker,
    ):
        asker.settimeout(timeout_s)
        try:
            asker.connect(str(path))
            _, handles, _, _ = socket.recv_fds(asker, 64, 1)
        except OSError:
            return None
    return socket.socket(fileno=handles[0]) if handles else None


@contextmanager
def _short_path(folder: Path, name: str) -> Iterator[Path]:
    """``folder/name`` by way of /proc: a Unix socket's path may have at most 107 bytes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if folder.exists() else -1
    if handle < 0:
        yield folder / name
        return
    try:
        yield Path(f"/proc/self/fd/{handle}") / name
    finally:
        os.close(handle)
