"""A command of ours that runs: its lines as they come, and the result or the error among them."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from ridgeline_service.control.command_jobs.life import Cancelled, CommandCancelled, CommandFailed
from ridgeline_service.endings import sentences

_POLL_S = 0.3
_SAID = 2000


def followed(process: subprocess.Popen[bytes], cancelled: Cancelled) -> Any:
    """The result that the command prints. Raises CommandFailed and CommandCancelled."""
    said = ""
    for line in _lines(process, cancelled):
        try:
            message = json.loads(line)
        except ValueError:
            said += line.decode(errors="replace") + "\n"
            continue
        if "error" in message:
            error: Mapping[str, str] = message["error"]
            raise CommandFailed(f"ClientError: {sentences(error['message'], error['hint'])}")
        if "result" in message:
            return message["result"]
    raise CommandFailed(f"InternalServerError: the command ended. {said[-_SAID:]}")


def _lines(process: subprocess.Popen[bytes], cancelled: Cancelled) -> Iterator[bytes]:
    """Lines as they come, looking now and then whether anybody still waits for them."""
    assert process.stdout is not None
    handle, rest = process.stdout.fileno(), b""
    while True:
        if cancelled():
            raise CommandCancelled
        ready, _, _ = select.select([handle], [], [], _POLL_S)
        if not ready:
            continue
        part = os.read(handle, 1 << 16)
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
