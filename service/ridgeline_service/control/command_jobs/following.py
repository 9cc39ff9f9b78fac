"""A command of ours that runs: its lines as they come, and the result or the error among them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from ridgeline_service.control.child_lines import child_lines
from ridgeline_service.control.command_jobs.life import Cancelled, CommandCancelled, CommandFailed
from ridgeline_service.endings import sentences

_SAID = 2000


def followed(process: subprocess.Popen[bytes], cancelled: Cancelled) -> Any:
    """The result that the command prints. Raises CommandFailed and CommandCancelled."""

    def check() -> None:
        if cancelled():
            raise CommandCancelled

    said = ""
    for line in child_lines(process, check):
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
