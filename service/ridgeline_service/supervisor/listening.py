"""The listening sockets of a service, and the addresses under which they are reached."""

from __future__ import annotations

import errno
import socket

from ridgeline.errors import InvalidInput

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Raises InvalidInput that says why it cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise InvalidInput(
                f"Port {port} on {host} is taken by another program.",
                hint="Choose another with --port (0 takes any free one).",
            ) from None
        raise InvalidInput(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            hint="Check --host and --port.",
        ) from None
    return listening


def connectable(host: str) -> str:
    """The address under which this machine reaches a socket bound to ``host``."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
